# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes of files, and the lists of them that coreutils and systemd read."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Digest:
    """Size in bytes and hexadecimal hashes of one file."""

    size: int
    sha256: str
    sha512: str


def digest(path: Path) -> Digest:
    """Read a file once for each hash, both at the same time."""

    def of(algorithm: str) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()

    # hashlib lets go of the interpreter's lock: two threads are two cores.
    with ThreadPoolExecutor(2) as pool:
        sha256, sha512 = pool.map(of, ("sha256", "sha512"))
    return Digest(path.stat().st_size, sha256, sha512)


def sums(digests: Mapping[str, Digest]) -> dict[str, str]:
    """File name -> content of SHA256SUMS and SHA512SUMS over the named files (sha256sum(1), sha512sum(1))."""
    return {
        "SHA256SUMS": "".join(f"{digests[name].sha256}  {name}\n" for name in sorted(digests)),
        "SHA512SUMS": "".join(f"{digests[name].sha512}  {name}\n" for name in sorted(digests)),
    }
