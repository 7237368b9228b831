# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes are those of coreutils, with holes and without."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from debian_cloud.formats import BLOCKS
from debian_cloud.host import checksums
from tests.samples import blocks


@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        ({}, 0),
        ({}, 5 * 2**20 + 3),
        ({0: b"x"}, 1),
        ({0: b"begin", 3 * 2**20 + 7: os.urandom(2**20 + 5)}, 9 * 2**20 + 1),
        ({8 * 2**20 - 4: b"tail"}, 8 * 2**20),
        ({0: os.urandom(3 * 2**20 + 11)}, 3 * 2**20 + 11),
    ],
    ids=["empty", "only a hole", "one byte", "data, holes and a tail", "a hole first", "no hole"],
)
def test_hashes_are_those_of_coreutils(tmp_path: Path, pieces: dict[int, bytes], size: int) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    found = checksums.digest(path, checksums.UPLOADED)
    assert found.size == size
    for algorithm in checksums.UPLOADED:
        said = subprocess.run([f"{algorithm}sum", path], capture_output=True, text=True, check=True).stdout
        assert found.hashes[algorithm] == said.split()[0]
    assert checksums.digest(path, (BLOCKS,)).hashes[BLOCKS] == blocks(path)
    whole = tmp_path / "whole"
    subprocess.run(["cp", "--sparse=never", path, whole], check=True)
    assert checksums.digest(whole, (BLOCKS,)).hashes[BLOCKS] == blocks(path)


def test_no_change_leaves_the_digest_of_blocks(tmp_path: Path) -> None:
    path, found = tmp_path / "file", set()
    data = bytes(range(1, 65)) * 64
    zeros = bytes(4096)
    contents = (
        *(data + zeros, zeros + data, data + data, data + zeros + zeros, data, data[:-1], data + b"\0"),
        *(b"", b"\0", zeros, data[:100] + b"\0" + data[101:] + zeros, zeros + data[:1]),
    )
    for content in contents:
        path.write_bytes(content)
        found.add(checksums.digest(path, (BLOCKS,)).hashes[BLOCKS])
    assert len(found) == len(contents)
