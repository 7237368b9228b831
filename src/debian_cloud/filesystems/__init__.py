# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems of a finished image, read without a mount: one module each.

They get a `View` of a partition's bytes and give `Entry`s, contents and
`Finding`s: what holds bytes that nothing explains. Whatever an image holds, all
that goes wrong is an `Error`: every number is bounded before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE: Final = 2**20
"""Bytes that are read at once."""
ENTRIES: Final = 2**20
"""Paths that a file system may have: no image comes near, and memory stays bounded."""
PATHS: Final = 2**27
"""Bytes that all paths may have together."""
_GRAIN: Final = 512
_ZEROS: Final = bytes(PIECE)


@dataclass(frozen=True, slots=True)
class Finding:
    """Bytes that nothing explains; `offset` counts from the start of the disk, both in bytes."""

    where: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class View:
    """A range of a disk; `start` and `size` in bytes.

    `fetch(offset, size)` reads the disk. `data` are the ranges of the disk, as
    (start, end), that may be other than zero: the rest are holes of the file.
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

    def nonzero(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Runs within a range that are not zero, as (offset, length): zeros shorter than a sector do not end one."""
        self._within(offset, size)
        first, last = 0, 0
        for start, end in self._data(self.start + offset, self.start + offset + size):
            for position in range(start, end, PIECE):
                piece = self.fetch(position, min(PIECE, end - position))
                if piece == _ZEROS[: len(piece)]:
                    continue
                # Where no sector is zero, there is nothing to look for.
                step = _GRAIN if _ZEROS[:_GRAIN] in piece else len(piece)
                for at in range(0, len(piece), step):
                    grain = piece[at : at + step]
                    rest = grain.lstrip(b"\0")
                    if not rest:
                        continue
                    begin = position + at + len(grain) - len(rest)
                    if last and begin - last >= _GRAIN:
                        yield first - self.start, last - first
                        last = 0
                    first = first if last else begin
                    last = position + at + len(grain.rstrip(b"\0"))
        if last:
            yield first - self.start, last - first

    def findings(self, where: str, offset: int, size: int) -> Iterator[Finding]:
        """A finding for each such run."""
        for start, length in self.nonzero(offset, size):
            yield Finding(where, self.start + start, length)

    def differences(self, where: str, offset: int, expected: bytes) -> Iterator[Finding]:
        """A finding for each run that is not as expected."""
        found = self.read(offset, len(expected))
        if found != expected:
            differing = int.from_bytes(found, "big") ^ int.from_bytes(expected, "big")
            changed = View.of(differing.to_bytes(len(expected), "big"))
            for start, length in changed.nonzero(0, len(expected)):
                yield Finding(where, self.start + offset + start, length)

    def _data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What of a range of the disk is no hole."""
        low, high = 0, len(self.data)
        while low < high:
            middle = (low + high) // 2
            if self.data[middle][1] <= start:
                low = middle + 1
            else:
                high = middle
        for begin, finish in self.data[low:]:
            if begin >= end:
                return
            yield max(begin, start), min(finish, end)

    def _within(self, offset: int, size: int) -> None:
        if not 0 <= offset <= offset + size <= self.size:
            raise Error(
                f"the image points to bytes {offset} to {offset + size} of a range that has {self.size}",
                "it was damaged or cut off: get it again",
            )


def text(name: bytes) -> str:
    """A name as Python has it: what is not UTF-8 as surrogates (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")
