# SPDX-License-Identifier: GPL-3.0-or-later
"""A tar archive of a tree, as GNU tar writes it with --format=pax (POSIX, pax; GNU tar's manual, "Standard")."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.image.entries import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK, Entry
from debian_cloud.view import ENTRIES, PATHS, View, text

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT: Final = "the image was damaged or tampered with: get it again, or build it again"
_BLOCK: Final = 512
_HARD_LINK: Final = b"1"
_KINDS: Final = {b"0": FILE, b"2": SYMLINK, b"3": CHARACTER, b"4": BLOCK, b"5": DIRECTORY, b"6": FIFO}
# Extended headers: POSIX's for the next member; GNU's for its name, and for the name of its link.
_PAX, _GNU_NAME, _GNU_LINK = b"x", b"L", b"K"
_EXTENDED: Final = 2**20
"""Maximum bytes of an extended header."""
_XATTR: Final = b"SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class _Header:
    """The header block of a member, with the numbers as they are stored."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    device: tuple[int, int]


class Tar:
    """A tree in a tar archive; Error if it is damaged, or has members that do not belong in a tree."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._entries: dict[str, Entry] = {}
        # Offset of a member's header -> offset and size of its content.
        self._places: dict[int, tuple[int, int]] = {}
        # Offset of the first header of each member, and its path.
        self._spans: list[tuple[int, str]] = []
        self._end = self._members()

    def entries(self) -> Iterator[Entry]:
        """All paths, sorted."""
        digests: dict[int, str] = {}
        for entry in self._entries.values():
            if entry.kind == FILE and entry.inode not in digests:
                digest = hashlib.sha256()
                for piece in self._view.pieces(*self._places[entry.inode]):
                    digest.update(piece)
                digests[entry.inode] = digest.hexdigest()
        for path in sorted(self._entries):
            entry = self._entries[path]
            yield replace(entry, sha256=digests[entry.inode]) if entry.kind == FILE else entry

    def content(self, path: str) -> bytes:
        """The content of a regular file; Error if no regular file has that path."""
        return b"".join(self.pieces(path))

    def pieces(self, path: str) -> Iterator[bytes]:
        """The same, a piece at a time."""
        entry = self._entries.get(path)
        if entry is None or entry.kind != FILE:
            raise Error(f"the image has no file /{path}", "give the path of a regular file, without a leading slash")
        return self._view.pieces(*self._places[entry.inode])

    def place(self, offset: int) -> tuple[str, str]:
        """A description of what a byte is part of, and the path to which it belongs; "" if it belongs to none."""
        if offset >= self._end or not self._spans:
            return "after the end of the tar archive", ""
        start, path = self._spans[max(0, bisect_right(self._spans, offset, key=lambda span: span[0]) - 1)]
        entry = self._entries[path]
        place, size = self._places.get(entry.inode, (0, 0)) if entry.kind == FILE else (0, 0)
        # A hard link has no content of its own.
        if place > start and place <= offset:
            return f"{'content' if offset < place + size else 'padding'} of /{path}", path
        return f"headers of /{path}", path

    def _members(self) -> int:
        """Read all headers, and return the offset at which the archive ends."""
        at, start, length, headers, extended = 0, 0, 0, 0, dict[bytes, bytes]()
        while any(raw := self._view.read(at, _BLOCK)):
            header = self._header(raw, at)
            size = _number_of(extended, b"size", header.size)
            place, at = at, at + _BLOCK + (size + _BLOCK - 1) // _BLOCK * _BLOCK
            self._view.part(place, at - place)
            headers += 1
            if header.kind in (_PAX, _GNU_NAME, _GNU_LINK):
                length += size
                if size > _EXTENDED or length > PATHS or headers > 4 * ENTRIES:
                    raise Error("the tar archive has extended headers that are too large, or too many", _HINT)
                found = self._extended(header, self._view.read(place + _BLOCK, size))
                if extended.keys() & found.keys():
                    raise Error("the tar archive has an extended header twice", _HINT)
                extended.update(found)
                continue
            entry = self._entry(header, extended, place, size)
            length += len(entry.path)
            if len(self._entries) >= ENTRIES or length > PATHS:
                raise Error("the tar archive has more paths, or longer ones, than an image can have", _HINT)
            if entry.path in self._entries:
                raise Error(f"the tar archive has /{entry.path} twice", _HINT)
            parent = self._entries.get(entry.path.rpartition("/")[0])
            if entry.path and (parent is None or parent.kind != DIRECTORY):
                raise Error(f"the tar archive has /{entry.path}, but not its directory before it", _HINT)
            self._entries[entry.path] = entry
            self._spans.append((start, entry.path))
            start, extended = at, {}
        if extended:
            raise Error("the tar archive ends within a member", _HINT)
        return at

    def _header(self, raw: bytes, at: int) -> _Header:
        (
            name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix, _,
        ) = struct.unpack("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s", raw)  # fmt: skip
        if _number(checksum) != sum(raw[:148]) + sum(raw[156:]) + 8 * 0x20 or magic not in (
            b"ustar\00000",
            b"ustar  \0",
        ):
            raise Error(f"the tar archive is damaged at byte {self._view.start + at}", _HINT)
        if magic == b"ustar\00000" and prefix[:1] != b"\0":
            name = prefix.partition(b"\0")[0] + b"/" + name
        if kind in (b"2", b"3", b"4", b"5", b"6", _HARD_LINK) and _number(size):
            raise Error(f"the tar archive has unexpected content at byte {self._view.start + at}", _HINT)
        return _Header(
            name=name.partition(b"\0")[0],
            kind=kind,
            mode=_number(mode),
            uid=_number(uid),
            gid=_number(gid),
            size=_number(size),
            mtime=_number(mtime),
            link=link.partition(b"\0")[0],
            device=(_number(major), _number(minor)),
        )

    def _extended(self, header: _Header, data: bytes) -> dict[bytes, bytes]:
        """The fields of an extended header, each "length key=value" and a newline."""
        damaged = Error("the tar archive has an extended header that is damaged", _HINT)
        if header.kind != _PAX:
            return {b"path" if header.kind == _GNU_NAME else b"linkpath": data.rstrip(b"\0")}
        found: dict[bytes, bytes] = {}
        at = 0
        while at < len(data):
            length, space, _ = data[at : at + 10].partition(b" ")
            if not space or not length.isdigit() or not len(length) + 3 < int(length) <= len(data) - at:
                raise damaged
            record, at = data[at + len(length) + 1 : at + int(length)], at + int(length)
            key, equals, value = record.partition(b"=")
            if not equals or value[-1:] != b"\n" or key in found:
                raise damaged
            found[key] = value[:-1]
        return found

    def _entry(self, header: _Header, extended: dict[bytes, bytes], place: int, size: int) -> Entry:
        path = _path(extended.get(b"path", header.name))
        link = extended.get(b"linkpath", header.link)
        xattrs = sorted(
            (text(key[len(_XATTR) :]), value) for key, value in extended.items() if key.startswith(_XATTR)
        )
        if header.kind == _HARD_LINK:
            target = self._entries.get(_path(link))
            if target is None or target.kind == DIRECTORY:
                raise Error(f"the tar archive has the hard link /{path} before its target", _HINT)
            return replace(target, path=path)
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise Error(f"the tar archive has /{path} of an unsupported type", "create it with GNU tar")
        if kind == SYMLINK and (not link or b"\0" in link):
            raise Error(f"the tar archive has the symlink /{path} without a valid target", _HINT)
        if kind == FILE:
            self._places[place] = (place + _BLOCK, size)
        return Entry(
            path, kind, header.mode & 0o7777,
            _number_of(extended, b"uid", header.uid), _number_of(extended, b"gid", header.gid),
            _number_of(extended, b"mtime", header.mtime), size if kind == FILE else 0,
            target=text(link) if kind == SYMLINK else "",
            device=header.device if kind in (CHARACTER, BLOCK) else (0, 0),
            xattrs=tuple(xattrs), inode=place,
        )  # fmt: skip


def _path(name: bytes) -> str:
    """A path without a leading "./" and without a trailing slash; Error if it leads out of the tree."""
    path = name[2:] if name.startswith(b"./") else name
    path = path.removesuffix(b"/")
    if path in (b"", b".") and name:
        return ""
    if any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise Error(f"the tar archive has the path {text(name)!r}, which leads out of the tree", _HINT)
    return text(path)


def _number(field: bytes) -> int:
    """A number in octal digits, or in binary with the highest bit set (GNU tar)."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise Error("the tar archive has an invalid number", _HINT)
    return int(digits, 8)


def _number_of(extended: dict[bytes, bytes], key: bytes, other: int) -> int:
    """A number from an extended header, or else `other`; seconds lose their fraction."""
    value = extended.get(key)
    if value is None:
        return other
    whole = value.partition(b".")[0]
    if not whole.isdigit() or len(whole) > 15:
        raise Error(f"the tar archive has an invalid {text(key)}", _HINT)
    return int(whole)
