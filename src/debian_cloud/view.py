# SPDX-License-Identifier: GPL-3.0-or-later
"""Views of an image's bytes, from which the readers of formats and file systems read.

Those readers show people what is in an image and where two images differ; only a comparison of their bytes decides
whether two images are equal. Whatever an image holds, every failure is an `Error`, and no more is read or kept than
the image's size allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE: Final = 2**20
"""Bytes that are read at once."""
ENTRIES: Final = 2**18
"""Maximum number of paths in a file system: no image comes near, and memory stays bounded."""
PATHS: Final = 2**26
"""Maximum bytes of all paths together, or of all extended attributes."""


@dataclass(frozen=True, slots=True)
class View:
    """A range of a disk; `start` and `size` in bytes.

    `fetch(offset, size)` reads the disk. `data` are the ranges of the disk that may have other bytes than zeros, as
    (start, end), in order: the rest are holes of the file.
    """

    fetch: Callable[[int, int], bytes]
    start: int
    size: int
    data: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, data: bytes) -> View:
        """A view of bytes in memory."""
        return cls(lambda offset, size: data[offset : offset + size], 0, len(data), ((0, len(data)),))

    def part(self, offset: int, size: int) -> View:
        """A part of this range; Error if it is not within the range."""
        self._within(offset, size)
        return View(self.fetch, self.start + offset, size, self.data)

    def read(self, offset: int, size: int) -> bytes:
        """The bytes at an offset; Error if they are not within the range, or the file ends before them."""
        self._within(offset, size)
        data = self.fetch(self.start + offset, size)
        if len(data) != size:
            raise Error(f"the image ends before byte {self.start + offset + size}", "it was truncated: get it again")
        return data

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """The same, a piece at a time."""
        self._within(offset, size)
        for position in range(offset, offset + size, PIECE):
            yield self.read(position, min(PIECE, offset + size - position))

    def _within(self, offset: int, size: int) -> None:
        if not 0 <= offset <= offset + size <= self.size:
            raise Error(
                f"the image points to bytes {offset} to {offset + size} of a range that has {self.size}",
                "it was damaged or truncated: get it again",
            )


def text(name: bytes) -> str:
    """A file name as a Python string: bytes that are not UTF-8 become surrogates (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")
