# SPDX-License-Identifier: GPL-3.0-or-later
"""What the builder finds in its cache before each work, and that the machine's own is left alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.caches import DEBS, LAYERS, NAME, NOTHING, ROOTS, Begin, Caches
from tests.command import SOURCE

FILES = ("packages/abc", "layers/1-2", "0123/lists/index")
LIST = """\
import os
from debian_cloud.packages import cache
place = cache.directory()
print(*sorted(os.path.relpath(f"{at}/{name}", place) for at, _, names in os.walk(place) for name in names))
"""


@pytest.fixture
def caches(tmp_path: Path) -> Caches:
    """One with a saved cache, of each kind of data one file."""
    made = Caches(tmp_path / "caches")
    for name in FILES:
        (made.home / NAME / name).parent.mkdir(parents=True)
        (made.home / NAME / name).write_text(name)
    made.save("full")
    return made


def run(caches: Caches, *argv: str) -> str:
    """What a command prints that uses the cache."""
    env = {**os.environ, "XDG_CACHE_HOME": str(caches.home), "PYTHONPATH": str(SOURCE)}
    return subprocess.run(caches.command(argv), env=env, stdout=subprocess.PIPE, text=True, check=True).stdout


def found(caches: Caches) -> list[str]:
    """The files that the builder itself finds in its cache."""
    return run(caches, "/usr/bin/python3", "-c", LIST).split()


@pytest.mark.parametrize(
    ("begin", "files"),
    [
        (NOTHING, []),
        (Begin("full", DEBS), ["packages/abc"]),
        (Begin("full", LAYERS), ["layers/1-2", "packages/abc"]),
        (Begin("full", None), sorted(FILES)),
        (Begin("full", None, gone=("layers", "*/lists/*")), ["packages/abc"]),
        (Begin("full", kept=True), sorted(FILES)),
    ],
    ids=["nothing", "debs", "layers", "all", "less", "kept"],
)
def test_the_builder_finds_what_was_asked_for(caches: Caches, begin: Begin, files: list[str]) -> None:
    with caches.holding(begin):
        assert found(caches) == files
    # Whatever the one before had: nothing of it remains.
    with caches.holding(NOTHING):
        assert found(caches) == []


@pytest.mark.parametrize(("kept", "left"), [(False, sorted(FILES)), (True, ["0123/lists/index", "layers/3-4"])])
def test_what_a_work_changes_stays_only_if_it_is_kept(caches: Caches, kept: bool, left: list[str]) -> None:
    begin = Begin("full", None, kept)
    place = ROOTS if os.geteuid() == 0 else caches.home / NAME
    with caches.holding(begin):
        run(
            caches,
            "sh",
            "-euc",
            f"cd {place}; rm layers/1-2 packages/abc; echo 3 > layers/3-4; echo x > 0123/lists/index",
        )
        assert caches.layers() == 2
    with caches.holding(begin):
        assert found(caches) == left
        assert (caches.home / NAME / "0123/lists/index").read_text() == ("x\n" if kept else "0123/lists/index")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's cache is where XDG_CACHE_HOME says")
def test_the_machine_s_own_cache_is_hidden_and_not_changed(caches: Caches, tmp_path: Path) -> None:
    name = f"of-a-test.{os.getpid()}"
    with caches.holding(NOTHING):
        run(caches, "touch", str(ROOTS / name))
        assert (caches.home / NAME / name).exists()
        assert not (ROOTS / name).exists()
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(tmp_path) not in mounts


def test_an_ordinary_user_s_command_is_as_it_was(caches: Caches) -> None:
    assert caches.command(("ls", "-l"), root=False) == ("ls", "-l")


def test_a_failure_of_the_command_is_seen(caches: Caches) -> None:
    assert subprocess.run(caches.command(("sh", "-c", "exit 7")), check=False).returncode == 7


def test_what_is_to_be_gone_must_have_been_there(caches: Caches) -> None:
    with pytest.raises(LookupError, match="no resolved"), caches.holding(Begin("full", None, gone=("resolved",))):
        pass
    with caches.holding(Begin("full", None)):
        assert found(caches) == sorted(FILES)
