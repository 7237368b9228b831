# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of archives from one run to the next: what was used least recently goes when it is too much.

There is one private apt for each mirror, suite and architecture, locked while in use. After use, those that were
used least recently are removed, each by a rename under its own lock, while all together are larger than the bound.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOUND: Final = 2**30
"""Bytes that stay on the disk: some ten suites. What is in use stays besides."""
KEYRINGS: Final = "keyrings"
"""The folder of keyrings, in a cache; in each other folder there is a private apt."""

_GONE: Final = ".gone."
_FRESH: Final = 86400
"""Seconds for which a keyring stays, however many there are: a run may be about to read it."""


@contextlib.contextmanager
def used(root: Path, what: str) -> Iterator[int]:
    """Hold a folder of a cache while it is needed (`folders.locked`); afterwards the cache is within its bound."""
    with folders.locked(root, what, wait=True) as descriptor:
        os.utime(root)
        try:
            yield descriptor
        finally:
            # Whoever is cut off here leaves it to the next.
            with contextlib.suppress(OSError):
                _bound(root.parent, root)


def _bound(cache: Path, mine: Path) -> None:
    """Remove what was used least recently, until the cache is within its bound."""
    folders, keyrings, total = [], [], 0
    for path in cache.iterdir():
        if path.name.startswith(_GONE):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name == KEYRINGS:
            keyrings = [(found.stat().st_mtime, found, _size(found)) for found in path.iterdir()]
        elif path.is_dir() and not path.is_symlink():
            folders.append((path.stat().st_mtime, path, _size(path)))
    total = sum(size for _, _, size in (*folders, *keyrings))
    for _, path, size in sorted(folders):
        if total <= BOUND:
            return
        if path != mine and _removed(path):
            total -= size
    for day, path, size in sorted(keyrings):
        if total > BOUND and day < time.time() - _FRESH:
            path.unlink(missing_ok=True)
            total -= size


def _removed(folder: Path) -> bool:
    """Remove a folder, unless somebody uses it; whether it is gone."""
    gone = folder.with_name(f"{_GONE}{folder.name}.{os.getpid()}")
    try:
        with folders.locked(folder, "it"):
            folder.rename(gone)
    except (Error, OSError):
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _size(path: Path) -> int:
    """Bytes on the disk of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.lstat().st_blocks * 512
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{folder}/{name}").st_blocks * 512
    return total
