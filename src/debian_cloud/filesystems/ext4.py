# SPDX-License-Identifier: GPL-3.0-or-later
"""ext4, as mke2fs(8) leaves it (Linux, Documentation/filesystems/ext4).

Every block and every inode has one owner, every checksum is verified, and what
a structure does not need is expected to be zero. What mke2fs always writes the
same is compared with that: such bytes are findings, not errors.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final
from uuid import UUID

from debian_cloud.entries import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Entry
from debian_cloud.errors import Error
from debian_cloud.filesystems import ENTRIES, PATHS, Finding, View, text
from debian_cloud.filesystems.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HINT: Final = "the image was damaged or tampered with: get it again, or build it again"

_SUPERBLOCK: Final = 1024
"""Where it is, and how long it is, in bytes."""
_ROOT, _RESIZE, _JOURNAL = 2, 7, 8

# Features (include/linux in the kernel: fs/ext4/ext4.h).
_RESIZE_INODE: Final = 0x10
_HAS_JOURNAL: Final = 0x4
_64BIT: Final = 0x80
_CSUM_SEED: Final = 0x2000
_METADATA_CSUM: Final = 0x400
_SPARSE_SUPER: Final = 0x1
# filetype, extents, 64bit, flex_bg, csum_seed: all others change what the bytes mean.
_INCOMPATIBLE: Final = 0x2 | 0x40 | _64BIT | 0x200 | _CSUM_SEED
_NEEDED: Final = 0x2 | 0x40
# sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum.
_READ_ONLY: Final = _SPARSE_SUPER | 0x2 | 0x8 | 0x20 | 0x40 | _METADATA_CSUM

_EXTENTS, _INDEX = 0x80000, 0x1000
# Flags that change how an inode is read: encryption, EA inodes, verity, inline data, case folding.
_UNREADABLE: Final = 0x800 | 0x200000 | 0x100000 | 0x10000000 | 0x40000000

_KINDS: Final = {0x1: FIFO, 0x2: CHARACTER, 0x4: DIRECTORY, 0x6: BLOCK, 0x8: FILE, 0xA: SYMLINK, 0xC: SOCKET}
_FILE_TYPES: Final = {1: FILE, 2: DIRECTORY, 3: CHARACTER, 4: BLOCK, 5: FIFO, 6: SOCKET, 7: SYMLINK}
_PREFIXES: Final = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
    8: "system.richacl",
}
_XATTR_MAGIC: Final = 0xEA020000

_COMPATIBLE: Final = _HAS_JOURNAL | 0x8 | _RESIZE_INODE | 0x20
"""Those, ext_attr and dir_index."""
_LINKS: Final = 65000
"""Names that an inode may have; a directory with more says 1 (dir_nlink)."""
_WRITTEN: Final = 16
"""How often all of a file system may have been written while it was made."""

_PATH_MAX: Final = 4096
_DIRECTORIES: Final = 2**30
"""Bytes that all directories may have together: no image comes near."""
_ENTRY: Final = struct.Struct("<IHBB")


@dataclass(frozen=True, slots=True)
class Superblock:
    """What mke2fs was told or chose; sizes in bytes, `created` in seconds since 1970."""

    uuid: str
    label: str
    hash_seed: str
    created: int
    block_size: int
    blocks: int
    inodes: int
    inode_size: int
    blocks_per_group: int
    inodes_per_group: int
    first_block: int
    first_inode: int
    descriptor_size: int
    reserved_gdt: int
    compatible: int
    incompatible: int
    read_only: int

    @property
    def groups(self) -> int:
        """How many block groups there are."""
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)


@dataclass(frozen=True, slots=True)
class _Group:
    """A group's descriptor: blocks of its bitmaps and of its inode table, and the rest as it stands."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    flags: int
    unused: int


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
    offset: int
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    flags: int
    sectors: int
    mtime: int
    body: bytes
    extents: tuple[_Extent, ...]
    xattrs: tuple[tuple[str, bytes], ...]
    blocks: int
    """Blocks that it owns: its content's, its extent tree's and its xattrs'."""
    seed: int


class Ext4:
    """An ext4 file system; Error when it is damaged, or has what is not read here.

    Nothing is written, executed or mounted. Entries' `sha256` are of what Linux
    would read: holes and unwritten extents are zeros.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._raw = view.read(_SUPERBLOCK, _SUPERBLOCK)
        self.superblock = _superblock(self._raw, view.size)
        self._size = self.superblock.block_size
        self._checked = bool(self.superblock.read_only & _METADATA_CSUM)
        if self.superblock.incompatible & _CSUM_SEED:
            self._seed: int = struct.unpack_from("<I", self._raw, 0x270)[0]
        else:
            self._seed = crc32c(self._raw[0x68:0x78])
        self._check(struct.unpack_from("<I", self._raw, 0x3FC)[0], crc32c(self._raw[:0x3FC]), "its superblock")
        self._groups = self._descriptors()
        self._inodes: dict[int, _Inode] = {}
        self._paths: list[tuple[str, int]] = []
        self._names: dict[int, str] = {}
        self._links: dict[int, int] = {}
        self._subdirectories: dict[int, int] = {}
        self._claims: list[tuple[int, int, str]] = []
        self._claimed = 0
        self._shared: dict[int, tuple[tuple[tuple[str, bytes], ...], int, int]] = {}
        self._listed = 0
        self._noted: list[Finding] = []
        self._walk()
        self._journal = self._special(_JOURNAL, _HAS_JOURNAL)
        self._resize = self._special(_RESIZE, _RESIZE_INODE)

    def entries(self) -> Iterator[Entry]:
        """All paths, sorted; Error when a file cannot be read."""
        total, digests = 0, {}
        for inode in self._inodes.values():
            if inode.kind == FILE:
                total += inode.size
                if total > self._view.size:
                    raise Error("files of the file system are larger than itself", _HINT)
                digest = hashlib.sha256()
                for piece in self._content(inode):
                    digest.update(piece)
                digests[inode.number] = digest.hexdigest()
        for path, number in sorted(self._paths):
            yield self._entry(path, self._inodes[number], digests.get(number, ""))

    def content(self, path: str) -> bytes:
        """What a regular file holds; Error when there is none of that path."""
        return b"".join(self.pieces(path))

    def pieces(self, path: str) -> Iterator[bytes]:
        """The same, a piece at a time."""
        inode = self._inodes.get(self._by_path.get(path, 0))
        if inode is None or inode.kind != FILE:
            raise Error(f"the image has no file /{path}", "give the path of a regular file, without a leading slash")
        if inode.size > self._view.size:
            raise Error(f"/{path} is larger than its file system", _HINT)
        return self._content(inode)

    @cached_property
    def _by_path(self) -> dict[str, int]:
        return dict(self._paths)

    # Superblock and groups.

    def _descriptors(self) -> tuple[_Group, ...]:
        info, size = self.superblock, self.superblock.descriptor_size
        raw = self._view.read((info.first_block + 1) * self._size, info.groups * size)
        groups = []
        for number in range(info.groups):
            one = raw[number * size : (number + 1) * size]
            blocks, inodes, table, flags, unused, found = struct.unpack_from("<III6xH8xHH", one)
            if size == 64:
                blocks_high, inodes_high, table_high, unused_high = struct.unpack_from("<III6xH", one, 32)
                blocks, inodes, table = (
                    blocks | blocks_high << 32,
                    inodes | inodes_high << 32,
                    table | table_high << 32,
                )
                unused |= unused_high << 16
            zeroed = one[:0x1E] + b"\0\0" + one[0x20:]
            counted = crc32c(zeroed, crc32c(number.to_bytes(4, "little"), self._seed)) & 0xFFFF
            self._check(found, counted, f"descriptor of group {number}")
            group = _Group(blocks, inodes, table, flags, unused)
            for first, count in ((blocks, 1), (inodes, 1), (table, self._table_blocks)):
                if not info.first_block <= first <= first + count <= info.blocks:
                    raise Error(f"group {number} of the file system lies outside it", _HINT)
            groups.append(group)
        return tuple(groups)

    @property
    def _table_blocks(self) -> int:
        """Blocks of one group's inode table."""
        return -(-self.superblock.inodes_per_group * self.superblock.inode_size // self._size)

    def _check(self, found: int, counted: int, what: str) -> None:
        if self._checked and found != counted:
            raise Error(f"the file system is damaged: the checksum of {what} is wrong", _HINT)

    # Inodes.

    def _slot(self, number: int) -> int:
        """Where an inode is."""
        info = self.superblock
        if not 1 <= number <= info.inodes:
            raise Error(f"the file system names inode {number}, and has {info.inodes}", _HINT)
        group, index = divmod(number - 1, info.inodes_per_group)
        return self._groups[group].inode_table * self._size + index * info.inode_size

    def _raw_inode(self, number: int, where: str) -> tuple[bytes, int]:
        """An inode's bytes, and what the checksums of its blocks begin with."""
        raw = self._view.read(self._slot(number), self.superblock.inode_size)
        seed = crc32c(raw[100:104], crc32c(number.to_bytes(4, "little"), self._seed))
        if self._checked:
            low, extra, high = *struct.unpack_from("<H", raw, 124), *struct.unpack_from("<HH", raw, 128)
            zeroed = raw[:124] + b"\0\0" + raw[126:]
            if extra >= 4:
                zeroed = zeroed[:130] + b"\0\0" + zeroed[132:]
                found, mask = high << 16 | low, 0xFFFFFFFF
            else:
                found, mask = low, 0xFFFF
            self._check(found, crc32c(zeroed, seed) & mask, f"the inode of {where}")
        return raw, seed

    def _inode(self, number: int, where: str) -> _Inode:
        offset = self._slot(number)
        raw, seed = self._raw_inode(number, where)
        (mode, uid, size, mtime, gid, links, sectors, flags) = struct.unpack_from("<HHI8xi4xHHII", raw)
        xattr_block, size_high, sectors_high, xattr_high, uid_high, gid_high = struct.unpack_from(
            "<II4xHHHH", raw, 104
        )
        extra, mtime_extra = struct.unpack_from("<H6xI", raw, 128)
        uid, gid, xattr_block = uid | uid_high << 16, gid | gid_high << 16, xattr_block | xattr_high << 32
        size |= size_high << 32
        sectors |= sectors_high << 32
        if extra >= 16:
            mtime += (mtime_extra & 3) << 32
        kind = _KINDS.get(mode >> 12)
        if kind is None or not links:
            raise Error(f"{where} has inode {number}, which is not in use", _HINT)
        if flags & _UNREADABLE:
            raise Error(f"{where} is encrypted, inline or otherwise of a kind that is not read here", _HINT)
        if extra % 4 or 128 + extra > self.superblock.inode_size:
            raise Error(f"the inode of {where} is damaged", _HINT)
        body, blocks = raw[40:100], 0
        extents: tuple[_Extent, ...] = ()
        fast = kind == SYMLINK and not flags & _EXTENTS
        if kind in (FILE, DIRECTORY, SYMLINK) and not fast:
            if not flags & _EXTENTS and number != _RESIZE:
                raise Error(f"{where} has a block map as ext2 had, which is not read here", _HINT)
            if flags & _EXTENTS:
                extents, blocks = self._tree(body, seed, offset + 40, where)
        xattrs: tuple[tuple[str, bytes], ...] = ()
        inside = raw[128 + extra :]
        if extra and inside[:4] == _XATTR_MAGIC.to_bytes(4, "little"):
            xattrs = self._xattrs(inside, 4, 4, offset + 128 + extra, where)
        elif any(inside):
            self._note(f"inode of {where}", offset + 128 + extra, inside)
        if xattr_block:
            xattrs += self._xattrs_of_block(xattr_block, where)
            blocks += 1
        if len({name for name, _ in xattrs}) != len(xattrs):
            raise Error(f"{where} has an extended attribute twice", _HINT)
        return _Inode(
            number, offset, kind, mode & 0o7777, uid, gid, size, links, flags, sectors, mtime,
            body, extents, tuple(sorted(xattrs)), blocks, seed,
        )  # fmt: skip

    # Extents.

    def _claim(self, block: int, count: int, where: str) -> None:
        """Note who owns some blocks; Error when there are not so many, which bounds all that follows them."""
        if not self.superblock.first_block <= block < block + count <= self.superblock.blocks:
            raise Error(f"blocks of {where} lie outside the file system", _HINT)
        self._claimed += count
        if self._claimed > self.superblock.blocks:
            raise Error(f"blocks of {where} belong to something else, too", _HINT)
        self._claims.append((block, count, where))

    def _tree(self, root: bytes, seed: int, offset: int, where: str) -> tuple[tuple[_Extent, ...], int]:
        """A file's extents in order, and the number of blocks that it owns."""
        extents: list[_Extent] = []
        owned, grown = 0, b""
        # Node, where it is, the depth that it must have, and the file's blocks that it may speak of.
        nodes = [(root, offset, -1, 0, 2**32)]
        while nodes:
            node, place, expected, low, high = nodes.pop()
            magic, count, most, depth, generation = struct.unpack_from("<HHHHI", node)
            if (
                magic != 0xF30A
                or most != (len(node) - 12) // 12
                or count > most
                or (expected >= 0 and depth != expected)
                or depth > 5
                or (expected >= 0 and not count)
            ):
                raise Error(f"the extents of {where} are damaged", _HINT)
            used = 12 + 12 * count
            if generation:
                self._note(f"extents of {where}", place + 8, node[8:12])
            rest = node[used : 12 + 12 * most]
            if depth and expected < 0:
                # A tree that grew has moved its extents into its first leaf, and left them in the inode, too.
                grown = rest
            else:
                self._note(f"extents of {where}", place + used, rest)
            last = low
            children: list[tuple[int, int]] = []
            for at in range(12, used, 12):
                if depth:
                    first, block, block_high, unused = struct.unpack_from("<IIHH", node, at)
                    if unused:
                        self._note(f"extents of {where}", place + at + 10, node[at + 10 : at + 12])
                    if first < last or first >= high or (children and first == last):
                        raise Error(f"the extents of {where} are damaged", _HINT)
                    children.append((first, block | block_high << 32))
                    last = first
                    continue
                first, length, block_high, block = struct.unpack_from("<IHHI", node, at)
                unwritten, length = length > 32768, length - 32768 if length > 32768 else length
                if not length or first < last or first + length > high:
                    raise Error(f"the extents of {where} are damaged", _HINT)
                block |= block_high << 32
                self._claim(block, length, where)
                owned += length
                extents.append(_Extent(first, block, length, unwritten))
                last = first + length
            ends = [first for first, _ in children[1:]] + [high]
            for (first, block), end in list(zip(children, ends, strict=False)):
                self._claim(block, 1, f"extents of {where}")
                owned += 1
                data = self._view.read(block * self._size, self._size)
                most = (self._size - 12) // 12
                tail = 12 + 12 * most
                if self._size - tail >= 4:
                    found = struct.unpack_from("<I", data, tail)[0]
                    self._check(found, crc32c(data[:tail], seed), f"the extents of {where}")
                if grown != data[used : used + len(grown)]:
                    self._note(f"extents of {where}", place + used, grown)
                grown = b""
                nodes.append((data[:tail], block * self._size, depth - 1, first, end))
        return tuple(sorted(extents, key=lambda extent: extent.logical)), owned

    def _runs(self, inode: _Inode) -> Iterator[tuple[int, int]]:
        """Where a file's bytes are, up to its size, as (offset, length); offset -1 is a hole."""
        position = 0
        for extent in inode.extents:
            start = extent.logical * self._size
            if start >= inode.size:
                break
            if start > position:
                yield -1, start - position
            length = min(extent.count * self._size, inode.size - start)
            yield -1 if extent.unwritten else extent.physical * self._size, length
            position = start + length
        if position < inode.size:
            yield -1, inode.size - position

    def _content(self, inode: _Inode) -> Iterator[bytes]:
        zeros = bytes(2**16)
        for offset, length in self._runs(inode):
            if offset >= 0:
                yield from self._view.pieces(offset, length)
            else:
                for position in range(0, length, len(zeros)):
                    yield zeros[: length - position]

    # Extended attributes.

    def _xattrs_of_block(self, block: int, where: str) -> tuple[tuple[str, bytes], ...]:
        """The attributes in a block of their own, which several inodes may share."""
        if block in self._shared:
            xattrs, references, users = self._shared[block]
            self._shared[block] = xattrs, references, users + 1
            return xattrs
        self._claim(block, 1, f"extended attributes of {where}")
        if len(self._shared) * self._size > PATHS:
            raise Error("the file system has more extended attributes than an image can have", _HINT)
        data = self._view.read(block * self._size, self._size)
        magic, references, blocks, _, found = struct.unpack_from("<IIIII", data)
        if magic != _XATTR_MAGIC or blocks != 1:
            raise Error(f"the extended attributes of {where} are damaged", _HINT)
        zeroed = data[:16] + bytes(4) + data[20:]
        self._check(found, crc32c(zeroed, crc32c(block.to_bytes(8, "little"), self._seed)), f"xattrs of {where}")
        self._note(f"extended attributes of {where}", block * self._size + 20, data[20:32])
        xattrs = self._xattrs(data, 32, 0, block * self._size, where)
        self._shared[block] = xattrs, references, 1
        return xattrs

    def _xattrs(self, data: bytes, first: int, base: int, offset: int, where: str) -> tuple[tuple[str, bytes], ...]:
        """Attributes from byte `first` of some data on; their values' places count from byte `base`."""
        found, used, hashes, at = [], [], list[int](), first
        while data[at : at + 4] != bytes(4):
            if at + 16 > len(data):
                raise Error(f"the extended attributes of {where} are damaged", _HINT)
            length, index, place, other, size, counted = struct.unpack_from("<BBHIII", data, at)
            name, place = data[at + 16 : at + 16 + length], place + base
            end = at + 16 + (length + 3 & ~3)
            if (
                index not in _PREFIXES
                or other
                or b"\0" in name
                or end + 4 > len(data)
                or (size and place + size > len(data))
            ):
                raise Error(f"the extended attributes of {where} are damaged", _HINT)
            used += [(at, at + 16 + length), *([(place, place + size)] if size else [])]
            value = data[place : place + size] if size else b""
            # The kernel leaves it out in an inode.
            if counted not in (0, _xattr_hash(name, value)):
                self._noted.append(Finding(f"extended attributes of {where}", self._view.start + offset + at + 12, 4))
            hashes.append(counted)
            found.append((_PREFIXES[index] + text(name), _acl(value, where) if index in (2, 3) else value))
            at = end
        used.append((at, at + 4))
        position = first
        for start, end in sorted(used):
            if start < position:
                raise Error(f"the extended attributes of {where} are damaged", _HINT)
            self._note(f"extended attributes of {where}", offset + position, data[position:start])
            position = end
        self._note(f"extended attributes of {where}", offset + position, data[position:])
        if first == 32 and int.from_bytes(data[12:16], "little") not in (0, _fold(hashes)):
            self._noted.append(Finding(f"extended attributes of {where}", self._view.start + offset + 12, 4))
        return tuple(found)

    # Directories.

    def _walk(self) -> None:
        """Read all directories, from the root on."""
        root = self._inode(_ROOT, "/")
        if root.kind != DIRECTORY:
            raise Error("the file system's root is no directory", _HINT)
        self._inodes[_ROOT] = root
        self._paths.append(("", _ROOT))
        self._names[_ROOT] = "/"
        self._links[_ROOT] = 2
        queue, length = [("", _ROOT, _ROOT)], 0
        while queue:
            path, number, parent = queue.pop()
            for name, child, file_type in self._directory(self._inodes[number], parent, f"/{path}"):
                below = f"{path}/{text(name)}" if path else text(name)
                length += len(below)
                if len(below) >= _PATH_MAX or length > PATHS or len(self._paths) >= ENTRIES:
                    raise Error("the file system has more paths, or longer ones, than an image can have", _HINT)
                if child < self.superblock.first_inode or child in self._subdirectories:
                    raise Error(f"/{below} leads to an inode that is not its own", _HINT)
                inode = self._inodes.get(child) or self._inode(child, f"/{below}")
                if _FILE_TYPES.get(file_type) != inode.kind:
                    raise Error(f"/{below} is of another kind than its directory says", _HINT)
                self._inodes[child] = inode
                self._paths.append((below, child))
                self._names.setdefault(child, f"/{below}")
                self._links[child] = self._links.get(child, 0) + 1
                if inode.kind == DIRECTORY:
                    # Its own "." names it, and its ".." names the one above.
                    self._links[child] += 1
                    self._links[number] += 1
                    self._subdirectories[child] = number
                    queue.append((below, child, number))

    def _directory(self, inode: _Inode, parent: int, where: str) -> Iterator[tuple[bytes, int, int]]:
        """Name, inode and type of what a directory holds."""
        self._listed += inode.size
        count = sum(extent.count for extent in inode.extents)
        if (
            not inode.size
            or self._listed > _DIRECTORIES
            or inode.size != count * self._size
            or any(extent.unwritten for extent in inode.extents)
            or (inode.extents[-1].logical + inode.extents[-1].count) * self._size != inode.size
        ):
            raise Error(f"the directory {where} is damaged, or larger than an image can have it", _HINT)
        blocks = [extent.physical + n for extent in inode.extents for n in range(extent.count)]
        nodes = self._index(inode, blocks, where) if inode.flags & _INDEX else set()
        seen: set[bytes] = set()
        own = {b".": inode.number, b"..": parent}
        for number, block in enumerate(blocks):
            if number in nodes and number:
                continue
            data = self._view.read(block * self._size, self._size)
            end = self._size
            if number in nodes:
                end = 24
            elif self._checked:
                end -= 12
                if data[end : end + 8] != b"\0\0\0\0\x0c\0\0\xde":
                    raise Error(f"the directory {where} is damaged", _HINT)
                found = struct.unpack_from("<I", data, end + 8)[0]
                self._check(found, crc32c(data[:end], inode.seed), f"the directory {where}")
            at = 0
            while at < end:
                child, size, length, file_type = _ENTRY.unpack_from(data, at)
                if at + 12 == 24 and number in nodes:
                    size = 12
                if size < 8 + length or size % 4 or at + size > end or (child and not length):
                    raise Error(f"the directory {where} is damaged", _HINT)
                if not child:
                    self._note(
                        f"deleted name in the directory {where}",
                        block * self._size + at + 6,
                        data[at + 6 : at + size],
                    )
                else:
                    name = data[at + 8 : at + 8 + length]
                    if name in seen or b"/" in name or b"\0" in name:
                        raise Error(f"the directory {where} has a name twice, or one that is none", _HINT)
                    seen.add(name)
                    rest = at + 8 + length
                    if any(data[rest : at + size]):
                        self._note(
                            f"after a name in the directory {where}",
                            block * self._size + rest,
                            data[rest : at + size],
                        )
                    if name not in own:
                        yield name, child, file_type
                    elif child != own[name] or file_type != 2 or number or at != (0, 12)[len(name) - 1]:
                        raise Error(f"the directory {where} is damaged", _HINT)
                at += size
        if not seen.issuperset(own):
            raise Error(f"the directory {where} is damaged", _HINT)

    def _index(self, inode: _Inode, blocks: list[int], where: str) -> set[int]:
        """The blocks of a directory that are its hash tree's; Error unless it leads to all others."""
        damaged = Error(f"the index of the directory {where} is damaged", _HINT)
        nodes, leaves = {0}, set()
        queue = [(0, -1)]
        while queue:
            number, depth = queue.pop()
            block = blocks[number]
            data = self._view.read(block * self._size, self._size)
            first = 8 if number else 32
            if number:
                if data[:8] != struct.pack("<IHBB", 0, self._size, 0, 0):
                    raise damaged
            else:
                reserved, version, length, depth, unused = struct.unpack_from("<IBBBB", data, 24)
                if reserved or version > 5 or length != 8 or depth > 1 or unused:
                    raise damaged
                if (
                    data[12:24]
                    != struct.pack("<I", struct.unpack_from("<I", data, 12)[0])
                    + struct.pack("<HBB", self._size - 12, 2, 2)
                    + b"..\0\0"
                ):
                    raise damaged
            limit, count = struct.unpack_from("<HH", data, first)
            if limit != (self._size - first - 8 * self._checked) // 8 or not 1 <= count <= limit:
                raise damaged
            end = first + 8 * limit
            if self._checked:
                found = struct.unpack_from("<I", data, end + 4)[0]
                counted = crc32c(data[end : end + 4] + bytes(4), crc32c(data[: first + 8 * count], inode.seed))
                self._check(found, counted, f"the directory {where}")
                self._note(f"index of the directory {where}", block * self._size + end, data[end : end + 4])
            used = first + 8 * count
            self._note(f"index of the directory {where}", block * self._size + used, data[used:end])
            for child in (value & 0x0FFFFFFF for value in struct.unpack_from("<" + "4xI" * count, data, first)):
                if not 0 < child < len(blocks) or child in nodes or child in leaves:
                    raise damaged
                if depth:
                    nodes.add(child)
                    queue.append((child, depth - 1))
                else:
                    leaves.add(child)
        if len(nodes) + len(leaves) != len(blocks):
            raise damaged
        return nodes

    # Entries.

    def _entry(self, path: str, inode: _Inode, sha256: str) -> Entry:
        target, device = "", (0, 0)
        if inode.kind == SYMLINK:
            raw = self._target(inode, path)
            if not raw or b"\0" in raw:
                raise Error(f"the link /{path} leads nowhere", _HINT)
            target = text(raw)
        elif inode.kind in (CHARACTER, BLOCK):
            device = _device(inode.body)
        return Entry(
            path, inode.kind, inode.mode, inode.uid, inode.gid, inode.mtime,
            inode.size if inode.kind == FILE else 0, sha256, target, device, inode.xattrs, inode.number,
        )  # fmt: skip

    def _target(self, inode: _Inode, path: str) -> bytes:
        if not 0 < inode.size < _PATH_MAX or (not inode.flags & _EXTENTS and inode.size >= len(inode.body)):
            raise Error(f"the link /{path} is damaged", _HINT)
        if inode.flags & _EXTENTS:
            return b"".join(self._content(inode))
        return inode.body[: inode.size]

    # Accounts.

    def unaccounted(self) -> Iterator[Finding]:
        """Bytes that no path needs and that mke2fs does not leave; Error where two things share a block."""
        view, info, size = self._view, self.superblock, self._size
        journal, resize = self._journal, self._resize
        owned = self._owned(resize)
        used = sorted({*range(1, info.first_inode), *self._inodes})
        bits, free = self._bits(owned)

        yield from view.findings("before the superblock", 0, _SUPERBLOCK)
        raw = self._expected_superblock(journal, sum(free), info.inodes - len(used))
        yield from view.differences("the superblock", _SUPERBLOCK, raw)
        if info.first_block == 0:
            yield from view.findings("after the superblock", 2 * _SUPERBLOCK, size - 2 * _SUPERBLOCK)
        yield from self._noted
        yield from self._shares()
        yield from self._account_groups(used, bits, free)
        yield from self._account_backups(raw)
        yield from self._account_resize(resize)
        yield from self._account_inodes(used, journal, resize)
        if journal:
            yield from self._account_journal(journal)
        for number, inode in sorted(self._inodes.items()):
            if inode.kind in (FILE, SYMLINK):
                yield from self._slack(inode, self._names[number])
        position = info.first_block
        for block, count, _ in owned:
            yield from view.findings("free blocks", position * size, (block - position) * size)
            position = block + count
        yield from view.findings("free blocks", position * size, (info.blocks - position) * size)
        yield from view.findings("after the file system", info.blocks * size, view.size - info.blocks * size)

    def _special(self, number: int, feature: int) -> _Inode | None:
        """The inode of the journal, or of the blocks kept for growing."""
        if not self.superblock.compatible & feature:
            return None
        return self._inode(number, f"inode {number}")

    @cached_property
    def _gdt_blocks(self) -> int:
        """Blocks of the descriptors of all groups."""
        return -(-self.superblock.groups * self.superblock.descriptor_size // self._size)

    def _first_of(self, group: int) -> int:
        """A group's first block."""
        return self.superblock.first_block + group * self.superblock.blocks_per_group

    @cached_property
    def _backups(self) -> list[int]:
        """Groups that begin with a superblock and the descriptors, the first one among them."""
        groups = range(self.superblock.groups)
        if not self.superblock.read_only & _SPARSE_SUPER:
            return list(groups)
        powers = {base**exponent for base in (3, 5, 7) for exponent in range(22)}
        return [group for group in groups if not group or group in powers]

    def _owned(self, resize: _Inode | None) -> list[tuple[int, int, str]]:
        """All blocks that have an owner, in order: first block, number, owner. Error where one has two."""
        owned = list(self._claims)
        for number, group in enumerate(self._groups):
            owned.append((group.block_bitmap, 1, f"block bitmap of group {number}"))
            owned.append((group.inode_bitmap, 1, f"inode bitmap of group {number}"))
            owned.append((group.inode_table, self._table_blocks, f"inode table of group {number}"))
        for number in self._backups:
            count = 1 + self._gdt_blocks + self.superblock.reserved_gdt
            owned.append((self._first_of(number), count, f"descriptors in group {number}"))
        if resize:
            owned.append((struct.unpack_from("<I", resize.body, 4 * 13)[0], 1, "blocks kept for growing"))
        owned.sort()
        position, before = 0, ""
        for block, count, owner in owned:
            if block < position:
                raise Error(f"a block of the file system belongs to {before} and to {owner}", _HINT)
            position, before = block + count, owner
        if position > self.superblock.blocks:
            raise Error(f"blocks of {before} lie outside the file system", _HINT)
        return owned

    def _bits(self, owned: list[tuple[int, int, str]]) -> tuple[list[int], list[int]]:
        """Each group's blocks in use, as bits from the lowest on, and the number of the free ones."""
        info = self.superblock
        bits = [0] * info.groups
        for block, count, _ in owned:
            start, end = block - info.first_block, block - info.first_block + count
            while start < end:
                group, first = divmod(start, info.blocks_per_group)
                length = min(end - start, info.blocks_per_group - first)
                bits[group] |= ((1 << length) - 1) << first
                start += length
        sizes = [info.blocks_per_group] * info.groups
        sizes[-1] = info.blocks - self._first_of(info.groups - 1)
        return bits, [size - mask.bit_count() for size, mask in zip(sizes, bits, strict=True)]

    def _expected_superblock(self, journal: _Inode | None, free_blocks: int, free_inodes: int) -> bytes:
        """The superblock as mke2fs writes it; what it chooses or is told is taken from the one that is there."""
        info, raw = self.superblock, bytearray(_SUPERBLOCK)
        reserved = info.blocks * 5 // 100
        overhead = self.superblock.first_block + len(self._backups) * (1 + self._gdt_blocks + info.reserved_gdt)
        overhead += info.groups * (2 + self._table_blocks) + (journal.size // self._size if journal else 0)
        log = info.block_size.bit_length() - 11
        low = 0xFFFFFFFF

        def put(offset: int, form: str, *values: int | bytes) -> None:
            struct.pack_into("<" + form, raw, offset, *values)

        def keep(offset: int, length: int) -> None:
            raw[offset : offset + length] = self._raw[offset : offset + length]

        put(0x0, "IIIII", info.inodes, info.blocks & low, reserved & low, free_blocks & low, free_inodes)
        put(0x14, "IIIIII", info.first_block, log, log, info.blocks_per_group, info.blocks_per_group,
            info.inodes_per_group)  # fmt: skip
        # Never mounted, clean, "continue" on errors, no periodic check.
        put(0x30, "IHHHHHHIII", info.created, 0, 0xFFFF, 0xEF53, 1, 1, 0, info.created, 0, 0)
        put(0x4C, "IHHIHH", 1, 0, 0, info.first_inode, info.inode_size, 0)
        put(0x5C, "III", info.compatible & _COMPATIBLE, info.incompatible, info.read_only)
        keep(0x68, 16)
        put(0x78, "16s", info.label.encode("utf-8", "surrogateescape"))
        put(0xCE, "H", info.reserved_gdt)
        if journal:
            put(0xE0, "I", _JOURNAL)
            put(0xFD, "B", 1)
            put(0x10C, "60sII", journal.body, journal.size >> 32, journal.size & low)
        keep(0xEC, 16)
        # Directories are hashed with half MD4; ACLs and attributes of users are on.
        put(0xFC, "B", 1)
        put(0xFE, "HI", info.descriptor_size if info.incompatible & _64BIT else 0, 0xC)
        put(0x108, "I", info.created)
        put(0x150, "III", info.blocks >> 32, reserved >> 32, free_blocks >> 32)
        put(0x15C, "HHI", 32, 32, 2 if self._raw[0x160] == 2 else 1)
        put(0x174, "BB", self._raw[0x174] & 0x1F, self._checked)
        # How much was written by the tools that made it: not known, but not without bounds.
        written = struct.unpack_from("<Q", self._raw, 0x178)[0]
        put(0x178, "Q", written if written * 1024 <= _WRITTEN * self._view.size else 0)
        put(0x248, "I", overhead & low)
        keep(0x270, 4 * bool(info.incompatible & _CSUM_SEED))
        keep(0x3FC, 4)
        return bytes(raw)

    def _account_groups(self, used: list[int], bits: list[int], free: list[int]) -> Iterator[Finding]:
        """Descriptors and bitmaps, which follow from what is in use."""
        info, view, size = self.superblock, self._view, self._size
        per_group, low = info.inodes_per_group, 0xFFFF
        taken = [0] * info.groups
        folders = [0] * info.groups
        for number in used:
            which, index = divmod(number - 1, per_group)
            taken[which] |= 1 << index
            inode = self._inodes.get(number)
            folders[which] += inode is not None and inode.kind == DIRECTORY
        table = (info.first_block + 1) * size
        for number, group in enumerate(self._groups):
            last = number == info.groups - 1
            count = info.blocks - self._first_of(number) if last else info.blocks_per_group
            # What a bitmap has no use for is set.
            blocks = (bits[number] | -1 << count) & (1 << 8 * size) - 1
            inodes = (taken[number] | -1 << per_group) & (1 << 8 * size) - 1
            sums = []
            for what, place, mask, length, unused in (
                ("block", group.block_bitmap, blocks, info.blocks_per_group // 8, group.flags & 2),
                ("inode", group.inode_bitmap, inodes, per_group // 8, group.flags & 1 and not taken[number]),
            ):
                where = f"{what} bitmap of group {number}"
                found = view.read(place * size, size)
                expected = mask.to_bytes(size, "little")
                if unused:
                    # Not written at all: the descriptor says that it follows from where the group's own blocks are.
                    yield from view.findings(where, place * size, size)
                    sums.append(0)
                else:
                    yield from view.differences(where, place * size, expected)
                    sums.append(crc32c(found[:length], self._seed) if self._checked else 0)
            inodes_free = per_group - taken[number].bit_count()
            unused = per_group - taken[number].bit_length()
            flags = group.flags & 7
            places = (group.block_bitmap, group.inode_bitmap, group.inode_table)
            descriptor = view.read(table + number * info.descriptor_size, info.descriptor_size)
            raw = struct.pack(
                "<IIIHHHHIHHH2s", *(place & 0xFFFFFFFF for place in places), free[number] & low, inodes_free & low,
                folders[number] & low, flags, 0, sums[0] & low, sums[1] & low, unused & low, descriptor[0x1E:0x20],
            )  # fmt: skip
            if info.descriptor_size == 64:
                raw += struct.pack(
                    "<IIIHHHHIHHI", *(place >> 32 for place in places), free[number] >> 16, inodes_free >> 16,
                    folders[number] >> 16, unused >> 16, 0, sums[0] >> 16, sums[1] >> 16, 0,
                )  # fmt: skip
            yield from view.differences(f"descriptor of group {number}", table + number * info.descriptor_size, raw)
        end = table + info.groups * info.descriptor_size
        yield from view.findings("after the group descriptors", end, table + self._gdt_blocks * size - end)

    def _account_backups(self, primary: bytes) -> Iterator[Finding]:
        """Copies of the superblock and of the descriptors."""
        info, view, size = self.superblock, self._view, self._size
        descriptors = view.read((info.first_block + 1) * size, self._gdt_blocks * size)
        for number in self._backups[1:]:
            place = self._first_of(number) * size
            found, raw = view.read(place, _SUPERBLOCK), bytearray(primary)
            # mke2fs marks the first one alone as clean, at its very end; until then it goes on counting.
            raw[0x3A] = 0
            struct.pack_into("<H", raw, 0x5A, number & 0xFFFF)
            written = struct.unpack_from("<Q", found, 0x178)[0]
            if written * 1024 <= _WRITTEN * view.size:
                raw[0x178:0x180] = found[0x178:0x180]
            raw[0x3FC:] = struct.pack("<I", crc32c(found[:0x3FC]) if self._checked else 0)
            yield from view.differences(f"copy of the superblock in group {number}", place, bytes(raw))
            yield from view.findings("after a copy of the superblock", place + _SUPERBLOCK, size - _SUPERBLOCK)
            yield from view.differences(f"copy of the descriptors in group {number}", place + size, descriptors)
            kept = place + (1 + self._gdt_blocks) * size
            yield from view.findings("blocks kept for descriptors", kept, info.reserved_gdt * size)

    def _account_resize(self, resize: _Inode | None) -> Iterator[Finding]:
        """Blocks kept for descriptors: the first copy's name those of the other copies (resize_inode)."""
        info, view, size = self.superblock, self._view, self._size
        first = info.first_block + 1 + self._gdt_blocks
        if resize is None:
            yield from view.findings("blocks kept for descriptors", first * size, info.reserved_gdt * size)
            return
        index = bytearray(size)
        for number in range(info.reserved_gdt):
            struct.pack_into("<I", index, (self._gdt_blocks + number) * 4 % size, first + number)
            copies = [first + number + group * info.blocks_per_group for group in self._backups[1:]]
            names = struct.pack(f"<{len(copies)}I", *copies).ljust(size, b"\0")
            yield from view.differences("blocks kept for descriptors", (first + number) * size, names)
        double = struct.unpack_from("<I", resize.body, 4 * 13)[0]
        yield from view.differences("blocks kept for growing", double * size, bytes(index))
        yield from view.differences("inode 7", resize.offset + 40, bytes(52) + struct.pack("<II", double, 0))

    def _account_inodes(self, used: list[int], journal: _Inode | None, resize: _Inode | None) -> Iterator[Finding]:
        """Each inode: mke2fs gives all the same times, and counts what it has."""
        info, view = self.superblock, self._view
        created, size = info.created, info.inode_size
        # From 2038 on, times have two more bits.
        later = created + 2**31 >> 32
        position, group = 0, -1
        for number in [*used, 0]:
            # Slots from the last inode in use to this one, group by group.
            here = (number - 1) // info.inodes_per_group if number else info.groups
            while position < (number - 1 if number else info.inodes):
                group = position // info.inodes_per_group
                end = min((group + 1) * info.inodes_per_group, number - 1 if number else info.inodes)
                place = self._slot(position + 1)
                for start, length in view.nonzero(place, (end - position) * size):
                    yield Finding(
                        f"inode {position + 1 + (start - place) // size}, which no directory names",
                        view.start + start, length,
                    )  # fmt: skip
                position = end
            if not number or here >= info.groups:
                break
            position = number
            place = self._slot(number)
            raw = view.read(place, size)
            inode = self._inodes.get(number)
            if inode is None:
                inode = {_JOURNAL: journal, _RESIZE: resize}.get(number)
            if inode is None:
                self._raw_inode(number, f"inode {number}")
                # Reserved ones are empty; that of bad blocks has times.
                times = struct.pack("<8xIII", created, created, created) if number == 1 else b""
                expected = times.ljust(124, b"\0") + raw[124:126]
                expected = expected.ljust(size, b"\0")
                if expected != raw:
                    yield from view.differences(f"inode {number}", place, expected)
                continue
            where = self._names.get(number, f"inode {number}")
            links = self._links.get(number, 1)
            tree = inode.kind in (FILE, DIRECTORY) or (inode.kind == SYMLINK and inode.size >= len(inode.body))
            sectors = inode.blocks * self._size // 512
            flags = (inode.flags & _INDEX if inode.kind == DIRECTORY else 0) | (_EXTENTS if tree else 0)
            total = inode.size
            if number == _RESIZE:
                per_block = self._size // 4
                flags, total = 0, (per_block * per_block + per_block + 12) * self._size
                sectors = (1 + info.reserved_gdt * len(self._backups)) * self._size // 512
            head = struct.pack(
                "<2sHIIIIIHHIII", raw[:2], inode.uid & 0xFFFF, total & 0xFFFFFFFF, created, created,
                inode.mtime & 0xFFFFFFFF, 0, inode.gid & 0xFFFF, 1 if links > _LINKS else links,
                sectors & 0xFFFFFFFF, flags, 0,
            )  # fmt: skip
            extra = min(32, size - 128)
            tail = struct.pack(
                "<I4sIIH2sHH2sHHHIIIIIII", 0, raw[104:108], total >> 32, 0, sectors >> 32, raw[118:120],
                inode.uid >> 16, inode.gid >> 16, raw[124:126], 0, extra,
                struct.unpack_from("<H", raw, 130)[0], later,
                inode.mtime + 2**31 >> 32 & 3, later, created, later, 0, 0,
            )  # fmt: skip
            if raw[:40] != head:
                yield from view.differences(f"inode of {where}", place, head)
            if raw[100 : 128 + extra] != tail[: 28 + extra]:
                yield from view.differences(f"inode of {where}", place + 100, tail[: 28 + extra])
            yield from self._account_body(inode, where)

    def _account_body(self, inode: _Inode, where: str) -> Iterator[Finding]:
        """What of an inode's 60 bytes is neither blocks, nor a link's target, nor a device's number."""
        body = inode.body
        if inode.kind == SYMLINK and not inode.flags & _EXTENTS:
            expected = body[: inode.size].ljust(60, b"\0")
        elif inode.kind in (CHARACTER, BLOCK):
            major, minor = _device(body)
            old = major < 256 and minor < 256
            number = major << 8 | minor if old else minor & 0xFF | major << 8 | (minor & 0xFFF00) << 12
            expected = struct.pack("<II52x", *((number, 0) if old else (0, number)))
        elif inode.kind in (FIFO, SOCKET):
            expected = bytes(60)
        else:
            return
        if body != expected:
            yield from self._view.differences(f"inode of {where}", inode.offset + 40, expected)

    def _account_journal(self, journal: _Inode) -> Iterator[Finding]:
        """A journal that was never used: its superblock alone (Documentation/filesystems/ext4/journal.rst)."""
        view, size, first = self._view, self._size, True
        raw = struct.pack(
            ">IIIIIIIIIIII16sI", 0xC03B3998, 4, 0, size, journal.size // size, 1, 1, 0, 0, 0, 0, 0,
            self._raw[0x68:0x78], 1,
        ).ljust(size, b"\0")  # fmt: skip
        for extent in journal.extents:
            place, length = extent.physical * size, extent.count * size
            if first:
                yield from view.differences("the journal", place, raw)
                place, length, first = place + size, length - size, False
            yield from view.findings("the journal", place, length)

    def _slack(self, inode: _Inode, where: str) -> Iterator[Finding]:
        """What is after a file's end in its blocks, or in blocks that read as zeros."""
        for extent in inode.extents:
            length = extent.count * self._size
            read = min(length, max(0, inode.size - extent.logical * self._size))
            if extent.unwritten:
                read = 0
            if read < length:
                yield from self._view.findings(
                    f"slack of {where}", extent.physical * self._size + read, length - read
                )

    def _shares(self) -> Iterator[Finding]:
        """Blocks of extended attributes count those who have them."""
        for block, (_, references, users) in self._shared.items():
            if references != users:
                yield Finding("extended attributes", self._view.start + block * self._size + 4, 4)

    def _note(self, where: str, offset: int, data: bytes) -> None:
        """Note bytes that ought to be zero, where they are not."""
        rest = data.lstrip(b"\0")
        if rest:
            if len(self._noted) >= ENTRIES:
                raise Error("the file system hides more than can be told", _HINT)
            start = offset + len(data) - len(rest)
            self._noted.append(Finding(where, self._view.start + start, len(rest.rstrip(b"\0"))))


def _fold(words: Iterable[int], value: int = 0) -> int:
    """A hash of words, as that of an attribute's value is (fs/ext4/xattr.c)."""
    for word in words:
        value = (value << 16 ^ value >> 16 ^ word) & 0xFFFFFFFF
    return value


def _xattr_hash(name: bytes, value: bytes) -> int:
    """The hash of one extended attribute; its name is the one without prefix."""
    counted = 0
    for byte in name:
        counted = (counted << 5 ^ counted >> 27 ^ byte) & 0xFFFFFFFF
    padded = value + bytes(-len(value) % 4)
    return _fold(struct.unpack(f"<{len(padded) // 4}I", padded), counted)


def _acl(stored: bytes, where: str) -> bytes:
    """An ACL as getxattr(2) gives it: ext4 leaves out the ids of entries that need none (fs/ext4/acl.h)."""
    damaged = Error(f"the access control list of {where} is damaged", _HINT)
    if stored[:4] != b"\1\0\0\0":
        raise damaged
    acl, at = b"\2\0\0\0", 4
    while at < len(stored):
        tag = int.from_bytes(stored[at : at + 2], "little")
        size = 8 if tag in (2, 8) else 4
        entry = stored[at : at + size]
        if tag not in (1, 2, 4, 8, 0x10, 0x20) or len(entry) != size:
            raise damaged
        acl += entry.ljust(8, b"\xff")
        at += size
    return acl


def _device(body: bytes) -> tuple[int, int]:
    """Major and minor number, in the old encoding or the new one (linux/kdev_t.h)."""
    old, new = struct.unpack_from("<II", body)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


def _superblock(raw: bytes, size: int) -> Superblock:
    """The superblock, with every number bounded; Error when it is none that is read here."""
    (inodes, blocks, first_block, log_size, log_cluster, per_group, _, inodes_per_group) = struct.unpack_from(
        "<II12xIIIIII", raw
    )
    (magic,) = struct.unpack_from("<H", raw, 0x38)
    first_inode, inode_size, _, compatible, incompatible, read_only = struct.unpack_from("<IHHIII", raw, 0x54)
    (reserved_gdt,) = struct.unpack_from("<H", raw, 0xCE)
    (descriptor_size,) = struct.unpack_from("<H", raw, 0xFE)
    (blocks_high,) = struct.unpack_from("<I", raw, 0x150)
    if magic != 0xEF53:
        raise Error("the root partition has no ext4 file system", _HINT)
    if incompatible & ~_INCOMPATIBLE or read_only & ~_READ_ONLY or incompatible & _NEEDED != _NEEDED:
        raise Error(
            f"the file system has features that are not read here (incompatible {incompatible:#x}, read-only"
            f" {read_only:#x})",
            "make it as debian-cloud build does, and unmount it cleanly",
        )
    if incompatible & _64BIT:
        blocks |= blocks_high << 32
    else:
        descriptor_size = 32
    block_size = 1024 << min(log_size, 7)
    damaged = Error("the file system's superblock is damaged", _HINT)
    if log_size > 6 or log_cluster != log_size or first_block != (block_size == 1024):
        raise damaged
    if blocks * block_size > size:
        raise Error("the file system is larger than its partition", _HINT)
    groups = -(-(blocks - first_block) // max(per_group, 1))
    if (
        per_group != 8 * block_size
        or not 128 <= inode_size <= block_size
        or inode_size & inode_size - 1
        or inode_size < 256
        or not 0 < inodes_per_group <= 8 * block_size
        or blocks <= first_block + 1
        or inodes != groups * inodes_per_group
        or descriptor_size not in (32, 64)
        or (descriptor_size == 32) != (not incompatible & _64BIT)
        or not 11 <= first_inode <= inodes_per_group
    ):
        raise damaged
    return Superblock(
        uuid=str(UUID(bytes=raw[0x68:0x78])),
        label=text(raw[0x78:0x88].rstrip(b"\0")),
        hash_seed=str(UUID(bytes=raw[0xEC:0xFC])),
        created=struct.unpack_from("<I", raw, 0x108)[0],
        block_size=block_size,
        blocks=blocks,
        inodes=inodes,
        inode_size=inode_size,
        blocks_per_group=per_group,
        inodes_per_group=inodes_per_group,
        first_block=first_block,
        first_inode=first_inode,
        descriptor_size=descriptor_size,
        reserved_gdt=reserved_gdt,
        compatible=compatible,
        incompatible=incompatible,
        read_only=read_only,
    )
