# SPDX-License-Identifier: GPL-3.0-or-later
"""ext4, as mke2fs(8) leaves it (Linux, Documentation/filesystems/ext4).

Checksums and counts are not looked at: what is in the files is told, and where.
Every block has one owner, which bounds all that is read by the size of the file
system.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.image.entries import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Entry
from debian_cloud.view import ENTRIES, PATHS, PIECE, View, text

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT: Final = "the image was damaged or tampered with: get it again, or build it again"

_SUPERBLOCK: Final = 1024
"""Where it is, and how long it is, in bytes."""
_ROOT, _RESIZE, _JOURNAL = 2, 7, 8
_HAS_JOURNAL, _RESIZE_INODE = 0x4, 0x10
# Features (fs/ext4/ext4.h in the kernel): filetype, extents, 64bit, flex_bg, csum_seed; others change what is read.
_64BIT: Final = 0x80
_INCOMPATIBLE: Final = 0x2 | 0x40 | _64BIT | 0x200 | 0x2000
_NEEDED: Final = 0x2 | 0x40
_EXTENTS: Final = 0x80000
# Flags that change how an inode is read: encryption, EA inodes, verity, inline data, case folding.
_UNREADABLE: Final = 0x800 | 0x200000 | 0x100000 | 0x10000000 | 0x40000000

_KINDS: Final = {0x1: FIFO, 0x2: CHARACTER, 0x4: DIRECTORY, 0x6: BLOCK, 0x8: FILE, 0xA: SYMLINK, 0xC: SOCKET}
_PREFIXES: Final = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
    8: "system.richacl",
}
_XATTRS: Final = struct.pack("<I", 0xEA020000)
_DEPTH: Final = 5
"""Levels of an extent tree below its root."""
_PATH_MAX: Final = 4096
_GROUPS: Final = 2**16
"""Groups of blocks: those of a disk of 8 TiB."""
_EXTENTS_OF_ALL: Final = 2**20
_DIRECTORIES: Final = 2**27
"""Extents of all files, and bytes of all directories: ten times what the largest image has."""
_ENTRY: Final = struct.Struct("<IHBB")


@dataclass(frozen=True, slots=True)
class _Extent:
    """`count` blocks of a file from block `logical` on, at block `physical`; unwritten ones read as zeros."""

    logical: int
    physical: int
    count: int
    unwritten: bool


@dataclass(frozen=True, slots=True)
class _Inode:
    number: int
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    flags: int
    mtime: int
    body: bytes
    extents: tuple[_Extent, ...]
    xattrs: tuple[tuple[str, bytes], ...]


class Ext4:
    """An ext4 file system; Error when it is damaged, or has what is not read here.

    Nothing is written, executed or mounted. Entries' `sha256` are of what Linux
    would read: holes and unwritten extents are zeros.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        raw = view.read(_SUPERBLOCK, _SUPERBLOCK)
        self._inode_size: int
        self._inodes_per_group: int
        (
            self._inode_count, blocks, self._first_block, log_size, self._per_group, self._inodes_per_group,
        ) = struct.unpack_from("<II12xII4xI4xI", raw)  # fmt: skip
        (magic,) = struct.unpack_from("<H", raw, 0x38)
        self._first_inode, self._inode_size, self._compatible, incompatible = struct.unpack_from("<IHxxII", raw, 0x54)
        (self._kept,) = struct.unpack_from("<H", raw, 0xCE)
        (descriptor,) = struct.unpack_from("<H", raw, 0xFE)
        if magic != 0xEF53:
            raise Error("the root partition has no ext4 file system", _HINT)
        if incompatible & ~_INCOMPATIBLE or incompatible & _NEEDED != _NEEDED:
            raise Error(
                f"the file system has features that are not read here (incompatible {incompatible:#x})",
                "make it as debian-cloud build does, and unmount it cleanly",
            )
        if incompatible & _64BIT:
            blocks |= struct.unpack_from("<I", raw, 0x150)[0] << 32
        self._descriptor = descriptor if incompatible & _64BIT else 32
        self._blocks, self._size = int(blocks), 1024 << int(min(log_size, 7))
        self._groups = -(-(blocks - self._first_block) // max(self._per_group, 1))
        if blocks * self._size > view.size:
            raise Error("the file system is larger than its partition", _HINT)
        if (
            log_size > 6
            or self._first_block != (self._size == 1024)
            or self._per_group != 8 * self._size
            or self._inode_size not in (256, 512, 1024)
            or not 0 < self._inodes_per_group <= 8 * self._size
            or not 0 < self._groups <= _GROUPS
            or self._inode_count != self._groups * self._inodes_per_group
            or self._descriptor not in (32, 64)
        ):
            raise Error("the file system's superblock is damaged", _HINT)
        self._places = self._descriptors()
        self._claimed = 0
        self._claims: list[tuple[int, int, str, int]] = []
        self._attributes = 0
        self._shared: dict[int, tuple[tuple[str, bytes], ...]] = {}
        self._inodes: dict[int, _Inode] = {}
        self._names: dict[int, str] = {}
        self._paths: dict[str, int] = {}
        self._walk()

    def entries(self) -> Iterator[Entry]:
        """All paths, sorted; Error when a file cannot be read."""
        total, digests = 0, dict[int, str]()
        for path in sorted(self._paths):
            inode = self._inodes[self._paths[path]]
            if inode.kind == FILE and inode.number not in digests:
                # Holes cost nothing on the disk, and time here.
                total += inode.size
                if total > self._view.size:
                    raise Error("files of the file system are larger than itself", _HINT)
                digest = hashlib.sha256()
                for piece in self._content(inode):
                    digest.update(piece)
                digests[inode.number] = digest.hexdigest()
            target = text(self._target(inode, path)) if inode.kind == SYMLINK else ""
            yield Entry(
                path, inode.kind, inode.mode, inode.uid, inode.gid, inode.mtime,
                inode.size if inode.kind == FILE else 0, digests.get(inode.number, ""), target,
                _device(inode.body) if inode.kind in (CHARACTER, BLOCK) else (0, 0), inode.xattrs, inode.number,
            )  # fmt: skip

    def content(self, path: str) -> bytes:
        """What a regular file holds; Error when there is none of that path."""
        return b"".join(self.pieces(path))

    def pieces(self, path: str) -> Iterator[bytes]:
        """The same, a piece at a time."""
        inode = self._inodes.get(self._paths.get(path, 0))
        if inode is None or inode.kind != FILE:
            raise Error(f"the image has no file /{path}", "give the path of a regular file, without a leading slash")
        if inode.size > self._view.size:
            raise Error(f"/{path} is larger than its file system", _HINT)
        return self._content(inode)

    def place(self, offset: int) -> tuple[str, str]:
        """What a byte is part of, in words, and the path that it belongs to; "" where it belongs to none."""
        block = offset // self._size
        # By the first block alone: what owns none begins no range.
        found = bisect_right(self._owners, block, key=lambda owner: owner[0]) - 1
        first, count, what, number = self._owners[found] if found >= 0 else (0, 0, "", 0)
        if not first <= block < first + count:
            return ("after the file system" if block >= self._blocks else "free blocks"), ""
        path = self._names.get(number, "")
        if number == _JOURNAL and what != "inode table":
            return "journal", ""
        if what == "content":
            inode = self._inodes[number]
            extent = next(one for one in inode.extents if one.physical == first)
            within = extent.logical * self._size + offset - first * self._size
            if inode.kind == DIRECTORY:
                return f"directory /{path}", path
            return f"{'slack' if extent.unwritten or within >= inode.size else 'content'} of /{path}", path
        if what == "inode table":
            number = number * self._inodes_per_group + (offset - first * self._size) // self._inode_size + 1
            if number not in self._names:
                return f"inode {number}, which no path has", ""
            return f"inode of /{self._names[number]}", self._names[number]
        return (f"{what} of /{path}", path) if number in self._names else (what, "")

    # Groups of blocks.

    def _descriptors(self) -> list[tuple[int, int, int]]:
        """Of each group: the blocks of its bitmaps, and the first one of its inode table."""
        raw = self._view.read((self._first_block + 1) * self._size, self._groups * self._descriptor)
        places = list[tuple[int, int, int]]()
        for at in range(0, len(raw), self._descriptor):
            found = struct.unpack_from("<III", raw, at)
            high = struct.unpack_from("<III", raw, at + 32) if self._descriptor == 64 else (0, 0, 0)
            bitmap, inodes, table = (int(low | up << 32) for low, up in zip(found, high, strict=True))
            for first, count in ((bitmap, 1), (inodes, 1), (table, self._table_blocks)):
                if not self._first_block <= first <= first + count <= self._blocks:
                    raise Error(f"group {len(places)} of the file system lies outside it", _HINT)
            places.append((bitmap, inodes, table))
        return places

    @property
    def _table_blocks(self) -> int:
        """Blocks of one group's inode table."""
        return -(-self._inodes_per_group * self._inode_size // self._size)

    @cached_property
    def _owners(self) -> list[tuple[int, int, str, int]]:
        """All blocks that have an owner, in order: first block, number of blocks, what, and whose (inode, group)."""
        found = list[tuple[int, int, str, int]]()
        for number, (bitmap, inodes, table) in enumerate(self._places):
            found += [(bitmap, 1, "block bitmaps", 0), (inodes, 1, "inode bitmaps", 0)]
            found += [(table, self._table_blocks, "inode table", number)]
        # Copies are in group 1 and in powers of 3, 5 and 7 (sparse_super).
        copies = {0, 1, *(base**power for base in (3, 5, 7) for power in range(1, 17))}
        descriptors = -(-self._groups * self._descriptor // self._size)
        for group in sorted(copies):
            if group < self._groups:
                first = self._first_block + group * self._per_group
                found += [(first, 1, "superblock" if not group else "copies of the superblock", 0)]
                found += [(first + 1, descriptors, "group descriptors", 0)]
                found += [(first + 1 + descriptors, self._kept, "blocks kept for growing", 0)]
        if self._first_block:
            found += [(0, 1, "boot block", 0)]
        if self._compatible & _HAS_JOURNAL:
            self._inode(_JOURNAL, "the journal")
        if self._compatible & _RESIZE_INODE:
            (double,) = struct.unpack_from("<I", self._view.read(self._slot(_RESIZE), self._inode_size), 40 + 4 * 13)
            found.append((double, 1, "blocks kept for growing", 0))
        return sorted(one for one in (*found, *self._claims) if one[1])

    # Inodes.

    def _slot(self, number: int) -> int:
        """Where an inode is."""
        if not 1 <= number <= self._inode_count:
            raise Error(f"the file system names inode {number}, and has {self._inode_count}", _HINT)
        group, index = divmod(number - 1, self._inodes_per_group)
        return self._places[group][2] * self._size + index * self._inode_size

    def _inode(self, number: int, where: str) -> _Inode:
        raw = self._view.read(self._slot(number), self._inode_size)
        mode, uid, size, mtime, gid, links, flags = struct.unpack_from("<HHI8xi4xHH4xI", raw)
        xattr_block, size_high, xattr_high, uid_high, gid_high = struct.unpack_from("<II6xHHH", raw, 104)
        extra, mtime_extra = struct.unpack_from("<H6xI", raw, 128)
        kind = _KINDS.get(mode >> 12)
        if kind is None or not links:
            raise Error(f"{where} has inode {number}, which is not in use", _HINT)
        if flags & _UNREADABLE:
            raise Error(f"{where} is encrypted, inline or otherwise of a kind that is not read here", _HINT)
        if extra % 4 or 128 + extra > self._inode_size:
            raise Error(f"the inode of {where} is damaged", _HINT)
        body, extents = raw[40:100], tuple[_Extent, ...]()
        if flags & _EXTENTS and kind in (FILE, DIRECTORY, SYMLINK):
            extents = self._extents(number, body, where)
        elif kind in (FILE, DIRECTORY):
            raise Error(f"{where} has a block map as ext2 had, which is not read here", _HINT)
        xattrs = tuple[tuple[str, bytes], ...]()
        if extra and raw[128 + extra : 132 + extra] == _XATTRS:
            inside = raw[132 + extra :]
            xattrs = self._xattrs(inside, inside, where)
        if block := xattr_block | xattr_high << 32:
            xattrs += self._xattrs_of_block(block, number, where)
        return _Inode(
            number, kind, mode & 0o7777, uid | uid_high << 16, gid | gid_high << 16, size | size_high << 32, flags,
            mtime + ((mtime_extra & 3) << 32 if extra >= 16 else 0), body, extents, tuple(sorted(xattrs)),
        )  # fmt: skip

    def _claim(self, block: int, count: int, what: str, number: int, where: str) -> None:
        """Note who owns some blocks; Error when there are not so many, which bounds all that follows them."""
        if not self._first_block <= block < block + count <= self._blocks:
            raise Error(f"blocks of {where} lie outside the file system", _HINT)
        self._claimed += count
        if self._claimed > self._blocks or len(self._claims) >= _EXTENTS_OF_ALL:
            raise Error(f"the file system has more blocks in files than there are, as of {where}", _HINT)
        self._claims.append((block, count, what, number))

    def _extents(self, number: int, root: bytes, where: str) -> tuple[_Extent, ...]:
        """A file's extents, in order."""
        damaged = Error(f"the extents of {where} are damaged", _HINT)
        extents: list[_Extent] = []
        nodes = [(root, _DEPTH + 1)]
        while nodes:
            node, above = nodes.pop()
            magic, count, depth = struct.unpack_from("<HH2xH", node)
            if magic != 0xF30A or count > (len(node) - 12) // 12 or depth >= above:
                raise damaged
            for at in range(12, 12 + 12 * count, 12):
                if depth:
                    block, high = struct.unpack_from("<4xIH", node, at)
                    block |= high << 32
                    self._claim(block, 1, "extents", number, where)
                    nodes.append((self._view.read(block * self._size, self._size), depth))
                else:
                    first, length, high, block = struct.unpack_from("<IHHI", node, at)
                    unwritten, length = length > 32768, length - 32768 if length > 32768 else length
                    self._claim(block | high << 32, length, "content", number, where)
                    extents.append(_Extent(first, block | high << 32, length, unwritten))
        extents.sort(key=lambda extent: extent.logical)
        position = 0
        for extent in extents:
            if extent.logical < position:
                raise damaged
            position = extent.logical + extent.count
        return tuple(extents)

    def _content(self, inode: _Inode) -> Iterator[bytes]:
        position = 0
        for extent in inode.extents:
            start = extent.logical * self._size
            if start >= inode.size:
                break
            length = min(extent.count * self._size, inode.size - start)
            yield from _zeros(start - position)
            if extent.unwritten:
                yield from _zeros(length)
            else:
                yield from self._view.pieces(extent.physical * self._size, length)
            position = start + length
        yield from _zeros(inode.size - position)

    def _target(self, inode: _Inode, path: str) -> bytes:
        """Where a symlink leads."""
        fast = not inode.flags & _EXTENTS
        if not 0 < inode.size < (len(inode.body) if fast else _PATH_MAX):
            raise Error(f"the link /{path} is damaged", _HINT)
        return inode.body[: inode.size] if fast else b"".join(self._content(inode))

    # Extended attributes.

    def _xattrs_of_block(self, block: int, number: int, where: str) -> tuple[tuple[str, bytes], ...]:
        """The attributes in a block of their own, which several inodes may share."""
        if block not in self._shared:
            self._claim(block, 1, "extended attributes", number, where)
            data = self._view.read(block * self._size, self._size)
            if data[:4] != _XATTRS:
                raise Error(f"the extended attributes of {where} are damaged", _HINT)
            self._shared[block] = self._xattrs(data[32:], data, where)
        return self._shared[block]

    def _xattrs(self, data: bytes, values: bytes, where: str) -> tuple[tuple[str, bytes], ...]:
        """The attributes that a list has; their places count from the beginning of `values`."""
        found, at = [], 0
        while any(data[at : at + 4]):
            entry, name = data[at : at + 16], data[at + 16 : at + 16 + data[at]]
            if len(entry) < 16 or len(name) < data[at] or data[at + 1] not in _PREFIXES:
                raise Error(f"the extended attributes of {where} are damaged", _HINT)
            index, place, other, size = struct.unpack_from("<xBHII", entry)
            value = values[place : place + size]
            self._attributes += 16 + len(name) + size
            if other or len(value) != size or self._attributes > PATHS:
                raise Error(f"the extended attributes of {where} are damaged, or too many", _HINT)
            found.append((_PREFIXES[index] + text(name), _acl(value, where) if index in (2, 3) else value))
            at += 16 + (len(name) + 3 & ~3)
        return tuple(found)

    # Directories.

    def _walk(self) -> None:
        """Read all directories, from the root on."""
        self._add("", _ROOT)
        if self._inodes[_ROOT].kind != DIRECTORY:
            raise Error("the file system's root is no directory", _HINT)
        queue, length, listed = [""], 0, 0
        while queue:
            path = queue.pop()
            inode = self._inodes[self._paths[path]]
            listed += sum(extent.count for extent in inode.extents) * self._size
            if listed > _DIRECTORIES:
                raise Error(f"the directories down to /{path} are larger than an image can have them", _HINT)
            for name, child in self._directory(inode, path):
                below = f"{path}/{text(name)}" if path else text(name)
                length += len(below)
                if len(below) >= _PATH_MAX or length > PATHS or len(self._paths) >= ENTRIES:
                    raise Error("the file system has more paths, or longer ones, than an image can have", _HINT)
                if below in self._paths:
                    raise Error(f"the directory /{path} has {text(name)} twice", _HINT)
                known = self._inodes.get(child)
                if child < self._first_inode or (known and known.kind == DIRECTORY):
                    raise Error(f"/{below} leads to an inode that is not its own", _HINT)
                self._add(below, child)
                if self._inodes[child].kind == DIRECTORY:
                    queue.append(below)

    def _add(self, path: str, number: int) -> None:
        if number not in self._inodes:
            self._inodes[number] = self._inode(number, f"/{path}")
            self._names[number] = path
        self._paths[path] = number

    def _directory(self, inode: _Inode, path: str) -> Iterator[tuple[bytes, int]]:
        """Names and inodes of what a directory holds. The nodes of an index look like blocks without names."""
        for extent in inode.extents:
            for block in range(extent.physical, extent.physical + extent.count):
                data, at = self._view.read(block * self._size, self._size), 0
                while at < self._size:
                    child, size, length, _ = _ENTRY.unpack_from(data, at)
                    name = data[at + 8 : at + 8 + length]
                    if size < 8 + (length if child else 0) or size % 4 or at + size > self._size:
                        raise Error(f"the directory /{path} is damaged", _HINT)
                    if child and name not in (b".", b".."):
                        if not name or b"/" in name or b"\0" in name:
                            raise Error(f"the directory /{path} has a name that is none", _HINT)
                        yield name, child
                    at += size


def _zeros(length: int) -> Iterator[bytes]:
    zeros = bytes(min(length, PIECE))
    for position in range(0, length, PIECE):
        yield zeros[: length - position]


def _acl(stored: bytes, where: str) -> bytes:
    """An ACL as getxattr(2) gives it: ext4 leaves out the ids of entries that need none (fs/ext4/acl.h)."""
    acl, at = b"\2\0\0\0", 4
    while at < len(stored):
        size = 8 if int.from_bytes(stored[at : at + 2], "little") in (2, 8) else 4
        acl += stored[at : at + size].ljust(8, b"\xff")
        at += size
    if stored[:4] != b"\1\0\0\0" or at != len(stored):
        raise Error(f"the access control list of {where} is damaged", _HINT)
    return acl


def _device(body: bytes) -> tuple[int, int]:
    """Major and minor number, in the old encoding or the new one (linux/kdev_t.h)."""
    old, new = struct.unpack_from("<II", body)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00
