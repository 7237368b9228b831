# SPDX-License-Identifier: GPL-3.0-or-later
"""Untrusted files, read with bounds: none of them can block the reader, or take more memory than it may.

Only regular files are opened, only a limited number of bytes is read, and decoders decompress as their output is
read. The limit of an index is the size that its signed release file gives.
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
"""Maximum bytes of a text file: a .buildinfo has about 200 KiB, and so has a Release file of Debian."""
LARGEST_PACKAGE: Final = 2**32
"""Maximum bytes of a .deb; the format itself (deb(5)) allows less than ten times that."""
_MEMORY: Final = 2**27
"""Maximum bytes of memory for the xz decoder: `xz -9` needs half of that (xz(1))."""
_PIECE: Final = 2**16
_LINKS: Final = 40
"""Maximum number of symlinks on one path: as many as the kernel follows (path_resolution(7))."""
BROKEN: Final = (lzma.LZMAError, zlib.error, EOFError, OSError)
"""Exceptions that reading a damaged compressed stream raises."""


@contextlib.contextmanager
def opened(path: Path, what: str = "") -> Iterator[IO[bytes]]:
    """Open a regular file for reading; Error if it is a FIFO, a device or a directory, or cannot be opened.

    A symlink to a regular file is followed. `what` names the kind of file for the message, as in "keyring NAME cannot
    be read".
    """
    name = f"{what} {printable(str(path))}".lstrip()
    try:
        # Merely opening some devices has an effect, and without O_NONBLOCK, opening a FIFO without a writer blocks.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        regular = stat.S_ISREG(mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if regular else -1
    except OSError as error:
        raise Error(
            f"{name} cannot be read: {error.strerror}",
            f"give an existing {what or 'file'} that you may read",
            USAGE,
        ) from None
    except ValueError:  # a name with a NUL
        regular, descriptor = False, -1
    with contextlib.ExitStack() as stack:
        if regular:
            file = stack.enter_context(os.fdopen(descriptor, "rb"))
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if not regular:
            raise Error(f"{name} is not a regular file", "give the file itself")
        yield file


def read(path: Path, limit: int = LARGEST_TEXT, what: str = "") -> bytes:
    """The content of a regular file, read once; Error if it is not one, or has more bytes than `limit`."""
    with opened(path, what) as file:
        return _content(path, file, limit)


def text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """The text of a regular file in UTF-8; Error if it is not one, or has more bytes than `limit`."""
    try:
        return read(path, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise Error(
            f"{printable(str(path))} is not UTF-8 text", "convert it to UTF-8 (Debian Policy 5.1)", USAGE
        ) from None


def refuse_changeable(path: Path, what: str = "which keys are trusted", hint: str = "") -> None:
    """Raise Error if any user but this one and root can change what a path leads to; not if the path does not exist.

    The Error says that they could change `what`.

    Each directory and symlink on the way is checked. In a sticky directory to which others may write, such as /tmp,
    only the entries that others own are refused. A group whose only member is the owner, as a user private group,
    does not count as others.
    """
    way = [*_way(path)]
    for place in way:
        try:
            found = place.lstat()
        except OSError:
            return
        if found.st_uid not in (0, os.geteuid()):
            raise Error(
                f"{printable(str(place))} belongs to {_user(found.st_uid)}, who could change {what}",
                hint or "make you or root its owner",
                USAGE,
            )
        if stat.S_ISLNK(found.st_mode) or (found.st_mode & stat.S_ISVTX and place != way[-1]):
            continue
        if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _own_group(found)):
            raise Error(
                f"{printable(str(place))} can be written by other users, who could change {what}",
                hint or f"run chmod go-w {printable(str(place))}",
                USAGE,
            )


def _way(path: Path) -> Iterator[Path]:
    """Each directory and symlink on the way of a path, from the root to the file that it names."""
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
    """Whether the group of a file has no member but the file's owner (USERGROUPS_ENAB of login.defs(5))."""
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


def user_directory(variable: str, below: str) -> Path | None:
    """The directory that a variable names, or `below` the home directory; None if there is no home.

    A relative path in the variable is ignored (XDG Base Directory Specification).
    """
    if (given := os.environ.get(variable, "")).startswith("/"):
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / below if home.is_absolute() else None


def unpacked(path: Path, limit: int) -> bytes:
    """The uncompressed content of a file (`FORMS`, by its suffix); Error if it is more than `limit` bytes."""
    with opened(path) as file:
        try:
            return _content(path, decompressed(file, path.suffix), limit)
        except BROKEN:
            raise Error(f"{printable(str(path))} is damaged", "get it again") from None


def decompressed(file: IO[bytes], form: str) -> IO[bytes]:
    """The uncompressed stream of a file whose suffix is `form`; it is decompressed as it is read, never all at once.

    Damaged data raises LZMAError, zlib.error, EOFError or OSError as it is read.
    """
    return FORMS[form](file)


def streams(file: IO[bytes], name: str) -> IO[bytes]:
    """The uncompressed content of one stream, or of several with zeros between; `name` is one of DECODERS.

    As Python's own readers, but other data after the streams raises an exception instead of being ignored.
    """
    return io.BufferedReader(_Streams(file, DECODERS[name]), _PIECE)


class _Streams(io.RawIOBase):
    """One stream or several in sequence (the .xz file format, 2), decompressed by bounded decoders."""

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
        """The beginning of the next stream, after the padding with zeros; b"" at the end."""
        fresh = self._decoder.unused_data or self._file.read(_PIECE)
        while fresh and not (fresh := fresh.lstrip(b"\0")):
            fresh = self._file.read(_PIECE)
        return fresh


DECODERS: Final[dict[str, Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]]] = {
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY),
    "bzip2": bz2.BZ2Decompressor,
}
"""Name of the compressing tool -> a function that makes a decoder."""

FORMS: Final[dict[str, Callable[[IO[bytes]], IO[bytes]]]] = {
    ".xz": lambda file: streams(file, "xz"),
    ".gz": lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast("IO[bytes]", bz2.BZ2File(file)),
    "": lambda file: file,
}
"""Suffix of a file's name -> a function that opens the uncompressed stream."""


def _content(path: Path, file: IO[bytes], limit: int) -> bytes:
    """All of a stream; Error if it is more than `limit` bytes. Memory is allocated as it is needed."""
    pieces, left = [], limit
    while piece := file.read(min(_PIECE, left + 1)):
        left -= len(piece)
        if left < 0:
            raise Error(f"{printable(str(path))} has more than {limit} bytes", "it was swapped, or is another file")
        pieces.append(piece)
    return b"".join(pieces)
