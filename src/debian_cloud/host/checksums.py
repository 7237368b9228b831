# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes of files, and the lists of them that coreutils and systemd read."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.formats import BLOCKS
from debian_cloud.host import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

PUBLISHED: Final = ("sha256", "sha512")
"""Algorithms of the hashes in an index."""
UPLOADED: Final = ("md5", "sha1", "sha256", "sha512")
"""Algorithms of the hashes in a .changes (deb-changes(5)); no verifier here reads the old ones."""


_PIECE: Final = 2**20
"""Bytes that are read and hashed at once."""
_BLOCK: Final = 4096


@dataclass(frozen=True, slots=True)
class Digest:
    """Size in bytes and hexadecimal hashes of one file, by algorithm."""

    size: int
    hashes: Mapping[str, str]


def digest(path: Path, algorithms: Iterable[str] = PUBLISHED) -> Digest:
    """The size and hashes of a regular file; the hashes are computed in parallel."""
    from concurrent.futures import ThreadPoolExecutor

    algorithms = tuple(algorithms)

    def of(algorithm: str) -> str:
        if algorithm == BLOCKS:
            return _blocks(path)
        hashed = hashlib.new(algorithm, usedforsecurity=algorithm in PUBLISHED)
        for piece in _content(path):
            hashed.update(piece)
        return hashed.hexdigest()

    # hashlib releases the interpreter's lock: threads use several cores.
    with ThreadPoolExecutor() as pool:
        return Digest(path.stat().st_size, dict(zip(algorithms, pool.map(of, algorithms), strict=True)))


def _blocks(path: Path) -> str:
    """The SHA-256 of the blocks of a file that have data, and of their places.

    A block is 4096 bytes; the last may be shorter. Blocks of zeros only are left out, whether the file has holes
    there or not. Hashed are the offset of each other block, as a 64-bit big-endian integer, and its bytes; at the
    end, the size of the file in the same form. So files have the same digest only if all of their bytes are the same.
    """
    hashed, zeros, position = hashlib.sha256(), bytes(_BLOCK), 0
    with files.opened(path) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        for start, end in _data(descriptor, size):
            # A hole may begin or end within a block.
            position = max(position, start - start % _BLOCK)
            while position < end and (piece := os.pread(descriptor, _PIECE, position)):
                parts: list[bytes] = []
                for at in range(0, min(len(piece), end - position), _BLOCK):
                    block = piece[at : at + _BLOCK]
                    if block != zeros[: len(block)]:
                        parts += ((position + at).to_bytes(8, "big"), block)
                hashed.update(b"".join(parts))
                position += min(len(piece), end - position + -(end - position) % _BLOCK)
    hashed.update(size.to_bytes(8, "big"))
    return hashed.hexdigest()


def _content(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, without reading its holes: a new disk is mostly holes."""
    zeros, buffer = memoryview(bytes(_PIECE)), memoryview(bytearray(_PIECE))
    with files.opened(path) as file:
        descriptor = file.fileno()
        size, position = os.fstat(descriptor).st_size, 0
        for data, end in (*_data(descriptor, size), (size, size)):
            for start in range(position, data, _PIECE):
                yield zeros[: data - start]
            position = data
            os.lseek(descriptor, position, os.SEEK_SET)
            while position < end and (count := os.readv(descriptor, [buffer[: end - position]])):
                yield buffer[:count]
                position += count


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each part of a file that is no hole (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def sums(digests: Mapping[str, Digest]) -> dict[str, str]:
    """File name -> content of SHA256SUMS and SHA512SUMS over the named files (sha256sum(1), sha512sum(1))."""
    return {
        f"{algorithm.upper()}SUMS": "".join(
            f"{digests[name].hashes[algorithm]}  {name}\n" for name in sorted(digests)
        )
        for algorithm in PUBLISHED
    }


def find(text: str, name: str) -> str:
    """The hash that a list gives for a name; Error if it gives none."""
    for line in text.split("\n"):
        digest_, _, named = line.partition("  ")
        if named == name:
            return digest_
    raise Error(f"the list of hashes has no hash of {name}", "the image's directory is incomplete: get it again")
