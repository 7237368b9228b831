# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that others made, read with a bound: nothing in their place makes us wait, or takes more than it may.

Only regular files are opened, at most so many bytes of them are read, and decoders make bytes as they are read. Of
an index the bound is the size that its signed release file gives.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import grp
import gzip
import io
import lzma
import os
import pwd
import stat
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from debian_cloud.errors import USAGE, Error
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGEST_TEXT: Final = 2**24
"""Bytes of a text that one file is: a .buildinfo has some 200 KiB, a Release of Debian some 200 KiB, too."""
LARGEST_PACKAGE: Final = 2**32
"""Bytes of a .deb; deb(5)'s own archives hold less than ten times that."""
_MEMORY: Final = 2**27
"""Bytes that xz's own decoder may take: `xz -9` needs half of that (xz(1))."""
_PIECE: Final = 2**16
_LINKS: Final = 40
"""Links that one path may lead through: as many as the kernel follows (path_resolution(7))."""
BROKEN: Final = (lzma.LZMAError, zlib.error, EOFError, OSError)
"""What a damaged compressed stream raises as it is read."""


@contextlib.contextmanager
def opened(path: Path, what: str = "") -> Iterator[IO[bytes]]:
    """A regular file, open for reading; Error when it is a FIFO, a device, a folder, or not to be had.

    A link is followed to such a file. `what` it should be says the sentence, as in "keyring NAME cannot be read".
    """
    name = f"{what} {printable(str(path))}".lstrip()
    try:
        # Opening alone makes some devices act, and without O_NONBLOCK a FIFO without a writer never opens.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        regular = stat.S_ISREG(mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if regular else -1
    except OSError as error:
        raise Error(
            f"{name} cannot be read: {error.strerror}",
            f"give a {what or 'file'} that is there, and that you may read",
            USAGE,
        ) from None
    except ValueError:  # a name with a NUL
        regular, descriptor = False, -1
    with contextlib.ExitStack() as stack:
        if regular:
            file = stack.enter_context(os.fdopen(descriptor, "rb"))
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if not regular:
            raise Error(f"{name} is not a regular file", "give the file itself, and no way to one")
        yield file


def read(path: Path, limit: int = LARGEST_TEXT, what: str = "") -> bytes:
    """The content of a regular file, read once; Error when it is none, or has more bytes than `limit`."""
    with opened(path, what) as file:
        return _content(path, file, limit)


def text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """The text of a regular file in UTF-8; Error when it is none, or has more bytes than `limit`."""
    try:
        return read(path, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise Error(
            f"{printable(str(path))} is not UTF-8 text", "Debian's own files are (Debian Policy 5.1)", USAGE
        ) from None


def refuse_changeable(path: Path) -> None:
    """Error when somebody besides this user and root can change what a path leads to; nothing where it is not there.

    Each directory and link on the way counts. A directory where others may write and that is sticky, as /tmp is,
    counts for the entries that others own; a group with nobody in it but the owner, as user groups are, is nobody
    else.
    """
    way = [*_way(path)]
    for place in way:
        try:
            found = place.lstat()
        except OSError:
            return
        if found.st_uid not in (0, os.geteuid()):
            raise Error(
                f"{printable(str(place))} belongs to {_user(found.st_uid)}, who could change what is read there",
                "what decides whose signatures count belongs to you or to root",
                USAGE,
            )
        if stat.S_ISLNK(found.st_mode) or (found.st_mode & stat.S_ISVTX and place != way[-1]):
            continue
        if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _own_group(found)):
            raise Error(
                f"{printable(str(place))} can be written by others, who could change what is read there",
                f"chmod go-w {printable(str(place))}",
                USAGE,
            )


def _way(path: Path) -> Iterator[Path]:
    """Each directory and link that a path leads through, from the root to what it names."""
    left = [*reversed(path.absolute().parts)]
    here, links = Path(left.pop()), 0
    yield here
    while left:
        part = left.pop()
        here = here.parent if part == ".." else here / part
        yield here
        with contextlib.suppress(OSError):
            target = here.readlink()
            links += 1
            if links > _LINKS:
                return
            left += reversed(target.parts)
            here = Path(left.pop()) if target.is_absolute() else here.parent


def _own_group(found: os.stat_result) -> bool:
    """Whether the group of a file is its owner's own, with nobody else in it (USERGROUPS_ENAB of login.defs(5))."""
    if found.st_uid == found.st_gid == 0:
        return True
    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    others = any(user.pw_gid == group.gr_gid and user.pw_uid != owner.pw_uid for user in pwd.getpwall())
    return group.gr_gid == owner.pw_gid and {*group.gr_mem} <= {owner.pw_name} and not others


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def unpacked(path: Path, limit: int) -> bytes:
    """What a compressed file holds (`FORMS`, by the end of its name); Error when that is more than `limit` bytes."""
    with opened(path) as file:
        try:
            return _content(path, decompressed(file, path.suffix), limit)
        except BROKEN:
            raise Error(f"{printable(str(path))} is damaged", "get it again") from None


def decompressed(file: IO[bytes], form: str) -> IO[bytes]:
    """The stream that is in a compressed one of a form; bytes are made as they are read, and never all of them.

    What is damaged raises LZMAError, zlib.error, EOFError or OSError as it is read.
    """
    return FORMS[form](file)


def streams(file: IO[bytes], name: str) -> IO[bytes]:
    """What is in one stream, or in several after each other with zeros between; `name` is one of DECODERS.

    As Python's own readers, but what comes after them and is none raises, too: it is not passed over.
    """
    return io.BufferedReader(_Streams(file, DECODERS[name]), _PIECE)


class _Streams(io.RawIOBase):
    """Streams, one or several after each other (the .xz file format, 2), by bounded decoders."""

    def __init__(self, file: IO[bytes], new: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]) -> None:
        self._file = file
        self._new = new
        self._decoder = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        while view:
            fresh = b""
            if self._decoder.eof:
                fresh = self._next()
                if not fresh:
                    return 0
                self._decoder = self._new()
            elif self._decoder.needs_input:
                fresh = self._file.read(_PIECE)
                if not fresh:
                    raise EOFError
            if piece := self._decoder.decompress(fresh, len(view)):
                view[: len(piece)] = piece
                return len(piece)
        return 0

    def _next(self) -> bytes:
        """The beginning of another stream, after the padding: zeros, four at a time."""
        fresh = self._decoder.unused_data or self._file.read(_PIECE)
        while fresh and not (fresh := fresh.lstrip(b"\0")):
            fresh = self._file.read(_PIECE)
        return fresh


DECODERS: Final[dict[str, Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]]] = {
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY),
    "bzip2": bz2.BZ2Decompressor,
}
"""By the name of the tool that compresses."""

FORMS: Final[dict[str, Callable[[IO[bytes]], IO[bytes]]]] = {
    ".xz": lambda file: streams(file, "xz"),
    ".gz": lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast("IO[bytes]", bz2.BZ2File(file)),
    "": lambda file: file,
}
"""By the end of a name."""


def _content(path: Path, file: IO[bytes], limit: int) -> bytes:
    """All of a stream, if that is not more than `limit` bytes; memory is taken as it is needed."""
    pieces, left = [], limit
    while piece := file.read(min(_PIECE, left + 1)):
        left -= len(piece)
        if left < 0:
            raise Error(
                f"{printable(str(path))} has more than {limit} bytes", "it is not what it should be, or was swapped"
            )
        pieces.append(piece)
    return b"".join(pieces)
