# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the bench with small commands: who fails is named and not tried again, and the others go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import ours
from bench.caches import NAME, ROOTS, Begin, Caches
from bench.mirror import Mirror

PLACE = str(ROOTS) if os.geteuid() == 0 else f"$XDG_CACHE_HOME/{NAME}"
LOOK = f'ls "{PLACE}" | tr "\\n" " " >> ../../caches; echo >> ../../caches'
"""Lists what the cache of the builder has."""
WATCHED = 'mkdir -p out/.x.build; head -c "$SIZE" /dev/urandom > out/.x.build/tree; sleep 2; rm -r out'
MIRROR = Mirror("http://127.0.0.1:1/debian", "http://127.0.0.1:1/debian-security", "trixie")


@pytest.fixture
def small(tmp_path: Path) -> bench.Bench:
    works = {
        "good": ours.Work(("sh", "-c", "echo x >> ../../runs; mkdir out")),
        "bad": ours.Work(("sh", "-c", "echo x >> ../../bad; echo no such thing >&2; exit 1")),
        "cold": ours.Work(("sh", "-c", LOOK), Begin("full", ("packages",))),
        "warm": ours.Work(("sh", "-c", LOOK), Begin("full", None)),
        "absent": ours.Work(("true",), Begin("full", None, gone=("resolved",))),
        "nothing": ours.Work(("sh", "-c", LOOK)),
        "watched": ours.Work(("sh", "-c", WATCHED), env={"SIZE": "3M"}, watched=True),
    }
    (tmp_path / "top").mkdir()
    caches = Caches(tmp_path / "of-all")
    for name in ("packages", "layers", "indexes"):
        (caches.home / NAME / name).mkdir(parents=True)
    caches.save("full")
    env = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(caches.home)}
    return bench.Bench(tmp_path / "top", MIRROR, env, ("bash",), works, caches)


def test_a_failure_is_named_once_and_the_others_go_on(small: bench.Bench, tmp_path: Path) -> None:
    small.round(("bad", "good"), measured=False)
    for _ in range(2):
        small.round(("bad", "good"), measured=True)
    assert small.failures == {"bad": "exit status 1\nno such thing\n"}
    assert {name: len(costs) for name, costs in small.costs.items()} == {"good": 2}
    assert (tmp_path / "bad").read_text() == "x\n"
    assert (tmp_path / "runs").read_text() == "x\n" * 3
    # Each has a directory of its own, which is removed.
    assert [*small.top.iterdir()] == []


def test_each_work_finds_the_cache_that_it_needs(small: bench.Bench, tmp_path: Path) -> None:
    for _ in range(2):
        small.round(("cold", "warm", "nothing"), measured=True)
    assert not small.failures
    lines = [line.split() for line in (tmp_path / "caches").read_text().splitlines()]
    assert lines == [["packages"], ["indexes", "layers", "packages"], []] * 2


def test_a_cache_that_is_not_as_needed_is_a_failure(small: bench.Bench) -> None:
    small.round(("absent", "nothing"), measured=True)
    assert small.failures == {"absent": "the cache has no resolved"}
    assert [*small.costs] == ["nothing"]


def test_scratch_space_is_looked_at_in_the_round_that_is_not_measured(small: bench.Bench) -> None:
    small.round(("watched",), measured=False)
    space = small.spaces["watched"]
    assert 3 << 20 <= space.disk < 4 << 20
    assert (space.root, space.ratio) == (0, None)
    small.spaces.clear()
    small.round(("watched",), measured=True)
    assert small.spaces == {}
    assert not small.failures


def test_a_peer_that_fails_is_named(small: bench.Bench) -> None:
    """There is nothing at the mirror's address: the peer's own tool says so."""
    small.round(("mmdebstrap",), measured=False)
    assert "exit status 1" in small.failures["mmdebstrap"]
    assert "mmdebstrap" in small.failures["mmdebstrap"].partition("\n")[2]


def test_loop_devices_of_a_directory() -> None:
    files = ("/tmp/a/bench.x/disk", "/bench.x/disk (deleted)", "/tmp/bench.xy/disk", "/swap", None)
    listed = json.dumps(
        {"loopdevices": [{"name": f"/dev/loop{number}", "back-file": file} for number, file in enumerate(files)]}
    )
    assert bench.attached(listed, "bench.x") == ("/dev/loop0", "/dev/loop1")
    assert bench.attached("", "bench.x") == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--peers", "fai,nobody"), "no such peer: nobody; there are debos, fai,"), (("--rounds", "0"), "one round")],
)
def test_wrong_words_are_refused(words: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "bench", *words]
    done = subprocess.run(command, cwd=bench.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
