# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishing: what is signed, what is kept, and what stops it."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker


def listed(archive: Archive) -> dict[str, tuple[str, int]]:
    """Name -> SHA-256 and size of what InRelease lists."""
    lines = re.findall(r"^ ([0-9a-f]{64}) (\d+) (\S+)$", (archive.dist / "InRelease").read_text(), re.MULTILINE)
    return {name: (digest, int(size)) for digest, size, name in lines}


def test_release_is_strong_and_expires(archive: Archive) -> None:
    text = (archive.dist / "InRelease").read_text()
    assert "Hash: SHA512\n" in text
    assert "\nAcquire-By-Hash: yes\n" in text
    assert "\nValid-Until: " in text
    assert not re.search("MD5|SHA1:", text)
    assert not re.search(r"^ [0-9a-f]{32,40} ", text, re.MULTILINE)


def test_signatures_verify_with_the_keyring_package(archive: Archive, tmp_path: Path, env: dict[str, str]) -> None:
    keyring = tmp_path / "usr/share/keyrings/debian-cloud-archive-keyring.gpg"
    package = archive.public / "debian-cloud-archive-keyring_trixie.deb"
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], env=env, check=True)
    for files in (["InRelease"], ["Release.gpg", "Release"]):
        command = ["gpgv", "--status-fd", "1", "--keyring", str(keyring), *files]
        done = subprocess.run(command, cwd=archive.dist, env=env, capture_output=True, text=True, check=True)
        # RFC 9580, 9.5: 10 is SHA-512.
        valid = next(line for line in done.stdout.splitlines() if " VALIDSIG " in line)
        assert valid.split()[9] == "10"


def test_every_listed_index_is_there_by_name_and_by_hash(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.image(uploader))
    archive.take(make.deb(uploader))
    archive.run("publish")
    found = listed(archive)
    assert {"main/images/Images", "main/images/Images.xz", "main/binary-amd64/Packages.xz"} <= set(found)
    for name, (digest, size) in found.items():
        path = archive.dist / name
        data = path.read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, size)
        assert path.samefile(path.parent / "by-hash/SHA256" / digest)
    images = archive.dist / "main/images"
    assert lzma.decompress((images / "Images.xz").read_bytes()) == (images / "Images").read_bytes()
    assert not list(archive.public.rglob("*.new"))
    assert not list(archive.public.rglob("*.edited"))


def test_signs_anew_though_nothing_changed(archive: Archive) -> None:
    before = (archive.dist / "InRelease").read_text()
    time.sleep(1.1)  # Date counts seconds
    archive.run("publish")
    after = (archive.dist / "InRelease").read_text()
    assert re.findall("^Date: .*", before, re.MULTILINE) != re.findall("^Date: .*", after, re.MULTILINE)


def test_old_indexes_stay_by_hash_for_two_weeks(archive: Archive, make: Maker, uploader: Key) -> None:
    folder = archive.dist / "main/binary-amd64/by-hash/SHA256"
    first = folder / listed(archive)["main/binary-amd64/Packages.xz"][0]
    archive.take(make.deb(uploader, "1"))
    archive.run("publish")
    second = folder / listed(archive)["main/binary-amd64/Packages.xz"][0]
    archive.take(make.deb(uploader, "2"))
    archive.run("publish")
    assert first.exists()
    assert second.exists()
    for path, days in (first, 16), (second, 13):
        then = time.time() - days * 86400
        os.utime(path, (then, then))
    archive.run("publish")
    assert not first.exists()
    assert second.exists()


def test_index_that_is_still_listed_never_expires(archive: Archive) -> None:
    by_hash = [path for path in archive.dist.rglob("by-hash/SHA256/*") if path.is_file()]
    old = time.time() - 100 * 86400
    for path in by_hash:
        os.utime(path, (old, old))
    archive.run("publish")
    assert all(path.exists() for path in by_hash)


def test_serial_of_the_trace_only_grows(archive: Archive) -> None:
    trace = archive.public / "project/trace/master"

    def serial() -> int:
        return int(re.findall(r"^Archive serial: (\d{10})$", trace.read_text(), re.MULTILINE)[0])

    first = serial()
    archive.run("publish")
    # Another day, which may have begun meanwhile, begins with its own first number.
    assert serial() == first + 1 or serial() // 100 > first // 100
    # After a clock that was wrong once, or a hundredth publication, the serial does not decrease.
    trace.write_text("Archive serial: 2099123199\n")
    archive.run("publish")
    assert serial() == 2099123200


def test_damaged_record_stops_the_publication(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.image(uploader))
    archive.run("publish")
    record = archive.path / "state/images/trixie"
    record.write_text(record.read_text().replace("Filename: ", "Filename: ../"))
    before = archive.snapshot()
    done = archive.run("publish", check=False)
    assert done.returncode == 1
    assert "Filename" in done.stderr
    assert "nothing more was published" in done.stderr
    assert archive.snapshot() == before


def test_key_that_is_gone_stops_the_publication(archive: Archive) -> None:
    (archive.path / "gnupg/private-keys-v1.d").rename(archive.path / "gnupg/gone")
    before = archive.snapshot()
    assert archive.run("publish", check=False).returncode == 1
    after = archive.snapshot()
    assert after == before


def test_no_agent_outlives_its_verb(archive: Archive, make: Maker, uploader: Key, stranger: Key) -> None:
    archive.run("add-uploader", stranger.public)
    archive.take(make.image(uploader))
    archive.run("publish")
    # Searched by its parent directory, because init works in another directory before it renames it.
    home = str(archive.path.parent).encode()
    for _ in range(20):  # an agent that is ending takes a moment on a busy machine
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
        agents = [line for line in lines if b"gpg-agent" in line and home in line]
        if not agents:
            break
        time.sleep(0.1)
    assert agents == []
