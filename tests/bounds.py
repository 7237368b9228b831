# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that run with a limit on their memory; an allocation beyond it fails."""

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
    """Run a command whose processes each have an address space of `mebibytes`; a hang ends it and fails the test."""

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
    """`size` bytes of one value, in pieces."""
    piece = character * 2**20
    for left in range(size, 0, -len(piece)):
        yield piece[:left]


def packed(character: bytes, size: int) -> bytes:
    """The same bytes as .xz: one stream, repeated (.xz file format, 2), that holds 10,000 bytes per byte."""
    piece = 2**24
    return lzma.compress(character * piece, preset=0) * (size // piece) + lzma.compress(character * (size % piece))
