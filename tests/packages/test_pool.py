# SPDX-License-Identifier: GPL-3.0-or-later
"""The .debs of a plan: fetched once, kept, and never believed without their SHA-256."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

from debian_cloud.cli.in_plans import packages
from debian_cloud.errors import Error
from debian_cloud.image.resolution import Package
from debian_cloud.packages import cache, pool


class Archive:
    """A directory of files, as apt's method `copy` reads it; and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder / "archive", folder / "cache" / cache.DEBS
        self.folder.mkdir()
        self.file = folder / "packages"

    def list(self, *contents: bytes) -> tuple[Package, ...]:
        """Put files there; list them for `fetch`."""
        made = []
        for number, content in enumerate(contents):
            name, sha256 = f"p{number}", hashlib.sha256(content).hexdigest()
            package = Package(name, "1", "all", len(content), sha256, uri=f"copy:{self.folder}/{name}_1_all.deb")
            (self.folder / package.deb).write_bytes(content)
            made.append(package)
        self.file.write_text(pool.listed(made))
        return (*made,)

    def forget(self) -> None:
        """What was served is gone: only the cache has it."""
        for path in self.folder.iterdir():
            path.unlink()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(cache, "directory", lambda: tmp_path / "cache")
    # As if they came over a network.
    monkeypatch.setattr(pool, "_LOCAL", ("nothing",))
    return Archive(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_fetched_once(archive: Archive, tmp_path: Path) -> None:
    archive.list(b"one", b"two")
    pool.fetch(tmp_path / "first", [archive.file])
    assert contents(tmp_path / "first") == {"p0_1_all.deb": b"one", "p1_1_all.deb": b"two"}
    archive.forget()
    pool.fetch(tmp_path / "second", [archive.file])
    assert contents(tmp_path / "second") == contents(tmp_path / "first")
    assert not [path for path in archive.kept.iterdir() if not path.is_file()]


def test_a_local_file_is_not_kept(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(cache, "directory", lambda: tmp_path / "cache")
    archive.list(b"one", b"two")
    pool.fetch(tmp_path / "first", [archive.file])
    assert contents(tmp_path / "first") == {"p0_1_all.deb": b"one", "p1_1_all.deb": b"two"}
    assert not [*archive.kept.iterdir()]
    archive.forget()
    with pytest.raises(Error, match="packages cannot be fetched"):
        pool.fetch(tmp_path / "second", [archive.file])


def test_a_file_that_is_not_the_listed_one_is_refused_and_not_kept(archive: Archive, tmp_path: Path) -> None:
    (package,) = archive.list(b"one")
    (archive.folder / package.deb).write_bytes(b"two")
    with pytest.raises(Error, match="packages cannot be fetched"):
        pool.fetch(tmp_path / "first", [archive.file])
    assert not (archive.kept / package.sha256).exists()
    archive.list(b"one")
    pool.fetch(tmp_path / "second", [archive.file])
    assert contents(tmp_path / "second") == {package.deb: b"one"}


def test_a_file_is_not_written_beyond_its_size(archive: Archive, tmp_path: Path) -> None:
    (package,) = archive.list(b"one")
    (archive.folder / package.deb).write_bytes(b"x" * 2**20)
    with pytest.raises(Error, match="packages cannot be fetched"):
        pool.fetch(tmp_path / "first", [archive.file])
    assert sum(path.stat().st_size for path in archive.kept.rglob("*") if path.is_file()) <= 3 + pool._SLACK


def damaged(kept: Path) -> None:
    kept.write_bytes(b"changed")


def truncated(kept: Path) -> None:
    kept.write_bytes(b"")


def a_link(kept: Path) -> None:
    kept.rename(kept.with_suffix(".elsewhere"))
    kept.symlink_to(kept.with_suffix(".elsewhere"))


def a_pipe(kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept)


def a_directory(kept: Path) -> None:
    kept.unlink()
    kept.mkdir()


def open_to_others(kept: Path) -> None:
    kept.chmod(0o666)


def another_s(kept: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(kept, 65534, 65534)


@pytest.mark.parametrize("attack", [damaged, truncated, a_link, a_pipe, a_directory, open_to_others, another_s])
def test_a_kept_file_that_could_be_another_s_is_fetched_again(
    archive: Archive, tmp_path: Path, attack: object
) -> None:
    (package,) = archive.list(b"one")
    pool.fetch(tmp_path / "first", [archive.file])
    # A link has given the file to that plan, too: another plan's changes must not reach it.
    (tmp_path / "first" / package.deb).unlink()
    attack(archive.kept / package.sha256)  # type: ignore[operator]
    pool.fetch(tmp_path / "second", [archive.file])
    assert contents(tmp_path / "second") == {package.deb: b"one"}
    found = (archive.kept / package.sha256).lstat()
    assert (found.st_uid, found.st_mode & 0o777) == (os.geteuid(), 0o644)
    (tmp_path / "third").mkdir()
    attack(archive.kept / package.sha256)  # type: ignore[operator]
    archive.forget()
    with pytest.raises(Error, match="packages cannot be fetched"):
        pool.fetch(tmp_path / "third" / "debs", [archive.file])


def test_what_a_killed_run_left_is_removed(archive: Archive, tmp_path: Path) -> None:
    archive.list(b"one")
    (archive.kept / "partial").mkdir(parents=True)
    (archive.kept / "partial" / "x").write_bytes(b"half")
    pool.fetch(tmp_path / "first", [archive.file])
    assert not (archive.kept / "partial").exists()


def test_two_at_once_fetch_each_file_once(archive: Archive, tmp_path: Path) -> None:
    archive.list(*(bytes([number]) * 1000 for number in range(20)))
    threads = [threading.Thread(target=pool.fetch, args=(tmp_path / str(n), [archive.file])) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(contents(tmp_path / str(n))) == 20 for n in range(3))


def test_the_cache_has_a_bound_and_keeps_what_was_used_last(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = archive.list(b"a" * 5000, b"b" * 5000)
    pool.fetch(tmp_path / "first", [archive.file])
    os.utime(archive.kept / old.sha256, (1, 1))
    monkeypatch.setattr(cache, "BOUND_OF_DEBS", 8192 + 4096)
    archive.list(b"c")
    pool.fetch(tmp_path / "second", [archive.file])
    kept = {path.name for path in archive.kept.iterdir()}
    assert old.sha256 not in kept
    assert new.sha256 in kept


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        f"{'0' * 64} 1 ../x.deb copy:/x",
        f"{'0' * 64} 1 x/y.deb copy:/x",
        f"{'0' * 64} 1 .x.deb copy:/x",
        f"{'0' * 63} 1 x.deb copy:/x",
        f"{'0' * 64} -1 x.deb copy:/x",
        f"{'0' * 64} 1 x.deb copy:/x y",
        f"{'0' * 64} 1 \x1b[2J.deb copy:/x",
    ],
)
def test_a_list_that_is_none_is_refused(archive: Archive, tmp_path: Path, line: str) -> None:
    archive.file.write_text(f"{line}\n")
    with pytest.raises(Error, match=r"line 1 of .* is not a \.deb") as refused:
        pool.fetch(tmp_path / "debs", [archive.file])
    assert "\x1b" not in refused.value.message


def test_a_directory_of_another_user_is_no_cache(archive: Archive, tmp_path: Path) -> None:
    archive.list(b"one")
    archive.kept.mkdir()
    archive.kept.chmod(0o777)
    with pytest.raises(Error, match="belongs to another user, or other users may write to it"):
        pool.fetch(tmp_path / "debs", [archive.file])


def test_a_plan_calls_it(archive: Archive, tmp_path: Path) -> None:
    """By its name, for whoever carries out a printed plan."""
    (package,) = archive.list(b"one")
    done = subprocess.run(
        ["debian-cloud", "packages", tmp_path / "debs", archive.file],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "debs") == {package.deb: b"one"}


def test_a_plan_whose_stages_are_all_kept_fetches_nothing(archive: Archive, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    packages.arguments(parser)
    assert packages.main(parser.parse_args([str(tmp_path / "debs")])) == 0
    assert contents(tmp_path / "debs") == {}
