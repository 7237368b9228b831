# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of archives from one run to the next: what was used least recently goes when it is too much.

There is one private apt for each mirror, suite and architecture, locked while in use. After use, those that were
used least recently are removed, each by a rename under its own lock, while all together are larger than the bound.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import folders
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUND: Final = 2**30
"""Bytes that stay on the disk: some ten suites. What is in use stays besides."""
KEYRINGS: Final = "keyrings"
"""The folder of keyrings, in a cache; in each other folder there is a private apt."""

_GONE: Final = ".gone."
_FRESH: Final = 86400
"""Seconds for which a keyring stays, however many there are: a run may be about to read it."""
# In one-line style apt takes blanks, brackets, "#", "%" and quotes for more than themselves (sources.list(5)), in
# Signed-By blanks and commas; what is not UTF-8 no file of settings can have.
_NO_PATH_OF_APT: Final = re.compile(r"[\s\x00-\x1f\x7f\"#%,\[\]\\\ud800-\udfff]")


def directory() -> Path:
    """The directory of the cache, which is made if need be; Error where there can be none."""
    # As root, apt fetches as its own user, who cannot look into /root.
    folder = (Path("/var/cache") if os.geteuid() == 0 else _home()) / "debian-cloud"
    hint = "set XDG_CACHE_HOME to another directory" if os.geteuid() else "root's is there and nowhere else"
    if bad := _NO_PATH_OF_APT.search(str(folder)):
        raise Error(
            f"the cache cannot be in {printable(str(folder))}: apt takes no {printable(bad[0])!r} in the name of a"
            " directory or a keyring",
            hint,
            USAGE,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise Error(f"the cache cannot be in {folder}: {error.strerror}", hint, USAGE) from None
    return folder


def _home() -> Path:
    # A relative path is to be passed over (XDG Base Directory Specification).
    if (given := os.environ.get("XDG_CACHE_HOME", "")).startswith("/"):
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise Error(
            "there is no home directory for the cache",
            "set HOME, or XDG_CACHE_HOME, to the absolute path of a directory",
            USAGE,
        )
    return home / ".cache"


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
