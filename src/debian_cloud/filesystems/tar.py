# SPDX-License-Identifier: GPL-3.0-or-later
"""A tar archive of a tree, as GNU tar writes it with --format=pax (POSIX, pax; GNU tar's manual, "Standard")."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.entries import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK, Entry
from debian_cloud.errors import Error
from debian_cloud.filesystems import ENTRIES, PATHS, Finding, View, text

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT: Final = "the image was damaged or tampered with: get it again, or build it again"
_BLOCK: Final = 512
_HARD_LINK: Final = b"1"
_KINDS: Final = {b"0": FILE, b"2": SYMLINK, b"3": CHARACTER, b"4": BLOCK, b"5": DIRECTORY, b"6": FIFO}
# Extended headers: of POSIX for the next member; of GNU for its name, and for its link's.
_PAX, _GNU_NAME, _GNU_LINK = b"x", b"L", b"K"
_EXTENDED: Final = 2**20
"""Bytes of an extended header that are read at most."""
_XATTR: Final = b"SCHILY.xattr."
_ACLS: Final = {
    b"SCHILY.acl.access": "system.posix_acl_access",
    b"SCHILY.acl.default": "system.posix_acl_default",
}
_TIMES: Final = (b"mtime", b"atime", b"ctime")


@dataclass(frozen=True, slots=True)
class _Header:
    """A member's first block; offset of its content, and numbers as they stand."""

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
    """A tree in a tar archive; Error when it is damaged, or names what does not belong in a tree."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._noted: list[Finding] = []
        self._entries: dict[str, Entry] = {}
        self._places: dict[int, tuple[int, int]] = {}
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
        """What a regular file holds; Error when there is none of that path."""
        return b"".join(self.pieces(path))

    def pieces(self, path: str) -> Iterator[bytes]:
        """The same, a piece at a time."""
        entry = self._entries.get(path)
        if entry is None or entry.kind != FILE:
            raise Error(f"the image has no file /{path}", "give the path of a regular file, without a leading slash")
        return self._view.pieces(*self._places[entry.inode])

    def unaccounted(self) -> Iterator[Finding]:
        """Bytes that no member explains."""
        yield from self._noted
        yield from self._view.findings("after the end of the tar archive", self._end, self._view.size - self._end)

    def _members(self) -> int:
        """Read all headers; where the archive ends."""
        at, length, extended = 0, 0, dict[bytes, bytes]()
        before: list[tuple[_Header, int]] = []
        made: int | None = None
        while True:
            raw = self._view.read(at, _BLOCK)
            if not any(raw):
                if extended:
                    raise Error("the tar archive ends within a member", _HINT)
                return at
            header = self._header(raw, at)
            size = _number_of(extended, b"size", header.size)
            place, at = at, at + _BLOCK + (size + _BLOCK - 1) // _BLOCK * _BLOCK
            self._view.part(place, at - place)
            self._note(
                "padding in the tar archive",
                place + _BLOCK + size,
                self._view.read(place + _BLOCK + size, -size % _BLOCK),
            )
            if header.kind in (_PAX, _GNU_NAME, _GNU_LINK):
                length += size
                if size > _EXTENDED or length > PATHS:
                    raise Error("the tar archive has an extended header that is too large", _HINT)
                found = self._extended(header, self._view.read(place + _BLOCK, size))
                if extended.keys() & found.keys():
                    raise Error("the tar archive has an extended header twice", _HINT)
                extended.update(found)
                before.append((header, place))
                continue
            entry = self._entry(header, extended, place, size)
            length += len(entry.path)
            if len(self._entries) >= ENTRIES or length > PATHS:
                raise Error("the tar archive has more paths, or longer ones, than an image can have", _HINT)
            if entry.path in self._entries:
                raise Error(f"the tar archive has /{entry.path} twice", _HINT)
            parent = self._entries.get(entry.path.rpartition("/")[0])
            if entry.path and (parent is None or parent.kind != DIRECTORY):
                raise Error(f"the tar archive has /{entry.path}, and before it no such folder", _HINT)
            self._entries[entry.path] = entry
            name = extended.get(b"path", header.name).removesuffix(b"/")
            for one, where in before:
                # They have the time at which the archive was made.
                made = one.mtime if made is None else made
                if not _is_of(one, name, made) or entry.mtime > made:
                    self._noted.append(
                        Finding(f"the extended header of /{entry.path}", self._view.start + where, _BLOCK)
                    )
            extended, before = {}, []

    def _header(self, raw: bytes, at: int) -> _Header:
        (
            name, mode, uid, gid, size, mtime, checksum, kind, link, magic, user, group, major, minor, prefix, rest,
        ) = struct.unpack("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s", raw)  # fmt: skip
        if _number(checksum) != sum(raw[:148]) + sum(raw[156:]) + 8 * 0x20 or magic not in (
            b"ustar\00000",
            b"ustar  \0",
        ):
            raise Error(f"the tar archive is damaged at byte {self._view.start + at}", _HINT)
        # GNU tar has used a space and a NUL for the last two bytes of a checksum, and other fields in the prefix.
        for field, place in ((name, 0), (link, 157), (prefix, 345)):
            value = field.partition(b"\0")[0]
            self._note("after a name in the tar archive", at + place + len(value), field[len(value) :])
        for field, place in ((user, 265), (group, 297), (rest, 500)):
            self._note("an owner's name in the tar archive", at + place, field)
        for field, place in ((mode, 100), (uid, 108), (gid, 116), (size, 124), (mtime, 136)):
            digits = len(field) - 1
            if field[0] < 0x80 and field != b"%0*o\0" % (digits, _number(field)):
                self._noted.append(Finding("a number in the tar archive", self._view.start + at + place, len(field)))
        if checksum != b"%06o\0 " % _number(checksum):
            self._noted.append(Finding("a checksum in the tar archive", self._view.start + at + 148, 8))
        device = (_number(major), _number(minor))
        for field, value, place in ((major, device[0], 329), (minor, device[1], 337)):
            if field not in (bytes(8), b"%07o\0" % value) or (value and kind not in b"34"):
                self._noted.append(Finding("a device's number in the tar archive", self._view.start + at + place, 8))
        if magic == b"ustar\00000" and prefix[:1] != b"\0":
            name = prefix.partition(b"\0")[0] + b"/" + name
        if kind in (b"2", b"3", b"4", b"5", b"6", _HARD_LINK) and _number(size):
            raise Error(f"the tar archive has content where there is none, at byte {self._view.start + at}", _HINT)
        return _Header(
            name=name.partition(b"\0")[0],
            kind=kind,
            mode=_number(mode),
            uid=_number(uid),
            gid=_number(gid),
            size=_number(size),
            mtime=_number(mtime),
            link=link.partition(b"\0")[0],
            device=device,
        )

    def _extended(self, header: _Header, data: bytes) -> dict[bytes, bytes]:
        """Fields of an extended header: "length key=value" and a newline, each."""
        damaged = Error("the tar archive has an extended header that is damaged", _HINT)
        if header.kind != _PAX:
            return {b"path" if header.kind == _GNU_NAME else b"linkpath": data.rstrip(b"\0")}
        found: dict[bytes, bytes] = {}
        while data:
            length, space, _ = data[:10].partition(b" ")
            if not space or not length.isdigit() or not len(length) + 3 < int(length) <= len(data):
                raise damaged
            record, data = data[len(length) + 1 : int(length)], data[int(length) :]
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
        for key, value in extended.items():
            if key in (b"path", b"linkpath", b"size", b"uid", b"gid") or key.startswith(_XATTR):
                continue
            acl = next((held for name, held in xattrs if name == _ACLS.get(key)), b"")
            if (key not in _TIMES or not value.isdigit()) and not (acl and acl_text(acl).encode() == value):
                self._noted.append(
                    Finding(f"{text(key)} of /{path}, in the tar archive", self._view.start + place, len(value))
                )
        if header.kind == _HARD_LINK:
            target = self._entries.get(_path(link))
            if target is None or target.kind == DIRECTORY:
                raise Error(f"the tar archive has /{path} as a link to nothing before it", _HINT)
            return replace(target, path=path)
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise Error(f"the tar archive has /{path} of a type that is not read here", "make it as GNU tar does")
        if kind == SYMLINK and (not link or b"\0" in link):
            raise Error(f"the tar archive has /{path} as a link to nowhere", _HINT)
        if kind != SYMLINK and link:
            self._noted.append(
                Finding(f"target of /{path}, which is no link", self._view.start + place + 157, len(link))
            )
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

    def _note(self, where: str, offset: int, data: bytes) -> None:
        rest = data.lstrip(b"\0")
        if rest:
            start = self._view.start + offset + len(data) - len(rest)
            self._noted.append(Finding(where, start, len(rest.rstrip(b"\0"))))


def _is_of(extended: _Header, name: bytes, made: int) -> bool:
    """Whether an extended header is as GNU tar makes it for a member, which leaves nothing to choose."""
    if extended.kind != _PAX:
        return (extended.name, extended.link) == (b"././@LongLink", b"")
    folder, slash, last = name.rpartition(b"/")
    expected = (folder if slash else b".") + b"/PaxHeaders/" + last
    # One that is too long for its field is cut off.
    same = extended.name == expected or (len(extended.name) >= 100 and expected.startswith(extended.name))
    return same and (extended.mode, extended.uid, extended.gid, extended.mtime, extended.link) == (
        0o644, 0, 0, made, b"",
    )  # fmt: skip


def acl_text(acl: bytes) -> str:
    """An ACL as acl(5) writes it, with numbers; of the form that getxattr(2) gives (linux/posix_acl_xattr.h)."""
    words = {1: "user:", 2: "user", 4: "group:", 8: "group", 0x10: "mask:", 0x20: "other:"}
    lines = []
    if len(acl) % 8 == 4:
        for tag, mode, owner in struct.iter_unpack("<HHI", acl[4:]):
            who = words.get(tag, "") + (f":{owner}" if tag in (2, 8) else "")
            rights = "".join(letter if mode & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
            lines.append(f"{who}:{rights}")
    return "\n".join(lines)


def _path(name: bytes) -> str:
    """A path without its beginning and its last slash; Error when it leads out of the tree."""
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
        raise Error("the tar archive has a number that is none", _HINT)
    return int(digits, 8)


def _number_of(extended: dict[bytes, bytes], key: bytes, other: int) -> int:
    """A number of an extended header, where it has one: seconds lose their fraction."""
    value = extended.get(key)
    if value is None:
        return other
    whole = value.partition(b".")[0]
    if not whole.isdigit() or len(whole) > 15:
        raise Error(f"the tar archive has a {text(key)} that is none", _HINT)
    return int(whole)
