# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsers of single records of an ext4 file system: inodes, attributes, names. They follow no reference."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.disk.ext4.layout import HINT
from debian_cloud.errors import Error
from debian_cloud.view import text

if TYPE_CHECKING:
    from collections.abc import Iterator

XATTRS: Final = struct.pack("<I", 0xEA020000)
"""First bytes of a list of extended attributes."""
_PREFIXES: Final = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
    8: "system.richacl",
}
_ACLS: Final = (2, 3)
_ENTRY: Final = struct.Struct("<IHBB")


@dataclass(frozen=True, slots=True)
class Extent:
    """`count` blocks of a file from block `logical` on, at block `physical`; unwritten ones read as zeros."""

    logical: int
    physical: int
    count: int
    unwritten: bool


@dataclass(frozen=True, slots=True)
class Inode:
    """An inode; `body` holds a device's numbers, a short link's target or the root of an extent tree."""

    number: int
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    flags: int
    mtime: int
    body: bytes
    extents: tuple[Extent, ...]
    xattrs: tuple[tuple[str, bytes], ...]


def attributes(data: bytes, values: bytes, where: str) -> Iterator[tuple[str, bytes]]:
    """The extended attributes in a list; the offsets of their values count from the beginning of `values`."""
    at = 0
    while any(data[at : at + 4]):
        entry, name = data[at : at + 16], data[at + 16 : at + 16 + data[at]]
        if len(entry) < 16 or len(name) < data[at] or data[at + 1] not in _PREFIXES:
            raise Error(f"the extended attributes of {where} are damaged", HINT)
        index, place, other, size = struct.unpack_from("<xBHII", entry)
        value = values[place : place + size]
        if other or len(value) != size:
            raise Error(f"the extended attributes of {where} are damaged, or too many", HINT)
        yield _PREFIXES[index] + text(name), _acl(value, where) if index in _ACLS else value
        at += 16 + (len(name) + 3 & ~3)


def _acl(stored: bytes, where: str) -> bytes:
    """An ACL as getxattr(2) gives it: ext4 leaves out the ids of entries that need none (fs/ext4/acl.h)."""
    acl, at = b"\2\0\0\0", 4
    while at < len(stored):
        size = 8 if int.from_bytes(stored[at : at + 2], "little") in (2, 8) else 4
        acl += stored[at : at + size].ljust(8, b"\xff")
        at += size
    if stored[:4] != b"\1\0\0\0" or at != len(stored):
        raise Error(f"the access control list of {where} is damaged", HINT)
    return acl


def names(data: bytes, path: str) -> Iterator[tuple[bytes, int]]:
    """Names and inode numbers in one block of a directory. The nodes of an index look like blocks without names."""
    at = 0
    while at < len(data):
        child, size, length, _ = _ENTRY.unpack_from(data, at)
        name = data[at + 8 : at + 8 + length]
        rest = len(data) - at - size
        if size < 8 + (length if child else 0) or size % 4 or rest < 0 or 0 < rest < _ENTRY.size:
            raise Error(f"the directory /{path} is damaged", HINT)
        if child and name not in (b".", b".."):
            if not name or b"/" in name or b"\0" in name:
                raise Error(f"the directory /{path} has an invalid name", HINT)
            yield name, child
        at += size


def device(body: bytes) -> tuple[int, int]:
    """Major and minor number, in the old encoding or the new one (linux/kdev_t.h)."""
    old, new = struct.unpack_from("<II", body)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00
