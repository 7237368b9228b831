# SPDX-License-Identifier: GPL-3.0-or-later
"""If the disk becomes full at any moment of a verb, what is published stays complete and no upload is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.archive.conftest import Archive, Key, Maker, Template, run
from tests.conftest import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

FREE = {
    "accept": (0, 24, 96, 160, 240, 320, 1000),
    "publish": (0, 24, 96, 160, 1000),
    "resign": (0, 8, 1000),
    "expire": (0, 16, 48, 96, 144, 1000),
    "add-key": (0, 8, 32, 64, 96, 144, 1000),
    "snapshot": (0, 4, 1000),
    "add": (0, 16, 48, 96, 160, 240, 400, 1000),
}
"""KiB that are free when a verb begins: with each it fails at another step, and with the last it succeeds."""


def levels(verb: str) -> tuple[int, ...]:
    """All levels in `make check-all`, else the first, the middle and the last."""
    every = FREE[verb]
    return every if ALL else (every[0], every[len(every) // 2], every[-1])


@pytest.fixture
def disk(archive: Archive, tmp_path: Path, env: dict[str, str]) -> Iterator[tuple[Archive, Path]]:
    """An archive on a small disk in a namespace of its own, and the path by which its files are seen from here."""
    place = archive.path.parent / "disk"
    place.mkdir()
    script = 'mount -t tmpfs -o size=16m,mode=755 none "$1" && echo ready && exec sleep 900'
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    command: tuple[str | Path, ...] = (
        "unshare",
        *user,
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        place,
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        enter = f"nsenter --target {holder.pid} --mount {'--user --preserve-credentials' if user else ''}"
        commands = tmp_path / "bin"
        commands.mkdir()
        (commands / "debian-cloud-archive").write_text(
            f'#!/bin/sh\nexec {enter} {shutil.which("debian-cloud-archive", path=env["PATH"])} "$@"\n'
        )
        (commands / "debian-cloud-archive").chmod(0o755)
        yield (
            Archive(place / "a", {**env, "PATH": f"{commands}:{env['PATH']}"}),
            Path(f"/proc/{holder.pid}/root{place}"),
        )
        holder.kill()


def left(folder: Path) -> int:
    """The KiB that can still be written."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize // 1024


def assert_whole(archive: Path, keyring: Path) -> None:
    """Assert that InRelease is signed by a key that clients have and no unknown one, and its files exist by hash."""
    dist = archive / "public/dists/trixie"

    def gpgv(keys: Path) -> subprocess.CompletedProcess[str]:
        return run(["gpgv", "--status-fd=1", "--keyring", keys, dist / "InRelease"], dict(os.environ), check=False)

    # If a second key signs, gpgv's status is not 0 for a client that has only the first; apt accepts that.
    done = gpgv(keyring)
    assert "[GNUPG:] VALIDSIG " in done.stdout, done.stderr
    done = gpgv(archive / "gnupg/pubring.kbx")
    assert done.returncode == 0, done.stderr
    for digest, size, name in re.findall(
        r"^ ([0-9a-f]{64}) (\d+) (\S+)$", (dist / "InRelease").read_text(), re.MULTILINE
    ):
        assert ((dist / name).parent / "by-hash/SHA256" / digest).stat().st_size == int(size)


def copied(archive: Path, disk: Path, env: dict[str, str], free: int) -> None:
    """Put a copy of an archive on the disk, and fill that until `free` KiB are left."""
    shutil.rmtree(disk / "a", ignore_errors=True)
    (disk / "filler").unlink(missing_ok=True)
    run(["cp", "-a", archive, disk / "a"], env)
    with (disk / "filler").open("wb") as filler:
        filler.write(bytes(1024 * max(left(disk) - free, 0)))


@pytest.fixture(scope="module")
def waiting_template(
    short_path: Path, env: dict[str, str], uploader: Key, tmp_path_factory: pytest.TempPathFactory
) -> Template:
    template = Template.begun(short_path, "waiting", env, uploader)
    archive, make = Archive(template.path, env), Maker(tmp_path_factory.mktemp("uploads"), env)
    for upload in make.image(uploader, "20261119.0"), make.deb(uploader, package="debian-cloud-config-first"):
        archive.put(upload)
    archive.run("accept")
    archive.run("publish")
    for upload in make.image(uploader), make.deb(uploader, "2.0", content=os.urandom(20000).hex()):
        archive.put(upload)
    template.keep()
    return template


@pytest.fixture
def waiting(waiting_template: Template, env: dict[str, str]) -> Iterator[Archive]:
    """An archive with an image and a package, and others in its queue."""
    with waiting_template.copied():
        yield Archive(waiting_template.path, env)


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(verb, marks=() if verb == "accept" else pytest.mark.thorough)
        for verb in sorted({*FREE} - {"add"})
    ],
)
def test_a_full_disk_loses_nothing(waiting: Archive, disk: tuple[Archive, Path], tmp_path: Path, verb: str) -> None:
    archive, (full, seen) = waiting, disk
    if verb != "accept":
        archive.run("accept")
    if verb == "expire":
        (archive.path / "conf/expire").write_text("keep 1\nsnapshots 1\n")
    if verb == "snapshot":
        archive.run("publish")
        shutil.rmtree(archive.path / "public/snap")
    keyring = tmp_path / "keyring.gpg"
    archive.key.gpg("--output", keyring, "--export")
    states = set()
    for free in levels(verb):
        copied(archive.path, seen, full.env, free)
        done = full.run(verb, check=False)
        states.add(done.returncode)
        assert done.returncode in (0, 1), done.stderr
        assert done.returncode == 0 or "error: there is no space left " in done.stderr, f"{free} KiB: {done.stderr}"
        assert "Traceback" not in done.stderr
        assert not done.stdout.count("refused: "), "a full disk is not a fault of the upload"
        assert_whole(seen / "a", keyring)
        (seen / "filler").unlink()
        again = (verb,) if done.returncode else ()
        for then in (*again, "accept", "publish", "check"):
            done = full.run(then, check=False)
            assert done.returncode == 0, f"{free} KiB, then {then}: {done.stdout}{done.stderr}"
        assert_whole(seen / "a", keyring)
        assert not [*(seen / "a/incoming").iterdir()]
        text = "".join(
            (seen / "a/public/dists/trixie/main" / name).read_text()
            for name in (
                "images/Images",
                "binary-amd64/Packages",
            )
        )
        for wanted in "Version: 20261120.0\n", "Package: debian-cloud-config-demo\n":
            assert wanted in text, free
        assert ("Version: 20261119.0\n" in text) is (verb != "expire"), free
    assert states == {0, 1}


def at_once(archive: Archive, debs: list[Path]) -> list[tuple[int, str]]:
    """Start `add` for each of the files at once, and return their statuses and outputs."""
    words = [["debian-cloud-archive", "add", str(archive.path), str(deb)] for deb in debs]
    running = [
        subprocess.Popen(command, env=archive.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in words
    ]
    said = [process.communicate(timeout=120)[0] for process in running]
    return [(process.returncode, text) for process, text in zip(running, said, strict=True)]


def test_two_adds_at_once(archive: Archive, make: Maker) -> None:
    """The `add` that runs first makes the key by which all are signed."""
    names = [f"debian-cloud-config-{name}" for name in ("one", "two", "three")]
    for status, said in at_once(archive, [make.deb(None, package=name, source=name).files[0] for name in names]):
        assert status == 0, said
    assert (archive.path / "conf/uploaders").read_text().count("# Maintainer of ") == 1
    assert {f"Package: {name}" for name in names} <= {
        *(archive.dist / "main/binary-amd64/Packages").read_text().split("\n")
    }


@pytest.mark.thorough
def test_two_adds_at_once_on_a_full_disk(
    archive: Archive, disk: tuple[Archive, Path], make: Maker, tmp_path: Path
) -> None:
    full, seen = disk
    names = [f"debian-cloud-config-{name}" for name in ("one", "two")]
    debs = [make.deb(None, package=name, source=name, content=os.urandom(20000).hex()).files[0] for name in names]
    keyring = tmp_path / "keyring.gpg"
    archive.key.gpg("--output", keyring, "--export")
    states = set()
    for free in levels("add"):
        copied(archive.path, seen, full.env, free)
        for status, said in at_once(full, debs):
            states.add(status)
            assert status in (0, 1), f"{free} KiB: {said}"
            assert status == 0 or "error: there is no space left " in said, f"{free} KiB: {said}"
            assert "Traceback" not in said
            assert "refused: " not in said, "a full disk is not a fault of the upload"
        assert_whole(seen / "a", keyring)
        (seen / "filler").unlink()
        for deb in debs:
            done = full.run("add", deb, check=False)
            assert done.returncode == 0, f"{free} KiB: {done.stdout}{done.stderr}"
        done = full.run("check", check=False)
        assert done.returncode == 0, f"{free} KiB: {done.stdout}{done.stderr}"
        assert_whole(seen / "a", keyring)
        assert not [*(seen / "a/incoming").iterdir()]
        shown = (seen / "a/public/dists/trixie/main/binary-amd64/Packages").read_text()
        assert [shown.count(f"Package: {name}\n") for name in names] == [1, 1]
    assert states == {0, 1}
