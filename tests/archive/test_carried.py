# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of all files lists each file of the images as it is served, so that a mirror verifies one signature."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from typing import TYPE_CHECKING

from debian_cloud.image import inventory
from tests.archive.conftest import SERIAL

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker

PLACE = f"images/trixie/ec2/amd64/{SERIAL}"
OTHER = {"SHA256SUMS.sign": "SHA512SUMS.sign", "SHA512SUMS.sign": "SHA256SUMS.sign"}


def listed(archive: Archive) -> dict[str, str]:
    """Path -> line, of each line of the index."""
    text = (archive.dist / "main/images/Files").read_bytes()
    return {entry.path: str(entry) for entry in inventory.read(io.BytesIO(text))}


def served(archive: Archive) -> dict[str, str]:
    """The same of all that is served of images."""
    found = {}
    for tree in ("images", "rebuilds"):
        for path in (archive.public / tree).rglob("*"):
            name = str(path.relative_to(archive.public))
            if path.is_symlink():
                found[name] = f"link {path.readlink()} {name}"
            elif path.is_file():
                found[name] = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_size} {name}"
    return found


def test_each_file_is_listed_as_it_is_served(full: Archive, make: Maker, uploader: Key) -> None:
    assert listed(full) == served(full)
    assert len(listed(full)) > 10
    full.take(make.image(uploader, "20261121.0"))
    before = listed(full)
    full.run("publish")
    assert listed(full) == served(full)
    assert len(listed(full)) > len(before)
    full.run("withdraw", "trixie/ec2/amd64/20261121.0", "--reason", "a test")
    assert not any("20261121.0" in line for line in listed(full).values())
    assert listed(full).items() <= served(full).items()


def test_an_archive_without_images_lists_nothing(archive: Archive) -> None:
    archive.run("publish")
    assert (archive.dist / "main/images/Files").read_text() == "\n"


def test_the_files_of_an_older_archive_are_entered_once(full: Archive, make: Maker, uploader: Key) -> None:
    shutil.rmtree(full.path / "state/files")
    # An image that is accepted before: all are entered together.
    full.take(make.image(uploader, "20261121.0"))
    assert not (full.path / "state/files").exists()
    said = full.run("publish", "--if-new").stdout
    assert "published: serial" in said
    assert "warning" not in said
    assert "published: serial" not in full.run("publish", "--if-new").stdout
    assert listed(full) == served(full)
    assert (full.path / "state/files/trixie").is_file()
    # Also if nothing else is new.
    shutil.rmtree(full.path / "state/files")
    assert "published: serial" in full.run("publish", "--if-new").stdout
    assert (full.path / "state/files/trixie").is_file()
    assert listed(full) == served(full)


def test_of_an_older_archive_only_what_it_signed_is_entered(full: Archive, make: Maker, uploader: Key) -> None:
    full.take(make.image(uploader, "20261121.0"))
    full.run("publish")
    shutil.rmtree(full.path / "state/files")
    (changes,) = (full.public / PLACE).glob("*.changes")
    changes.write_text(changes.read_text() + "X: y\n")
    said = full.run("publish").stdout
    assert re.search(f"^warning: {PLACE}: mirrors get no checksums of it: {changes.name} is not the file", said, re.M)
    # What the record lists is listed.
    assert {path.rpartition(".")[2] for path in listed(full) if path.startswith(PLACE)} == {"qcow2", "json", "gpg"}
    assert {path for path in served(full) if "1121.0" in path} == {path for path in listed(full) if "1121.0" in path}


def test_a_signature_that_was_changed_is_named_by_check(full: Archive) -> None:
    for name in OTHER:
        path = full.public / PLACE / name
        before = path.read_bytes()
        # A good signature, of another file.
        path.write_bytes((full.public / PLACE / OTHER[name]).read_bytes())
        done = full.run("check", check=False)
        assert f"{PLACE}/{name}" in done.stdout
        assert done.returncode == 1
        path.write_bytes(before)
    path.unlink()
    assert f"problem: {PLACE}/{name}: it is missing" in full.run("check", check=False).stdout


def test_two_lists_that_disagree_are_not_signed(full: Archive) -> None:
    state = full.path / "state/files/trixie"
    lines = state.read_text().splitlines(keepends=True)
    disk = next(line for line in listed(full).values() if line.endswith(".qcow2") and not line.startswith("link"))
    changed = f"{'0' * 64}{disk[64:]}\n"
    state.write_text("".join(sorted([*lines, changed], key=lambda line: line.rpartition(" ")[2])))
    done = full.run("publish", check=False)
    assert done.returncode == 1
    assert f"two lists of files disagree on {disk.rpartition(' ')[2]}" in done.stderr


def test_what_is_written_is_read() -> None:
    """Lines that are refused are in tests/mirror/test_mirror.py."""
    entry = inventory.Entry(f"{PLACE}/x", "0" * 64, 10)
    text = inventory.render([entry, entry])
    assert text == f"{'0' * 64} 10 {PLACE}/x\n"
    assert [*inventory.read(io.BytesIO(text.encode()))] == [entry]
    link = inventory.Entry(f"{PLACE}/y", target="x")
    assert [*inventory.read(io.BytesIO(inventory.render([link, entry]).encode()))] == [entry, link]
