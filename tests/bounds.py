# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that may take so much memory and no more: what they would take beyond it, they are refused."""

from __future__ import annotations

import lzma
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def within(
    mebibytes: int, command: list[str | Path], *, seconds: int = 120, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of which each process has an address space of so many MiB; a hang ends it, and the test."""

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20,) * 2)

    return subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=seconds,
        preexec_fn=bound,
    )


def of(character: bytes, size: int) -> Iterator[bytes]:
    """So many bytes of one kind, in pieces."""
    piece = character * 2**20
    for left in range(size, 0, -len(piece)):
        yield piece[:left]


def packed(character: bytes, size: int) -> bytes:
    """The same as .xz, of a stream and as many more of the same (the .xz file format, 2): 10,000 bytes for each."""
    piece = 2**24
    return lzma.compress(character * piece, preset=0) * (size // piece) + lzma.compress(character * (size % piece))
