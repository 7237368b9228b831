# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an ext4 file system: bytes -> entries, contents, and a description of each place."""

from __future__ import annotations

import hashlib
import struct
from functools import cached_property
from typing import TYPE_CHECKING, Final

from debian_cloud.disk.ext4 import accounts, layout, records
from debian_cloud.disk.ext4.accounts import Accounts, Owner
from debian_cloud.disk.ext4.layout import HINT
from debian_cloud.disk.ext4.records import Extent, Inode
from debian_cloud.errors import Error
from debian_cloud.image.entries import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Entry
from debian_cloud.view import ENTRIES, PATHS, PIECE, View, text

if TYPE_CHECKING:
    from collections.abc import Iterator

# Flags that change how an inode is read: encryption, EA inodes, verity, inline data, case folding.
_UNREADABLE: Final = 0x800 | 0x200000 | 0x100000 | 0x10000000 | 0x40000000
_EXTENTS: Final = 0x80000
_KINDS: Final = {0x1: FIFO, 0x2: CHARACTER, 0x4: DIRECTORY, 0x6: BLOCK, 0x8: FILE, 0xA: SYMLINK, 0xC: SOCKET}
_DEPTH: Final = 5
"""Levels of an extent tree below its root."""
_PATH_MAX: Final = 4096
_DIRECTORIES: Final = 2**27
"""Maximum bytes of all directories: ten times those of the largest image."""


class Ext4:
    """An ext4 file system; Error if it is damaged, or has features that are not supported.

    Nothing is written, executed or mounted. The `sha256` of an entry is that of the bytes that Linux would read:
    holes and unwritten extents are zeros.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._layout = layout.read(view)
        self._size = self._layout.block_size
        self._accounts = Accounts(self._layout)
        self._attributes = 0
        self._shared: dict[int, tuple[tuple[str, bytes], ...]] = {}
        self._inodes: dict[int, Inode] = {}
        self._names: dict[int, str] = {}
        self._paths: dict[str, int] = {}
        self._walk()

    def entries(self) -> Iterator[Entry]:
        """All paths, sorted; Error if a file cannot be read."""
        total, digests = 0, dict[int, str]()
        for path in sorted(self._paths):
            inode = self._inodes[self._paths[path]]
            if inode.kind == FILE and inode.number not in digests:
                # Holes take no space on the disk, but time here.
                total += inode.size
                if total > self._view.size:
                    raise Error("the files are larger than their file system", HINT)
                digest = hashlib.sha256()
                for piece in self._content(inode):
                    digest.update(piece)
                digests[inode.number] = digest.hexdigest()
            target = text(self._target(inode, path)) if inode.kind == SYMLINK else ""
            yield Entry(
                path, inode.kind, inode.mode, inode.uid, inode.gid, inode.mtime,
                inode.size if inode.kind == FILE else 0, digests.get(inode.number, ""), target,
                records.device(inode.body) if inode.kind in (CHARACTER, BLOCK) else (0, 0),
                inode.xattrs, inode.number,
            )  # fmt: skip

    def content(self, path: str) -> bytes:
        """The content of a regular file; Error if no regular file has that path."""
        return b"".join(self.pieces(path))

    def pieces(self, path: str) -> Iterator[bytes]:
        """The same, a piece at a time."""
        inode = self._inodes.get(self._paths.get(path, 0))
        if inode is None or inode.kind != FILE:
            raise Error(f"the image has no file /{path}", "give the path of a regular file, without a leading slash")
        if inode.size > self._view.size:
            raise Error(f"/{path} is larger than its file system", HINT)
        return self._content(inode)

    def place(self, offset: int) -> tuple[str, str]:
        """A description of what a byte is part of, and the path to which it belongs; "" if it belongs to none."""
        block = offset // self._size
        owner = accounts.at(self._owners, block)
        if not owner:
            return ("after the file system" if block >= self._layout.blocks else "free blocks"), ""
        first, _, what, number = owner
        path = self._names.get(number, "")
        if number == layout.JOURNAL and what != accounts.INODE_TABLE:
            return "journal", ""
        if what == accounts.CONTENT:
            inode = self._inodes[number]
            extent = next(one for one in inode.extents if one.physical == first)
            within = extent.logical * self._size + offset - first * self._size
            if inode.kind == DIRECTORY:
                return f"directory /{path}", path
            return f"{'slack' if extent.unwritten or within >= inode.size else 'content'} of /{path}", path
        if what == accounts.INODE_TABLE:
            index = (offset - first * self._size) // self._layout.inode_size
            number = number * self._layout.inodes_per_group + index + 1
            if number not in self._names:
                return f"inode {number} without a path", ""
            return f"inode of /{self._names[number]}", self._names[number]
        return (f"{what} of /{path}", path) if number in self._names else (what, "")

    @cached_property
    def _owners(self) -> list[Owner]:
        """All blocks that have an owner, in order."""
        others = []
        if self._layout.has_journal:
            # Reading the inode claims its blocks.
            self._inode(layout.JOURNAL, "the journal")
        if self._layout.has_resize_inode:
            raw = self._view.read(self._layout.slot(layout.RESIZE), self._layout.inode_size)
            (double,) = struct.unpack_from("<I", raw, 40 + 4 * 13)
            others = [Owner(double, 1, accounts.GROWING, 0)]
        return self._accounts.owners(others)

    # Inodes.

    def _inode(self, number: int, where: str) -> Inode:
        raw = self._view.read(self._layout.slot(number), self._layout.inode_size)
        mode, uid, size, mtime, gid, links, flags = struct.unpack_from("<HHI8xi4xHH4xI", raw)
        xattr_block, size_high, xattr_high, uid_high, gid_high = struct.unpack_from("<II6xHHH", raw, 104)
        extra, mtime_extra = struct.unpack_from("<H6xI", raw, 128)
        kind = _KINDS.get(mode >> 12)
        if kind is None or not links:
            raise Error(f"{where} has inode {number}, which is not in use", HINT)
        if flags & _UNREADABLE:
            raise Error(f"{where} is encrypted, inline or otherwise of an unsupported kind", HINT)
        if extra % 4 or 128 + extra > self._layout.inode_size:
            raise Error(f"the inode of {where} is damaged", HINT)
        body, extents = raw[40:100], tuple[Extent, ...]()
        if flags & _EXTENTS and kind in (FILE, DIRECTORY, SYMLINK):
            extents = self._extents(number, body, where)
        elif kind in (FILE, DIRECTORY):
            raise Error(f"{where} has a block map as in ext2, which is not supported", HINT)
        xattrs = tuple[tuple[str, bytes], ...]()
        if extra and raw[128 + extra : 132 + extra] == records.XATTRS:
            inside = raw[132 + extra :]
            xattrs = self._xattrs(inside, inside, where)
        if block := xattr_block | xattr_high << 32:
            xattrs += self._xattrs_of_block(block, number, where)
        return Inode(
            number, kind, mode & 0o7777, uid | uid_high << 16, gid | gid_high << 16, size | size_high << 32, flags,
            mtime + ((mtime_extra & 3) << 32 if extra >= 16 else 0), body, extents, tuple(sorted(xattrs)),
        )  # fmt: skip

    def _extents(self, number: int, root: bytes, where: str) -> tuple[Extent, ...]:
        """A file's extents, in order."""
        damaged = Error(f"the extents of {where} are damaged", HINT)
        extents: list[Extent] = []
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
                    self._accounts.claim(Owner(block, 1, "extents", number), where)
                    nodes.append((self._view.read(block * self._size, self._size), depth))
                else:
                    first, length, high, block = struct.unpack_from("<IHHI", node, at)
                    unwritten, length = length > 32768, length - 32768 if length > 32768 else length
                    block |= high << 32
                    self._accounts.claim(Owner(block, length, accounts.CONTENT, number), where)
                    extents.append(Extent(first, block, length, unwritten))
        extents.sort(key=lambda extent: extent.logical)
        position = 0
        for extent in extents:
            if extent.logical < position:
                raise damaged
            position = extent.logical + extent.count
        return tuple(extents)

    def _content(self, inode: Inode) -> Iterator[bytes]:
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

    def _target(self, inode: Inode, path: str) -> bytes:
        """The target of a symlink."""
        fast = not inode.flags & _EXTENTS
        if not 0 < inode.size < (len(inode.body) if fast else _PATH_MAX):
            raise Error(f"the link /{path} is damaged", HINT)
        return inode.body[: inode.size] if fast else b"".join(self._content(inode))

    # Extended attributes.

    def _xattrs_of_block(self, block: int, number: int, where: str) -> tuple[tuple[str, bytes], ...]:
        """The attributes in a separate block, which several inodes may share."""
        if block not in self._shared:
            self._accounts.claim(Owner(block, 1, "extended attributes", number), where)
            data = self._view.read(block * self._size, self._size)
            if data[:4] != records.XATTRS:
                raise Error(f"the extended attributes of {where} are damaged", HINT)
            self._shared[block] = self._xattrs(data[32:], data, where)
        return self._shared[block]

    def _xattrs(self, data: bytes, values: bytes, where: str) -> tuple[tuple[str, bytes], ...]:
        """The attributes in a list; the offsets of their values count from the beginning of `values`."""
        found = []
        for name, value in records.attributes(data, values, where):
            self._attributes += 16 + len(name) + len(value)
            if self._attributes > PATHS:
                raise Error(f"the extended attributes of {where} are damaged, or too many", HINT)
            found.append((name, value))
        return tuple(found)

    # Directories.

    def _walk(self) -> None:
        """Read all directories, beginning at the root."""
        self._add("", layout.ROOT)
        if self._inodes[layout.ROOT].kind != DIRECTORY:
            raise Error("the file system's root is not a directory", HINT)
        queue, length, listed = [""], 0, 0
        while queue:
            path = queue.pop()
            inode = self._inodes[self._paths[path]]
            listed += sum(extent.count for extent in inode.extents) * self._size
            if listed > _DIRECTORIES:
                raise Error(f"the directories up to /{path} are larger than in any image", HINT)
            for name, child in self._directory(inode, path):
                below = f"{path}/{text(name)}" if path else text(name)
                length += len(below)
                if len(below) >= _PATH_MAX or length > PATHS or len(self._paths) >= ENTRIES:
                    raise Error("the file system has more paths, or longer ones, than an image can have", HINT)
                if below in self._paths:
                    raise Error(f"the directory /{path} has {text(name)} twice", HINT)
                known = self._inodes.get(child)
                if child < self._layout.first_inode or (known and known.kind == DIRECTORY):
                    raise Error(f"/{below} leads to an inode that is not its own", HINT)
                self._add(below, child)
                if self._inodes[child].kind == DIRECTORY:
                    queue.append(below)

    def _add(self, path: str, number: int) -> None:
        if number not in self._inodes:
            self._inodes[number] = self._inode(number, f"/{path}")
            self._names[number] = path
        self._paths[path] = number

    def _directory(self, inode: Inode, path: str) -> Iterator[tuple[bytes, int]]:
        """Names and inode numbers of the entries of a directory."""
        for extent in inode.extents:
            for block in range(extent.physical, extent.physical + extent.count):
                yield from records.names(self._view.read(block * self._size, self._size), path)


def _zeros(length: int) -> Iterator[bytes]:
    zeros = bytes(min(length, PIECE))
    for position in range(0, length, PIECE):
        yield zeros[: length - position]
