# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages a disk has is read from the disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import contents

STATUS = """\
Package: one
Status: install ok installed
Version: 1

Package: two
Status: deinstall ok config-files
Version: 1

Package: three
Status: hold ok installed
Version: 1

Package: four
Status: install ok half-configured
Version: 1
"""


def filesystem(folder: Path, disk: Path, offset: int = 0) -> None:
    status = folder / "tree/var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(STATUS)
    make = ("mke2fs", "-q", "-F", "-t", "ext4", "-d", folder / "tree", "-E", f"offset={offset}", disk, "8M")
    subprocess.run(make, check=True)


def test_of_a_file_system(tmp_path: Path) -> None:
    filesystem(tmp_path, tmp_path / "root.img")
    assert contents.packages(tmp_path / "root.img") == {"one", "three"}


def test_of_a_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    table = "label: gpt\nstart=2048, size=2048\nstart=4096, size=16384\n"
    subprocess.run(["sfdisk", "--quiet", disk], input=table, text=True, check=True)
    filesystem(tmp_path, disk, 4096 * 512)
    assert contents.packages(disk) == {"one", "three"}


@pytest.mark.parametrize("content", [b"", b"no disk at all" * 1000])
def test_of_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert contents.packages(tmp_path / "x") == frozenset()


def test_its_size_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(bytes(range(256)) * 4096)
    filesystem(tmp_path, tmp_path / "root.img")
    size = contents.size(tmp_path / "root.img")
    # Five directories, lost+found of 16 KiB, and a file of dpkg's.
    assert 1 << 20 < size < (1 << 20) + (64 << 10)
    assert contents.size(tmp_path / "tree/large") == 0
