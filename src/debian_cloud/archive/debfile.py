# SPDX-License-Identifier: GPL-3.0-or-later
"""Strict reader of untrusted .debs, which finds exactly what dpkg would unpack.

apt, dpkg, tar and libarchive differ in what they ignore. Only a .deb that all of them read alike is accepted; any
failure is a refusal. All .debs that Debian and dpkg make are accepted.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_CONTROL: Final = 2**24
"""Maximum bytes of an unpacked control.tar."""
LARGEST_DATA: Final = 2**30
"""Maximum bytes of an unpacked data.tar."""
MOST_ENTRIES: Final = 100_000
"""Maximum entries of one tar."""
_HINT: Final = "build it again with dpkg-deb"
_AR: Final = b"!<arch>\n"
_AR_HEADER: Final = struct.Struct("16s12s6s6s8s10s2s")
"""Name, time, user, group, mode, size and end marker, at offsets that all readers use (ar(5))."""
_AR_FIELDS: Final = re.compile(rb"([a-z.-]+)/? *\0(?:[0-9]+ *\0){3}[0-7]+ *\0([0-9]+) *\0`\n")
_COMPRESSED: Final = ("", ".gz", ".xz", ".zst")
"""The compressions that dpkg reads (deb(5)), without bzip2 and lzma, which are no longer used."""
_MEMBERS: Final = (("debian-binary", ("",)), ("control.tar", _COMPRESSED), ("data.tar", _COMPRESSED))
_BLOCK: Final = 512
_PIECE: Final = 2**20
_LONGEST_NAME: Final = 4096
_REGULAR: Final = (b"0", b"\0")
_LINKS: Final = (b"1", b"2")
_DIRECTORY: Final = b"5"
_LONG: Final = {b"L": "name", b"K": "link"}
"""Entries of GNU tar that hold what does not fit into the next entry's header."""
_POSIX, _GNU = b"ustar\x0000", b"ustar  \0"
_CONTROL_NAME: Final = re.compile(rb"[a-z0-9][a-z0-9.+-]*")
_OCTAL: Final = re.compile(rb" *([0-7]*)[ \0]*")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of a tar, its name without `./`; `content` is that of a regular file, if it is kept."""

    name: bytes
    kind: bytes
    content: bytes


def control(deb: Path) -> bytes:
    """The control file of a .deb; Error if two readers could read it differently (deb(5)).

    The .deb has its three members in order, and no others. In control.tar, `control` is one regular file, and no
    entry could be unpacked over it. data.tar has only what dpkg unpacks. All unpacking has a size limit.
    """
    with deb.open("rb") as file:
        _members(deb.name, file)
    found: dict[bytes, bytes] = {}
    for entry in _entries(deb, "control.tar", "--ctrl-tarfile", LARGEST_CONTROL):
        if entry.kind == _DIRECTORY and not entry.name:
            continue
        if entry.kind not in _REGULAR or not _CONTROL_NAME.fullmatch(entry.name):
            raise Error(f"{deb.name} has an entry {printable(entry.name)!r} that a control.tar may not have", _HINT)
        found[entry.name] = entry.content
    if b"control" not in found:
        raise Error(f"{deb.name} has no control file", _HINT)
    for entry in _entries(deb, "data.tar", "--fsys-tarfile", LARGEST_DATA):
        if entry.kind not in (*_REGULAR, *_LINKS, _DIRECTORY):
            raise Error(f"{deb.name} has {printable(entry.name)!r}, a device or a pipe", "a package may not ship one")
    return found[b"control"]


def _members(name: str, file: IO[bytes]) -> None:
    """Raise Error if an ar(1) archive has other members than a .deb."""
    damaged = Error(f"{name} is not a package: it lacks the three members of deb(5) in order", _HINT)
    if file.read(len(_AR)) != _AR:
        raise damaged
    for member, suffixes in _MEMBERS:
        header = file.read(_AR_HEADER.size)
        if len(header) < _AR_HEADER.size:
            raise damaged
        match = _AR_FIELDS.fullmatch(b"\0".join(_AR_HEADER.unpack(header)))
        if match is None:
            raise damaged
        found, size = match[1].decode(), int(match[2])
        if not found.startswith(member) or found.removeprefix(member) not in suffixes:
            raise Error(f"{name} has a member {found} instead of {member}.xz", _HINT)
        if member == "debian-binary":
            if size != 4 or file.read(4) != b"2.0\n":
                raise Error(f"{name} has another version of the format than 2.0", _HINT)
        else:
            file.seek(size, 1)
        if size % 2 and file.read(1) != b"\n":
            raise damaged
    here = file.tell()
    if here != file.seek(0, 2):
        raise Error(f"{name} is truncated, or has data after its last member", _HINT)


def _entries(deb: Path, what: str, option: str, largest: int) -> Iterator[_Entry]:
    """The entries of one of the two tars; Error if it is damaged, truncated, too large, or of another format."""
    names: set[bytes] = set()
    # More threads would take more memory, in an unknown amount.
    with run.printing(("dpkg-deb", "--threads-max=1", option, str(deb))) as file:
        reader = _Reader(f"the {what} of {deb.name}", file, largest)
        for entry in reader.entries(keep=largest == LARGEST_CONTROL):
            if entry.name in names:
                raise Error(f"{deb.name} has {printable(entry.name)!r} twice in its {what}", _HINT)
            names.add(entry.name)
            if len(names) > MOST_ENTRIES:
                raise Error(f"the {what} of {deb.name} has more than {MOST_ENTRIES} entries", _HINT)
            yield entry


class _Reader:
    """A tar as GNU tar and dpkg both read it, from a pipe that may never end."""

    def __init__(self, what: str, file: IO[bytes], largest: int) -> None:
        self._what = what
        self._file = file
        self._left = largest

    def entries(self, *, keep: bool) -> Iterator[_Entry]:
        """Yield each entry, up to the end that tar(5) requires."""
        long: dict[str, bytes] = {}
        while any(header := self._read(_BLOCK)):
            name, kind, size = self._header(header)
            if kind in _LONG:
                if _LONG[kind] in long or not 1 < size <= _LONGEST_NAME:
                    raise self._damaged()
                text = self._content(size, keep=True)
                if not text.endswith(b"\0") or b"\0" in text[:-1]:
                    raise self._damaged()
                long[_LONG[kind]] = text[:-1]
                continue
            # If an entry has a size but no content, some readers skip that many bytes, and others do not.
            if size and kind not in _REGULAR:
                raise self._damaged()
            path = self._path(long.get("name", name), kind)
            long = {}
            yield _Entry(path, kind, self._content(size, keep=keep))
        if long or any(self._read(_BLOCK)):
            raise self._damaged()
        while piece := self._file.read(_PIECE):
            self._left -= len(piece)
            if self._left < 0 or any(piece):
                raise self._damaged()

    def _header(self, header: bytes) -> tuple[bytes, bytes, int]:
        """Name, kind and size."""
        name, size, checksum, kind = header[:100], header[124:136], header[148:156], header[156:157]
        magic, prefix = header[257:265], header[345:500].rstrip(b"\0")
        added = sum(header) - sum(checksum) + 8 * 0x20
        if magic not in (_POSIX, _GNU) or self._number(checksum) != added or (prefix and magic == _GNU):
            raise self._damaged()
        name = name.partition(b"\0")[0]
        # For dpkg an empty name is the end of the tar; for tar it is not.
        if not name:
            raise self._damaged()
        return prefix + b"/" * bool(prefix) + name, kind, self._number(size)

    def _path(self, name: bytes, kind: bytes) -> bytes:
        """The name without `./`; Error if it leads elsewhere, or ends like that of another kind."""
        path = name
        if kind == _DIRECTORY:
            path = b"" if name in (b".", b"./") else name.removesuffix(b"/")
        path = path.removeprefix(b"./")
        parts = path.split(b"/") if path or kind != _DIRECTORY else []
        if {b"", b".", b".."} & {*parts} or re.search(rb"[\0-\x1f\x7f]", path):
            raise Error(f"{self._what} has an entry {printable(name)!r}, which is not a path of a package", _HINT)
        return path

    def _content(self, size: int, *, keep: bool) -> bytes:
        """The content of an entry; the padding of its last block is read, too."""
        pieces = []
        left = size
        while left:
            piece = self._read(min(left, _PIECE))
            left -= len(piece)
            if keep:
                pieces.append(piece)
        self._read(-size % _BLOCK)
        return b"".join(pieces)

    def _number(self, field: bytes) -> int:
        match = _OCTAL.fullmatch(field)
        if match is None:
            raise self._damaged()
        return int(match[1] or b"0", 8)

    def _read(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        self._left -= size
        if self._left < 0:
            raise Error(f"{self._what} is larger than any package of this archive may be", _HINT)
        data = self._file.read(size)
        if len(data) < size:
            raise Error(f"{self._what} is truncated, or is not a tar archive", _HINT)
        return data

    def _damaged(self) -> Error:
        return Error(f"{self._what} is damaged, or dpkg and tar read it differently", _HINT)
