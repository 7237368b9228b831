# SPDX-License-Identifier: GPL-3.0-or-later
"""The owner of each block of an ext4 file system, which bounds what is read and describes each place."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from debian_cloud.disk.ext4.layout import HINT
from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from debian_cloud.disk.ext4.layout import Layout

CONTENT: Final = "content"
INODE_TABLE: Final = "inode table"
GROWING: Final = "blocks kept for growing"
_EXTENTS_OF_ALL: Final = 2**20
"""Maximum number of extents of all files: ten times that of the largest image."""


class Owner(NamedTuple):
    """The use and owner of `length` blocks: `number` is an inode, the group of an inode table, or 0 for no owner."""

    first: int
    length: int
    what: str
    number: int


class Accounts:
    """The blocks that inodes have claimed; they are counted, so that no more are claimed than exist."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._claimed = 0
        self._claims: list[Owner] = []

    def claim(self, owner: Owner, where: str) -> None:
        """Record the owner of blocks; Error if more are claimed than exist, which bounds what is read from them."""
        if not self._layout.first_block <= owner.first < owner.first + owner.length <= self._layout.blocks:
            raise Error(f"blocks of {where} are outside the file system", HINT)
        self._claimed += owner.length
        if self._claimed > self._layout.blocks or len(self._claims) >= _EXTENTS_OF_ALL:
            raise Error(f"files have more blocks than the file system, from {where} on", HINT)
        self._claims.append(owner)

    def owners(self, others: Iterable[Owner] = ()) -> list[Owner]:
        """All blocks that have an owner, in order: the file system's own, those claimed, and others."""
        return sorted(one for one in (*_structures(self._layout), *others, *self._claims) if one.length)


def at(owners: list[Owner], block: int) -> Owner | None:
    """The owner of a block; None if it has none."""
    # The first block is enough: every owner in the list has at least one block.
    found = bisect_right(owners, block, key=lambda owner: owner.first) - 1
    owner = owners[found] if found >= 0 else None
    return owner if owner and block < owner.first + owner.length else None


def _structures(layout: Layout) -> list[Owner]:
    """The blocks of the file system's own structures."""
    found: list[Owner] = []
    for number, group in enumerate(layout.groups):
        found += [Owner(group.bitmap, 1, "block bitmaps", 0), Owner(group.inodes, 1, "inode bitmaps", 0)]
        found += [Owner(group.table, layout.table_blocks, INODE_TABLE, number)]
    # Copies are in group 1 and in powers of 3, 5 and 7 (sparse_super).
    copies = {0, 1, *(base**power for base in (3, 5, 7) for power in range(1, 17))}
    descriptors = -(-len(layout.groups) * layout.descriptor // layout.block_size)
    for number in sorted(copies):
        if number < len(layout.groups):
            first = layout.first_block + number * layout.per_group
            found += [Owner(first, 1, "superblock" if not number else "copies of the superblock", 0)]
            found += [Owner(first + 1, descriptors, "group descriptors", 0)]
            found += [Owner(first + 1 + descriptors, layout.kept, GROWING, 0)]
    if layout.first_block:
        found += [Owner(0, 1, "boot block", 0)]
    return found
