# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk as the blocks that EBS direct takes; blocks of zeros are left out. Pure, but for reading the disk.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from debian_cloud.view import View

SIZE: Final = 2**19
"""Bytes of a block."""
_ZEROS: Final = bytes(SIZE)


@dataclass(frozen=True, slots=True)
class Block:
    """A block that is not all zeros: its number, and the SHA-256 of its bytes."""

    index: int
    digest: bytes


def read(view: View, index: int) -> bytes:
    """The bytes of a block, the last one filled up with zeros."""
    begin = index * SIZE
    return view.read(begin, min(SIZE, view.size - begin)).ljust(SIZE, b"\0")


def found(view: View) -> Iterator[Block]:
    """The blocks of a disk, in order; holes of its file are not read."""
    for index in _with_data(view):
        data = read(view, index)
        if data != _ZEROS:
            yield Block(index, hashlib.sha256(data).digest())


def _with_data(view: View) -> Iterator[int]:
    after = 0
    for start, end in view.data:
        first, last = max(0, start - view.start) // SIZE, -(-min(end - view.start, view.size) // SIZE)
        yield from range(max(first, after), last)
        after = max(after, last)


def aggregate(blocks: Sequence[Block]) -> bytes:
    """The checksum of a snapshot (CompleteSnapshot, LINEAR): of the digests of its blocks, one after another."""
    return hashlib.sha256(b"".join(block.digest for block in blocks)).digest()


def identity(blocks: Sequence[Block], size: int) -> str:
    """A digest that names the bytes of a whole disk, whatever holes its file has: of its size, and of each block."""
    digest = hashlib.sha256(f"{size}\n".encode())
    for block in blocks:
        digest.update(b"%d " % block.index + block.digest)
    return digest.hexdigest()
