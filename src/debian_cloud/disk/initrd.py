# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an initrd: cpio archives in sequence, compressed or not (the kernel's initramfs-buffer-format)."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Unpack = Callable[[str, IO[bytes]], IO[bytes]]
    """Name of a compression, and a file at its first byte -> the uncompressed stream."""

_HEADER: Final = 110
_NEWC: Final = (b"070701", b"070702")
_LONGEST_NAME: Final = 4096
_PIECE: Final = 2**20
MOST: Final = 2**32
"""Maximum bytes of an uncompressed initrd, all of which the kernel keeps in memory."""
COMPRESSIONS: Final = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x89LZO": "lzop",
    b"\x5d\0\0": "lzma",
}
"""First bytes -> the compression (the kernel's lib/decompress.c)."""
_MAGIC: Final = max(map(len, COMPRESSIONS))


class UnreadableError(Exception):
    """The data is not an initrd of a known format."""


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file; `content` is at most as many bytes as were asked for."""

    path: str
    size: int
    mode: int
    content: bytes


def members(source: IO[bytes], unpack: Unpack, longest: int) -> Iterator[Member]:
    """The regular files of an initrd, with the first `longest` bytes of each; UnreadableError says what is wrong.

    `source` can seek, because compressed data extends to its end.
    """
    position = _Counted(source)
    while True:
        magic = _next(position)
        if not magic:
            return
        if magic.startswith(_NEWC):
            yield from _archive(position, magic, longest)
            continue
        name = next((name for first, name in COMPRESSIONS.items() if magic.startswith(first)), "")
        if not name:
            raise UnreadableError(f"its data from byte {position.at - len(magic)} on is not an archive")
        source.seek(position.at - len(magic))
        yield from _plain(unpack(name, source), longest)
        return


def _plain(source: IO[bytes], longest: int) -> Iterator[Member]:
    """The files of uncompressed data: only archives, because the kernel accepts no compressed archive in one."""
    position = _Counted(source)
    while magic := _next(position):
        if not magic.startswith(_NEWC):
            raise UnreadableError("its compressed content is not an archive")
        yield from _archive(position, magic, longest)
    if not position.at:
        raise UnreadableError("its compressed content is empty")


class _Counted:
    """A stream that counts the bytes read, and never reads more than MOST."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        self.at = 0

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        self.at += len(data)
        if self.at > MOST:
            raise UnreadableError(f"it has more than {MOST} bytes")
        return data

    def whole(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) < size:
            raise UnreadableError("it is truncated")
        return data

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self.whole(min(size, _PIECE)))


def _next(source: _Counted) -> bytes:
    """The first bytes of the next archive, after zeros and aligned to four bytes; b"" at the end."""
    source.skip(-source.at % 4)
    while (word := source.read(4)) == bytes(4):
        pass
    return word + source.read(_MAGIC - len(word)) if word.strip(b"\0") else b""


def _archive(source: _Counted, first: bytes, longest: int) -> Iterator[Member]:
    while True:
        header = first + source.whole(_HEADER - len(first))
        if not header.startswith(_NEWC):
            raise UnreadableError(f"an archive in it is damaged at byte {source.at - _HEADER}")
        try:
            numbers = [int(header[at : at + 8], 16) for at in range(6, _HEADER, 8)]
        except ValueError:
            raise UnreadableError(f"an archive in it is damaged at byte {source.at - _HEADER}") from None
        mode, size, length = numbers[1], numbers[6], numbers[11]
        if not 0 < length <= _LONGEST_NAME:
            raise UnreadableError(f"an archive in it is damaged at byte {source.at - _HEADER}")
        path = source.whole(length).rstrip(b"\0").decode("utf-8", "surrogateescape")
        source.skip(-(_HEADER + length) % 4)
        if path == "TRAILER!!!":
            source.skip(size)
            return
        content = source.whole(min(size, longest))
        source.skip(size - len(content))
        source.skip(-size % 4)
        if stat.S_ISREG(mode):
            yield Member(path.removeprefix("./").lstrip("/"), size, stat.S_IMODE(mode), content)
        first = b""
