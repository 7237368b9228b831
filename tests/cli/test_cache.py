# SPDX-License-Identifier: GPL-3.0-or-later
"""`cache` shows, verifies and reduces what builds keep, whatever is in the directory and whoever uses it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from debian_cloud import cli
from debian_cloud.build import store
from debian_cloud.errors import Error
from debian_cloud.host import command
from debian_cloud.image import sources
from debian_cloud.packages import cache, keyrings
from tests import throwaway

KIB = 1024
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@dataclass
class Cache:
    """A cache, and the command; `said` is the output of the last call on both streams."""

    place: Path
    capture: pytest.CaptureFixture[str]
    said: str = ""

    def run(self, *words: str, status: int = 0) -> str:
        self.capture.readouterr()
        try:
            found = command.main(cli.run, ["cache", *words])
        except SystemExit as ended:
            found = int(ended.code or 0)
        out, err = self.capture.readouterr()
        self.said = out + err
        assert found == status, self.said
        assert "\x1b" not in self.said
        if status:
            assert len(re.findall("error: ", err)) == 1
        return out

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("list", "--json"))
        return found

    def deb(self, number: int, age: int = 0, size: int = 64 * KIB) -> Path:
        content = bytes([number]) * size
        return self._file(cache.DEBS, throwaway.sha256(content), content, age)

    def layer(self, number: int, age: int = 0, stage: str = "install base: 9 packages", size: int = 64 * KIB) -> Path:
        name = f"{number:064x}"
        content = (
            json.dumps({"layer": name, "stage": stage, "last": "", "removed": [], "bare": []}).encode()
            + b"\n"
            + b"x" * size
        )
        return self._file(cache.LAYERS, f"{name}-{throwaway.sha256(content)}", content, age)

    def keyring(self, content: bytes = b"key") -> Path:
        return self._file(cache.KEYRINGS, f"{throwaway.sha256(content)}.gpg", content, 0)

    def apt(self, name: str, uri: str = "http://a.example") -> Path:
        text = sources.as_deb822([sources.Source(uri, ("trixie", "trixie-updates"), "/k")])
        (self.place / name).mkdir(parents=True, mode=0o755)
        return self._file(f"{name}/sources.list.d", "debian-cloud.sources", text.encode(), 0).parents[1]

    def _file(self, folder: str, name: str, content: bytes, age: int) -> Path:
        path = self.place / folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.write_bytes(content)
        path.chmod(0o600)
        os.utime(path, (time.time() - age,) * 2)
        return path

    def there(self) -> set[Path]:
        return {*self.place.rglob("*")}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cache]:
    monkeypatch.setattr(cache, "place", lambda: tmp_path / "cache")
    before = os.umask(0o022)
    yield Cache(tmp_path / "cache", capsys)
    os.umask(before)


def test_a_cache_that_is_not_there_is_empty_and_stays_so(kept: Cache) -> None:
    assert kept.run("list").splitlines() == [
        str(kept.place),
        "indexes: 0, 0 keyrings, 0 KiB of 1.0 GiB",
        "packages: 0, 0 KiB of 2.0 GiB",
        "layers: 0, 0 KiB of 4.0 GiB",
        "total: 0 KiB",
    ]
    assert kept.json()["packages"] == {"count": 0, "bytes": 0, "bound": cache.BOUND_OF_DEBS}
    assert "as they were kept" in kept.run("verify")
    for words in ((), ("--size", "1M"), ("--all",)):
        assert kept.run("prune", *words) == "nothing was to be removed; packages and layers take 0 KiB\n"
    assert not kept.place.exists()


def test_it_lists_what_is_there(kept: Cache) -> None:
    kept.apt("0123.images")
    kept.keyring()
    kept.deb(1)
    kept.deb(2)
    old, new = kept.layer(1, age=86400), kept.layer(2, stage="install cloud: 3 packages")
    lines = kept.run("list").splitlines()
    assert lines[1].startswith("indexes: 1, 1 keyrings, ")
    assert lines[2].split()[0] == "0123.images"
    assert lines[3] == "    http://a.example trixie trixie-updates"
    assert lines[4] == "packages: 2, 128 KiB of 2.0 GiB"
    assert lines[5].startswith("layers: 2, ")
    assert re.fullmatch(r"  0{12}  install cloud: 3 packages +64 KiB  \d{4}-\d\d-\d\d \d\d:\d\d UTC", lines[6])
    assert "install base: 9 packages" in lines[7]
    found = kept.json()
    assert found["directory"] == str(kept.place)
    assert found["packages"]["count"] == 2
    layers = found["layers"]["layers"]
    assert [layer["id"] for layer in layers] == [new.name[:64], old.name[:64]]
    assert layers[0]["bytes"] == new.stat().st_size
    assert found["layers"]["bound"] == store.BOUND


def test_a_password_of_a_source_is_not_shown(kept: Cache) -> None:
    kept.apt("0123", "http://user:hunter2@a.example")
    assert "hunter2" not in kept.run("list") + kept.run("list", "--json")


def damaged(path: Path) -> None:
    path.write_bytes(b"changed")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def nested(path: Path) -> None:
    path.write_bytes(b"[" * 10**6)


def a_link(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


def a_link_to_everything(path: Path) -> None:
    path.unlink()
    path.symlink_to("/")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def writable_by_all(path: Path) -> None:
    path.chmod(0o646)


def another_s(path: Path) -> None:
    os.chown(path, 65534, 65534)


def renamed(path: Path) -> None:
    path.rename(path.with_name("\x1b[2Jx\n"))


ATTACKS = [
    *(damaged, truncated, nested, a_link, a_link_to_everything, a_pipe, a_directory, writable_by_all, renamed),
    pytest.param(another_s, marks=root_only),
]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", ["deb", "layer", "keyring"])
def test_what_is_damaged_or_foreign_is_named_and_removed(
    kept: Cache, kind: str, attack: Callable[[Path], None]
) -> None:
    good = {kept.deb(1), kept.layer(1), kept.keyring(b"good")}
    bad = kept.deb(2) if kind == "deb" else kept.layer(2) if kind == "layer" else kept.keyring()
    assert kept.run("verify").count("\n") == 1
    attack(bad)
    before = kept.there()
    out = kept.run("verify", status=1)
    assert out.count("\n") == 1
    assert out.startswith(f"{bad.parent}/")
    assert re.search(": (it|other|its) ", out)
    assert "error: 1 thing in the cache is damaged or foreign" in kept.said
    assert "hint: remove what is: debian-cloud cache prune" in kept.said
    assert kept.there() == before
    # Such a file does not keep the others from being listed.
    kept.run("list")
    assert "removed 1 damaged or unfinished file: " in kept.run("prune")
    assert {path for path in kept.there() if path.is_file()} == good
    kept.run("verify")


@pytest.mark.parametrize("name", [cache.DEBS, cache.LAYERS, cache.KEYRINGS, "0123456789abcdef", ""])
def test_a_directory_that_others_can_write_to_is_named(kept: Cache, name: str) -> None:
    kept.deb(1)
    kept.layer(1)
    kept.keyring()
    kept.apt("0123456789abcdef")
    (kept.place / name).chmod(0o777)
    out = kept.run("verify", status=1)
    above = "" if name else ", or to a directory above it"
    assert out == f"{kept.place / name}: other users can write to it{above}\n"
    kept.run("list")


@pytest.mark.parametrize("above", [False, True])
def test_a_cache_that_others_can_change_is_used_by_no_build(kept: Cache, above: bool) -> None:
    """They could put other files there, by the name of a directory."""
    kept.layer(1)
    before = kept.there()
    (kept.place.parent if above else kept.place).chmod(0o777)
    kept.run("prune", status=1)
    assert "is not used: other users can write to it, or to a directory above it" in kept.said
    with pytest.raises(Error, match="can be written by other users"), store.opened(0):
        pytest.fail("it is used")
    assert kept.there() == before


def test_a_cache_is_closed_to_others_whatever_the_umask(kept: Cache) -> None:
    os.umask(0o002)
    with store.opened(2**30) as used:
        used.begin(["0" * 64])
    keyrings.copy_of(b"key")
    kept.deb(1)
    kept.run("verify")
    kept.run("prune", "--all")


def test_a_cache_that_was_moved_and_linked_is_used(kept: Cache) -> None:
    kept.layer(1)
    kept.place.rename(kept.place.parent / "elsewhere")
    kept.place.symlink_to("elsewhere")
    with store.opened(2**30):
        pass
    kept.run("verify")
    assert "layers" in kept.run("list")
    kept.run("prune", "--all")
    assert [*(kept.place / cache.LAYERS).iterdir()] == []


@root_only
@pytest.mark.parametrize("name", [cache.LAYERS, "0123456789abcdef", ""])
def test_a_directory_of_another_user_is_named(kept: Cache, name: str) -> None:
    kept.layer(1)
    kept.apt("0123456789abcdef")
    os.chown(kept.place / name, 65534, 65534)
    assert kept.run("verify", status=1) == f"{kept.place / name}: it belongs to another user\n"
    kept.run("list")
    if not name:
        kept.run("prune", status=1)
        assert "is not used: it belongs to another user" in kept.said
        assert len([*kept.place.iterdir()]) == 2


def test_names_and_words_of_others_do_not_reach_the_terminal(kept: Cache) -> None:
    bad = "\x1b]0;x\x07\n\udcff"
    kept.apt(bad, "http://a.example/\x1b[31m")
    kept.layer(1, stage="\x1b[2J\nlayers: 0")
    (kept.place / f"file{bad}").touch()
    (kept.place / cache.DEBS).mkdir()
    (kept.place / cache.DEBS / bad).touch()
    out = kept.run("list")
    assert "\\x1b" in out
    assert len(out.splitlines()) == 8
    assert kept.run("verify", status=1).count("\n") == 2
    kept.run("list", "--json")


def test_the_least_recently_used_go_first_of_both(kept: Cache) -> None:
    size = 512 * KIB
    debs = [kept.deb(number, age=age, size=size) for number, age in ((1, 50), (2, 20))]
    layers = [kept.layer(number, age=age, size=size - 200) for number, age in ((1, 40), (2, 10), (3, 30))]
    said = kept.run("prune", "--size", "1M")
    assert said == "removed 1 package, 2 layers: 1.5 MiB freed; packages and layers take 1.0 MiB\n"
    assert {path for path in kept.there() if path.is_file()} == {debs[1], layers[1]}
    assert kept.run("prune", "--size", "1M") == "nothing was to be removed; packages and layers take 1.0 MiB\n"


def test_without_a_size_each_has_its_own_bound(kept: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BOUND_OF_DEBS", 64 * KIB)
    monkeypatch.setattr(store, "BOUND", 256 * KIB)
    old, new = kept.deb(1, age=10), kept.deb(2)
    layers = {kept.layer(1, age=100), kept.layer(2)}
    assert kept.run("prune").startswith("removed 1 package: 64 KiB freed")
    assert not old.exists()
    assert {path for path in kept.there() if path.is_file()} == {new, *layers}


def test_all_go_and_indexes_stay(kept: Cache) -> None:
    apt, keyring = kept.apt("0123"), kept.keyring()
    damaged(kept.deb(1))
    kept.deb(2)
    kept.layer(1)
    assert kept.run("prune", "--all").startswith("removed 2 packages, 1 layer: ")
    assert {path for path in kept.there() if path.is_file()} == {
        keyring,
        apt / "sources.list.d/debian-cloud.sources",
    }


def test_what_killed_runs_left_goes(kept: Cache) -> None:
    good = kept.layer(1)
    (kept.place / ".gone.x.1").mkdir()
    (kept.place / cache.DEBS / "partial").mkdir(parents=True)
    (kept.place / cache.DEBS / "partial/x").write_bytes(b"x")
    (kept.place / cache.LAYERS / "partial.x").touch()
    (kept.place / cache.LAYERS / f"{1:064x}.making").mkdir()
    keyring = kept.keyring()
    old, new = (keyring.rename(keyring.with_suffix(".77")), keyring.with_suffix(".78"))
    new.touch()
    os.utime(old, (1, 1))
    # They are nothing that a build would use.
    assert "as they were kept" in kept.run("verify")
    assert kept.json()["packages"]["count"] == 0
    assert kept.run("prune").startswith("removed 5 damaged or unfinished files: ")
    assert {path for path in kept.there() if path.is_file()} == {good, new}


@contextlib.contextmanager
def used(folder: Path, *options: str) -> Iterator[None]:
    """Another process holds the lock of a directory."""
    argv: list[str | Path] = ["flock", *options, folder, "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [(cache.LAYERS, ("--shared",), "the cache of layers"), (cache.DEBS, (), "the cache of packages")],
)
@pytest.mark.parametrize("words", [(), ("--size", "1M"), ("--all",)])
def test_what_a_build_uses_stays(
    kept: Cache, name: str, options: tuple[str, ...], what: str, words: tuple[str, ...]
) -> None:
    kept.deb(1, size=2**21)
    kept.layer(1, size=2**21)
    damaged(kept.deb(2))
    before = kept.there()
    with used(kept.place / name, *options):
        kept.run("prune", *words, status=1)
        assert f"another debian-cloud uses {what}, so nothing was removed" in kept.said
        assert "wait until it has ended" in kept.said
        assert kept.there() == before
        # Looking needs no lock.
        kept.run("list")
        kept.run("verify", status=1)
    kept.run("prune", *words)


@pytest.mark.parametrize("size", ["1", "x", "-1G", "1.5G", "1K", "1g", "G", "9999999G", "1G\n", "\x1b[2J"])
def test_a_wrong_size_is_refused(kept: Cache, size: str) -> None:
    path = kept.deb(1)
    kept.run("prune", f"--size={size}", status=2)
    assert "has the invalid size" in kept.said
    assert "powers of 1024" in kept.said
    assert path.exists()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("frob",),
        ("list", "--all"),
        ("list", "--size", "1G"),
        ("verify", "--json"),
        ("verify", "--all"),
        ("prune", "--json"),
        ("prune", "--all", "--size", "1G"),
        ("prune", "--size"),
        ("prune", "more"),
    ],
)
def test_wrong_use_is_refused(kept: Cache, words: tuple[str, ...]) -> None:
    path = kept.deb(1)
    kept.run(*words, status=2)
    assert path.exists()
