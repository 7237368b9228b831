# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed files: .xz (The .xz file format, 1.1.0) and .gz (RFC 1952), read from views within bounds. Pure."""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.view import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debian_cloud.view import View

XZ: Final = b"\xfd7zXZ\0"
"""The first bytes of a .xz."""
GZ: Final = b"\x1f\x8b\x08"
"""The first bytes of a .gz that is compressed by deflate."""
HINT: Final = "upload the file that `debian-cloud build` made"

# The .xz file format, 2.1: header and footer of a stream are 12 bytes each.
_ENDS: Final = 12
_INDEX: Final = 2**20
"""Maximum bytes of the index: that of 64 GiB in blocks of 16 MiB has about 40 KiB."""
_CHECKED: Final = 2**27
"""Maximum bytes of memory for unpacking an upload: ten times what the builder's preset takes."""
_MEMORY: Final = 2**29
"""The same for an image that a user gives."""


def xz_size(name: str, view: View) -> int:
    """The bytes of a .xz when unpacked, from its index; Error unless it is one complete stream."""
    if view.size < 2 * _ENDS:
        raise Error(f"{name} is truncated", "upload the complete file")
    _, words, _, end = struct.unpack("<II2s2s", view.read(view.size - _ENDS, _ENDS))
    length = 4 * (words + 1)
    if end != b"YZ" or not length <= min(_INDEX, view.size - 2 * _ENDS):
        raise Error(f"{name} is truncated", "upload the complete file")
    packed, unpacked = _sizes(view.read(view.size - _ENDS - length, length))
    if packed + length + 2 * _ENDS != view.size:
        raise Error(f"{name} is not one complete .xz", HINT)
    return unpacked


def is_xz(view: View) -> bool:
    """Whether a file begins as a .xz."""
    return view.read(0, min(view.size, len(XZ))) == XZ


def xz_head(name: str, view: View, length: int) -> bytes:
    """The first `length` bytes of a .xz when unpacked, or fewer; Error if its first MiB cannot be unpacked."""
    try:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_CHECKED)
        return decompressor.decompress(view.read(0, min(view.size, PIECE)), length)
    except lzma.LZMAError:
        raise Error(f"{name} cannot be unpacked", HINT) from None


def xz(name: str, view: View) -> Iterator[bytes]:
    """The content of a .xz, a piece at a time; Error if it is damaged."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    position = 0
    try:
        while not decompressor.eof:
            piece = b""
            if decompressor.needs_input:
                piece = view.read(position, min(PIECE, view.size - position))
                if not piece:
                    raise _damaged(name)
                position += len(piece)
            yield decompressor.decompress(piece, PIECE)
    except lzma.LZMAError:
        raise _damaged(name) from None


def gz(name: str, view: View) -> Iterator[bytes]:
    """The content of a .gz of one member, a piece at a time; Error if it is damaged, or something follows it."""
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    position, left = 0, b""
    try:
        while not decompressor.eof:
            if not left:
                left = view.read(position, min(PIECE, view.size - position))
                if not left:
                    raise _damaged(name)
                position += len(left)
            data = decompressor.decompress(left, PIECE)
            left = decompressor.unconsumed_tail
            yield data
    except zlib.error:
        raise _damaged(name) from None
    if decompressor.unused_data or position < view.size:
        raise _damaged(name)


class Reader:
    """Pieces of a stream, taken in other sizes."""

    def __init__(self, name: str, pieces: Iterator[bytes]) -> None:
        self._name = name
        self._pieces = pieces
        self._held = b""

    def read(self, size: int) -> bytes:
        """The next bytes; Error if the stream ends before."""
        while len(self._held) < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise _damaged(self._name)
            self._held += piece
        data, self._held = self._held[:size], self._held[size:]
        return data

    def rest(self) -> Iterator[bytes]:
        """What is left, to the end of the stream."""
        yield self._held
        self._held = b""
        yield from self._pieces


def _damaged(name: str) -> Error:
    return Error(f"{name} is damaged: it cannot be decompressed", "get it again")


def _sizes(index: bytes) -> tuple[int, int]:
    """Bytes of all blocks, packed and unpacked, from an index (The .xz file format, 4); -1 twice if it is damaged."""
    numbers = []
    value, shift = 0, 0
    # The numbers are followed by padding and a CRC32.
    for byte in index[1:-4]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value, shift = 0, 0
        elif shift > 56:
            return -1, -1
    if index[0] or not numbers or len(numbers) < 1 + 2 * numbers[0]:
        return -1, -1
    count = numbers[0]
    # A block is padded to four bytes, which its size in the index does not include.
    return sum(-(-size // 4) * 4 for size in numbers[1 : 1 + 2 * count : 2]), sum(numbers[2 : 2 + 2 * count : 2])
