# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system entries that a .deb would install."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Final, TypeVar, cast

from debian_cloud.errors import Error
from debian_cloud.host import files
from debian_cloud.image import entries
from debian_cloud.image.entries import Entry
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_Name = TypeVar("_Name")
_AR: Final = b"!<arch>\n"
_HEADER: Final = 60
_PIECE: Final = 2**20
_CONTROL: Final = 2**26
_DATA: Final = 2**34
"""Most bytes of a .deb's two tar archives, unpacked: many times what Debian's largest have."""
_KINDS: Final = {
    tarfile.REGTYPE: entries.FILE,
    tarfile.AREGTYPE: entries.FILE,
    tarfile.LNKTYPE: entries.FILE,
    tarfile.SYMTYPE: entries.SYMLINK,
    tarfile.DIRTYPE: entries.DIRECTORY,
    tarfile.CHRTYPE: entries.CHARACTER,
    tarfile.BLKTYPE: entries.BLOCK,
    tarfile.FIFOTYPE: entries.FIFO,
}
_LARGEST_CONTROL: Final = 2**26
"""Most bytes of one file of a control archive; the longest md5sums of Debian have a tenth of that."""
_MOST_CONTROL: Final = 100
"""Most files of a control archive."""
_LARGEST_HEADER: Final = 2**20
"""Most bytes that tarfile itself keeps of one entry, such as a long name."""
_MOST: Final = (2**34, 2**21)
"""Most bytes, and most entries, that a .deb may unpack to: no package of Debian has a quarter of either."""
_BROKEN: Final = (
    *(tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError, ValueError, KeyError, RecursionError),
)
_INFO: Final = "var/lib/dpkg/info"
"""Where dpkg keeps the control files of a package."""
# Since the /usr merge these are symlinks, and a package's files there are in /usr (Debian Policy 9.1.1, usrmerge).
_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class _Bounded(tarfile.TarInfo):
    """A tar entry of which tarfile reads no more into memory than a name needs."""

    # The entry point "which can be overridden in a subclass" (tarfile.py); the code that calls it changed with a
    # security update of Python.
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in _KINDS and self.size > _LARGEST_HEADER:
            raise tarfile.ReadError(self.name)
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


def read_all(debs: Mapping[_Name, Path]) -> dict[_Name, tuple[str, tuple[Entry, ...]]]:
    """Return the SHA-256 of each .deb and its entries, by its name in `debs`. Two are read at a time."""
    # Decompression and hashing release the interpreter's lock.
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(debs, pool.map(read, debs.values()), strict=True))


def read(deb: Path) -> tuple[str, tuple[Entry, ...]]:
    """Return the SHA-256 of a .deb and its entries; raise Error if it is not one (deb(5))."""
    content = files.read(deb, files.LARGEST_PACKAGE)
    try:
        with _archive(content, "control.tar", deb.name, _CONTROL) as archive:
            control = tuple(_control(archive))
        with _archive(content, "data.tar", deb.name, _DATA) as archive:
            found = (*_entries(archive), *control)
    except _BROKEN:
        raise Error(f"{printable(deb.name)} is damaged", "fetch it again") from None
    return hashlib.sha256(content).hexdigest(), found


class _Limited:
    """A stream of which at most `left` bytes can be read."""

    def __init__(self, file: IO[bytes], left: int, name: str) -> None:
        self._file, self._left, self._name = file, left, name

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Error(f"the content of {self._name} is larger than a package can be", "fetch it again")
        return data


def _archive(content: bytes, wanted: str, name: str, most: int) -> tarfile.TarFile:
    """Return a tar archive of a .deb, open to be read once."""
    stream = _Limited(_member(content, wanted, name), most, name)
    return tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", tarinfo=_Bounded)


def holds(deb: Path) -> tuple[int, int]:
    """Return how many bytes and how many files a .deb would unpack to; raise Error if it is not one."""
    content = files.read(deb, files.LARGEST_PACKAGE)
    total = count = 0
    try:
        for part, most in (("control.tar", _CONTROL), ("data.tar", _DATA)):
            with _archive(content, part, deb.name, most) as archive:
                for member in archive:
                    total, count = total + member.size, count + 1
                    if total > _MOST[0] or count > _MOST[1]:
                        return total, count
    except _BROKEN:
        raise Error(f"{printable(deb.name)} is damaged", "fetch it again") from None
    return total, count


def _member(content: bytes, wanted: str, name: str) -> IO[bytes]:
    """Return a member of a .deb, open and decompressed (deb(5), ar(5))."""
    position = len(_AR)
    while content.startswith(_AR) and position + _HEADER <= len(content):
        header = content[position : position + _HEADER]
        # int() also accepts a sign, and a negative size would move backwards.
        if not header[48:58].strip().isdigit():
            raise ValueError(name)
        size = int(header[48:58])
        member = header[:16].decode("ascii").strip().rstrip("/")
        position += _HEADER
        if member.startswith(wanted) and (suffix := member.removeprefix(wanted)) in files.FORMS:
            return files.decompressed(io.BytesIO(content[position : position + size]), suffix)
        position += size + size % 2
    raise Error(f"{printable(name)} is not a readable .deb", f"it needs a member {wanted}.xz: deb(5)")


def _control(archive: tarfile.TarFile) -> Iterator[Entry]:
    """Yield the maintainer scripts, conffiles, md5sums and so on, where dpkg keeps them (deb-control(5))."""
    members: dict[str, tuple[int, bytes]] = {}
    for member in archive:
        if member.isreg():
            file = archive.extractfile(member)
            assert file is not None
            if member.size > _LARGEST_CONTROL or len(members) > _MOST_CONTROL:
                raise ValueError(member.name)
            members[member.name.removeprefix("./")] = (member.mode & 0o7777, file.read())
    (fields,) = deb822.parse(members.pop("control")[1].decode())
    name = fields["Package"]
    if fields.get("Multi-Arch") == "same":
        name += f":{fields['Architecture']}"
    for member_name, (mode, content) in members.items():
        digest = hashlib.sha256(content).hexdigest()
        yield Entry(f"{_INFO}/{name}.{member_name}", entries.FILE, mode, 0, 0, size=len(content), sha256=digest)


def _entries(archive: tarfile.TarFile) -> Iterator[Entry]:
    seen: dict[str, Entry] = {}
    total = 0
    for member in archive:
        total += member.size
        if total > _MOST[0] or len(seen) >= _MOST[1]:
            raise ValueError(member.name)
        path = merged(member.name.removeprefix("./").strip("/"))
        path = "" if path == "." else path
        entry = Entry(
            path,
            _KINDS[member.type],
            member.mode & 0o7777,
            member.uid,
            member.gid,
            int(member.mtime),
            target=member.linkname if member.issym() else "",
            device=(member.devmajor, member.devminor) if member.ischr() or member.isblk() else (0, 0),
        )
        if member.islnk():
            first = seen[merged(member.linkname.removeprefix("./"))]
            entry = replace(first, path=path)
        elif member.isreg():
            file = archive.extractfile(member)
            assert file is not None
            hashed = hashlib.sha256()
            while piece := file.read(_PIECE):
                hashed.update(piece)
            entry = replace(entry, size=member.size, sha256=hashed.hexdigest())
        seen[path] = entry
        yield entry


def merged(path: str) -> str:
    """Return where a path is now that /bin and the like are symlinks to /usr."""
    first, slash, rest = path.partition("/")
    return f"usr/{first}/{rest}" if slash and first in _MERGED else path


def by_path(manifests: Iterable[tuple[str, Iterable[Entry]]]) -> dict[str, list[tuple[str, Entry]]]:
    """Return path -> each package that ships it, with what it ships there."""
    found: dict[str, list[tuple[str, Entry]]] = {}
    for package, shipped in manifests:
        for entry in shipped:
            found.setdefault(entry.path, []).append((package, entry))
    return found
