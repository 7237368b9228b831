# SPDX-License-Identifier: GPL-3.0-or-later
"""The links to images whose names have no serial: a mirror makes them by itself, and believes no other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.mirror.tree import Archive, Mirror

NEW = "images/trixie/ec2/amd64/20261120.0"
LINK = f"{NEW}/debian-13-ec2-amd64.qcow2"
TARGET = "debian-13-ec2-amd64-20261120.0.qcow2"


def test_a_link_is_made_and_the_disk_fetched_once(archive: Archive, mirror: Mirror) -> None:
    said = mirror.ok()
    link = mirror.dest / LINK
    assert str(link.readlink()) == TARGET
    assert (mirror.dest / "images/trixie/ec2/amd64/current" / link.name).read_bytes() == link.read_bytes()
    # Three disks of 50,000 bytes, and small files.
    (size,) = re.findall(r"publishing them \((\d+) new bytes\)", said)
    assert 150_000 < int(size) < 250_000


def test_an_image_without_such_a_link_has_none(archive: Archive, mirror: Mirror) -> None:
    """Those that were published by an older version."""
    (archive.root / LINK).unlink()
    archive.publish()
    mirror.ok()
    assert not (mirror.dest / LINK).is_symlink()
    assert (mirror.dest / NEW / TARGET).is_file()


def test_a_link_that_leads_elsewhere_is_mended(mirror: Mirror, tmp_path: Path) -> None:
    mirror.ok()
    (mirror.dest / LINK).unlink()
    (mirror.dest / LINK).symlink_to("/etc/passwd")
    mirror.ok("--verify-all")
    assert str((mirror.dest / LINK).readlink()) == TARGET


def test_a_link_goes_with_its_image(archive: Archive, mirror: Mirror) -> None:
    mirror.ok()
    old = "images/trixie/ec2/amd64/20261119.0"
    link = mirror.dest / old / "debian-13-ec2-amd64.qcow2"
    beside = mirror.dest / old / "own.qcow2"
    beside.symlink_to("debian-13-ec2-amd64-20261119.0.qcow2")
    del archive.images["ec2 20261119.0"]
    archive.publish()
    mirror.ok()
    # As long as the files are there, because older signatures list them.
    assert link.is_symlink()
    assert link.is_file()
    left = mirror.dest / ".mirror/left"
    left.write_text(re.sub(r"^\d+ (?=images/)", "1000 ", left.read_text(), flags=re.MULTILINE))
    archive.publish()
    mirror.ok()
    assert not link.is_symlink()
    # This one is not the mirror's.
    assert [path.name for path in (mirror.dest / old).iterdir()] == [beside.name]
