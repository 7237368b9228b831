# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of an image, as whoever reads a format or a file system of it gets them.

Those readers are for people who want to know what is in an image and where two
differ; whether two are the same is decided by their bytes alone. Whatever an
image holds, all that goes wrong is an `Error`, and no more is read or kept than
its size allows.
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
"""Paths that a file system may have: no image comes near, and memory stays bounded."""
PATHS: Final = 2**26
"""Bytes that all paths, or all extended attributes, may have together."""


@dataclass(frozen=True, slots=True)
class View:
    """A range of a disk; `start` and `size` in bytes.

    `fetch(offset, size)` reads the disk. `data` are the ranges of the disk, as
    (start, end), that may be other than zero, in order: the rest are holes of
    the file.
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
        """A range of this range; Error where it does not lie within."""
        self._within(offset, size)
        return View(self.fetch, self.start + offset, size, self.data)

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes; Error where they do not lie within, or the file ends before."""
        self._within(offset, size)
        data = self.fetch(self.start + offset, size)
        if len(data) != size:
            raise Error(f"the image ends before byte {self.start + offset + size}", "it was cut off: get it again")
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
                "it was damaged or cut off: get it again",
            )


def text(name: bytes) -> str:
    """A name as Python has it: what is not UTF-8 as surrogates (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")
