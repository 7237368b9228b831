# SPDX-License-Identifier: GPL-3.0-or-later
"""The layout of an ext4 file system: its superblock and its block groups."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error

if TYPE_CHECKING:
    from debian_cloud.view import View

HINT: Final = "the image was damaged or tampered with: get it again, or build it again"
ROOT, RESIZE, JOURNAL = 2, 7, 8
"""Inodes with fixed numbers."""

_SUPERBLOCK: Final = 1024
"""Both its offset and its size, in bytes."""
_HAS_JOURNAL, _RESIZE_INODE = 0x4, 0x10
# Features (fs/ext4/ext4.h in the kernel): filetype, extents, 64bit, flex_bg, csum_seed; others change what is read.
_64BIT: Final = 0x80
_INCOMPATIBLE: Final = 0x2 | 0x40 | _64BIT | 0x200 | 0x2000
_NEEDED: Final = 0x2 | 0x40
_GROUPS: Final = 2**16
"""Maximum number of block groups: those of a disk of 8 TiB."""


@dataclass(frozen=True, slots=True)
class Group:
    """One block group: the blocks of its bitmaps, and the first block of its inode table."""

    bitmap: int
    inodes: int
    table: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of the superblock, and the places of the groups; sizes in bytes, places in blocks.

    `blocks` is the number of all blocks, of which the first `first_block` belong to no group, and `per_group` that of
    one group; `kept` is the number of blocks reserved for growing beside each copy of the superblock, and
    `descriptor` is the size of a group descriptor.
    """

    block_size: int
    blocks: int
    first_block: int
    per_group: int
    kept: int
    descriptor: int
    inode_size: int
    inode_count: int
    inodes_per_group: int
    first_inode: int
    has_journal: bool
    has_resize_inode: bool
    groups: tuple[Group, ...] = ()

    @property
    def group_count(self) -> int:
        """The number of block groups."""
        return -(-(self.blocks - self.first_block) // max(self.per_group, 1))

    @property
    def table_blocks(self) -> int:
        """The number of blocks of one group's inode table."""
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    def slot(self, number: int) -> int:
        """The offset of an inode, in bytes."""
        if not 1 <= number <= self.inode_count:
            raise Error(f"the file system refers to inode {number}, but has {self.inode_count}", HINT)
        group, index = divmod(number - 1, self.inodes_per_group)
        return self.groups[group].table * self.block_size + index * self.inode_size


def read(view: View) -> Layout:
    """The layout of a file system; Error if it is damaged, or has features that are not supported."""
    layout = _superblock(view)
    return replace(layout, groups=tuple(_groups(view, layout)))


def _superblock(view: View) -> Layout:
    raw = view.read(_SUPERBLOCK, _SUPERBLOCK)
    inode_count, blocks, first_block, log_size, per_group, inodes_per_group = struct.unpack_from(
        "<II12xII4xI4xI", raw
    )
    (magic,) = struct.unpack_from("<H", raw, 0x38)
    first_inode, inode_size, compatible, incompatible = struct.unpack_from("<IHxxII", raw, 0x54)
    (kept,) = struct.unpack_from("<H", raw, 0xCE)
    (descriptor,) = struct.unpack_from("<H", raw, 0xFE)
    if magic != 0xEF53:
        raise Error("the root partition has no ext4 file system", HINT)
    if incompatible & ~_INCOMPATIBLE or incompatible & _NEEDED != _NEEDED:
        raise Error(
            f"the file system has unsupported features (incompatible {incompatible:#x})",
            "use an image that debian-cloud build made, and unmount it cleanly",
        )
    if incompatible & _64BIT:
        blocks |= struct.unpack_from("<I", raw, 0x150)[0] << 32
    layout = Layout(
        block_size=1024 << min(log_size, 7),
        blocks=blocks,
        first_block=first_block,
        per_group=per_group,
        kept=kept,
        descriptor=descriptor if incompatible & _64BIT else 32,
        inode_size=inode_size,
        inode_count=inode_count,
        inodes_per_group=inodes_per_group,
        first_inode=first_inode,
        has_journal=bool(compatible & _HAS_JOURNAL),
        has_resize_inode=bool(compatible & _RESIZE_INODE),
    )
    if layout.blocks * layout.block_size > view.size:
        raise Error("the file system is larger than its partition", HINT)
    if log_size > 6 or not _is_sound(layout):
        raise Error("the file system's superblock is damaged", HINT)
    return layout


def _is_sound(layout: Layout) -> bool:
    """Whether the numbers agree with each other."""
    return (
        layout.first_block == (layout.block_size == 1024)
        and layout.per_group == 8 * layout.block_size
        and layout.inode_size in (256, 512, 1024)
        and 0 < layout.inodes_per_group <= 8 * layout.block_size
        and 0 < layout.group_count <= _GROUPS
        and layout.inode_count == layout.group_count * layout.inodes_per_group
        and layout.descriptor in (32, 64)
    )


def _groups(view: View, layout: Layout) -> list[Group]:
    raw = view.read((layout.first_block + 1) * layout.block_size, layout.group_count * layout.descriptor)
    groups: list[Group] = []
    for at in range(0, len(raw), layout.descriptor):
        found = struct.unpack_from("<III", raw, at)
        high = struct.unpack_from("<III", raw, at + 32) if layout.descriptor == 64 else (0, 0, 0)
        group = Group(*(int(low | up << 32) for low, up in zip(found, high, strict=True)))
        for first, count in ((group.bitmap, 1), (group.inodes, 1), (group.table, layout.table_blocks)):
            if not layout.first_block <= first <= first + count <= layout.blocks:
                raise Error(f"group {len(groups)} of the file system is outside it", HINT)
        groups.append(group)
    return groups
