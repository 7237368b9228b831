# SPDX-License-Identifier: GPL-3.0-or-later
"""The partition table of a finished disk (UEFI specification 2.10, 5)."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from zlib import crc32

from debian_cloud.disk.layout import SECTOR, Partition
from debian_cloud.errors import Error

if TYPE_CHECKING:
    from debian_cloud.view import View

_HINT: Final = "the image was damaged or tampered with: get it again, or build it again"
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_COUNT: Final = 128
"""Number of entries in a table, as every tool creates it."""
_TABLE: Final = _COUNT * _ENTRY.size
BOOT_CODE: Final = 440
"""Bytes of the first sector that are the boot loader's."""


@dataclass(frozen=True, slots=True)
class Table:
    """A disk's partition table: the disk's size in bytes, its UUID, and its partitions in order of their start."""

    size: int
    uuid: str
    partitions: tuple[Partition, ...]


def read(disk: View) -> Table:
    """The partition table; Error if one of its two copies is damaged, or they differ."""
    sectors = disk.size // SECTOR
    if disk.size % SECTOR or sectors < 2 * (_TABLE // SECTOR) + 3:
        raise Error("the image is too small for a disk, or truncated", _HINT)
    first = _copy(disk, 1, "first")
    last = _copy(disk, sectors - 1, "last")
    if first != last:
        raise Error("the two copies of the partition table differ", _HINT)
    identity, usable, end, table = first
    partitions = []
    for number in range(_COUNT):
        kind, own, begin, finish, _, name = _ENTRY.unpack_from(table, number * _ENTRY.size)
        if kind == bytes(16):
            continue
        if not usable <= begin <= finish <= end:
            raise Error(f"partition {number + 1} is outside its disk", _HINT)
        partitions.append(
            Partition(
                number=number + 1,
                name=name.decode("utf-16-le", "replace").partition("\0")[0],
                start=begin * SECTOR,
                size=(finish - begin + 1) * SECTOR,
                type=str(uuid.UUID(bytes_le=kind)),
                uuid=str(uuid.UUID(bytes_le=own)),
            )
        )
    partitions.sort(key=lambda partition: partition.start)
    for before, after in pairwise(partitions):
        if before.start + before.size > after.start:
            raise Error(f"partitions {before.number} and {after.number} overlap", _HINT)
    return Table(disk.size, str(uuid.UUID(bytes_le=identity)), tuple(partitions))


def _copy(disk: View, sector: int, which: str) -> tuple[bytes, int, int, bytes]:
    """The disk's UUID, first and last usable sector, and entries, from one copy."""
    raw = disk.read(sector * SECTOR, SECTOR)
    (
        magic, revision, size, crc, reserved, here, other, usable, end, identity, entries, count, each, entries_crc,
    ) = _HEADER.unpack_from(raw)  # fmt: skip
    sectors = disk.size // SECTOR
    if magic != b"EFI PART":
        raise Error(
            f"the image has no partition table: its {which} copy is missing", "give a raw disk image with GPT"
        )
    if crc != crc32(raw[:16] + bytes(4) + raw[20:92]):
        raise Error(f"the {which} copy of the partition table is damaged: its checksum is wrong", _HINT)
    table_sectors = _TABLE // SECTOR
    if (
        (revision, size, reserved, count, each) != (0x10000, 92, 0, _COUNT, _ENTRY.size)
        or {here, other} != {1, sectors - 1}
        or here != sector
        or entries != (2 if sector == 1 else sectors - 1 - table_sectors)
        or not 2 + table_sectors <= usable <= end <= sectors - 2 - table_sectors
    ):
        raise Error(f"the {which} copy of the partition table does not fit this disk", _HINT)
    table = disk.read(entries * SECTOR, _TABLE)
    if entries_crc != crc32(table):
        raise Error(
            f"the {which} copy of the partition table is damaged: the checksum of its entries is wrong", _HINT
        )
    return identity, usable, end, table


def place(disk: View, table: Table, offset: int) -> str:
    """A description of what a byte outside all partitions is part of."""
    sectors = disk.size // SECTOR
    if offset < BOOT_CODE:
        return "boot sector"
    if offset < SECTOR:
        return "MBR"
    if offset < 2 * SECTOR + _TABLE:
        return "partition table"
    if offset >= (sectors - 1) * SECTOR - _TABLE:
        return "copy of the partition table"
    last = max((partition.start for partition in table.partitions), default=0)
    return "between partitions" if offset < last else "after the last partition"
