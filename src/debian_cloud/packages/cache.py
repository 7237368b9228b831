# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache of archives' data, from which the least recently used data is removed if it is too large.

There is one private apt for each mirror, suite and architecture, locked while in use. After use, the least recently
used ones are removed, each by a rename under its own lock, while the cache is larger than the bound.
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
from debian_cloud.host import files, folders
from debian_cloud.image.sources import BINARY_CACHE, names_a_user
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BOUND: Final = 2**30
"""Bytes that stay on the disk: about ten suites. Data in use stays in addition."""
KEYRINGS: Final = "keyrings"
"""The directory of keyrings in a cache."""
DEBS: Final = "packages"
"""The directory of .debs in a cache; each other directory is a private apt, or of the machine's own apt."""
LAYERS: Final = "layers"
"""The directory of layers in a cache (`build.store`)."""
BOUND_OF_DEBS: Final = 2**31
"""Bytes of .debs that stay on the disk: those of about ten images."""

_SLOW: Final = 60
"""Seconds in the future that are no wrong clock."""
GONE: Final = ".gone."
"""Prefix of the name of a private apt that is being removed."""
FRESH: Final = 86400
"""Seconds for which a keyring stays, regardless of the bound, because a run may be about to read it; and the age from
which a file that apt has not renamed is a killed apt's."""
_LARGEST_SOURCES: Final = 2**20
"""Largest file of a private apt with its sources, in bytes."""
# In one-line style, white space, brackets, "#", "%" and quotes are special to apt (sources.list(5)), in Signed-By
# white space and commas; a file of settings can only contain UTF-8.
_NO_PATH_OF_APT: Final = re.compile(r"[\s\x00-\x1f\x7f\"#%,\[\]\\\ud800-\udfff]")


def place() -> Path:
    """Return where the directory of the cache is, or will be."""
    # As root, apt fetches as its sandbox user, which has no access to /root.
    return (Path("/var/cache") if os.geteuid() == 0 else _home()) / "debian-cloud"


def directory() -> Path:
    """Return the directory of the cache, made if needed; Error if it cannot be used, or others can change it."""
    folder = place()
    hint = "set XDG_CACHE_HOME to another directory" if os.geteuid() else "root's cache cannot be elsewhere"
    if bad := _NO_PATH_OF_APT.search(str(folder)):
        raise Error(
            f"the cache cannot be in {printable(str(folder))}: apt accepts no {printable(bad[0])!r} in the name of a"
            " directory or a keyring",
            hint,
            USAGE,
        )
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            cause = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(cause, os.strerror(cause))
    except OSError as error:
        raise Error(f"the cache cannot be in {folder}: {error.strerror}", hint, USAGE) from None
    files.refuse_changeable(folder)
    return folder


def _home() -> Path:
    if found := files.user_directory("XDG_CACHE_HOME", ".cache"):
        return found
    raise Error(
        "there is no home directory for the cache",
        "set HOME, or XDG_CACHE_HOME, to the absolute path of a directory",
        USAGE,
    )


@contextlib.contextmanager
def used(root: Path, what: str) -> Iterator[int]:
    """Lock a directory of a cache while it is needed (`folders.locked`); then reduce the cache to its bound."""
    # As root, apt fetches as a user of its own, who must reach the lists.
    with folders.locked(root, what, wait=True, mode=0o711) as descriptor:
        os.utime(root)
        try:
            yield descriptor
        finally:
            # If this is interrupted, the next run does it.
            with contextlib.suppress(OSError):
                _bound(root.parent, root)


def remove_unfinished(folder: Path, age: float = 0) -> None:
    """Remove what a killed apt left of a binary cache in a directory, if it is older than `age` seconds."""
    # apt writes to this name and six more characters, and renames it.
    for left in folder.glob(f"{BINARY_CACHE}.??????"):
        with contextlib.suppress(OSError):
            if left.lstat().st_mtime <= time.time() - age:
                left.unlink()


def _bound(cache: Path, mine: Path) -> None:
    """Remove the least recently used data until the cache is within its bound."""
    folders, keyrings, total = [], [], 0
    for path in cache.iterdir():
        if path.name.startswith(GONE):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name == KEYRINGS:
            keyrings = [(used_at(found), found, size(found)) for found in path.iterdir()]
        elif path.name not in {DEBS, LAYERS} and path.is_dir() and not path.is_symlink():
            folders.append((used_at(path), path, size(path)))
    total = sum(taken for _, _, taken in (*folders, *keyrings))
    for _, path, taken in sorted(folders):
        if total <= BOUND:
            return
        if path != mine and _removed(path):
            total -= taken
    for day, path, taken in sorted(keyrings):
        if total > BOUND and day < time.time() - FRESH:
            path.unlink(missing_ok=True)
            total -= taken


def bound_files(place: Path, bound: int) -> None:
    """Remove the least recently used files of a directory until they take no more than `bound` bytes."""
    for path in oldest((path for path in place.iterdir() if not path.is_dir()), bound):
        path.unlink()


def oldest(files: Iterable[Path], bound: int) -> Iterator[Path]:
    """Yield the least recently used files until the others take no more than `bound` bytes."""
    found = sorted((used_at(path), path, size(path)) for path in files)
    total = sum(taken for _, _, taken in found)
    for _, path, taken in found:
        if total <= bound:
            return
        yield path
        total -= taken


def used_at(path: Path) -> float:
    """Return when something in the cache was last used, in seconds since 1970; 0 if that is in the future.

    It was used while the clock was wrong: nothing that is used now would seem newer, and it would never go.
    """
    found = path.lstat().st_mtime
    return found if found <= time.time() + _SLOW else 0


def _removed(folder: Path) -> bool:
    """Remove a directory unless it is in use; return whether it was removed."""
    gone = folder.with_name(f"{GONE}{folder.name}.{os.getpid()}")
    try:
        with folders.locked(folder, "it", mode=0o711):
            folder.rename(gone)
    except (Error, OSError):
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def sources_of(folder: Path) -> tuple[str, ...]:
    """Return the addresses and suites that a private apt reads, without those that have a password in them."""
    try:
        text = files.text(folder / "sources.list.d" / "debian-cloud.sources", _LARGEST_SOURCES)
        found = [(stanza.get("URIs", ""), stanza.get("Suites", "")) for stanza in deb822.parse(text)]
    except Error:
        return ()
    return tuple(f"{uri} {suites}" for uri, suites in found if not names_a_user(uri))


def size(path: Path) -> int:
    """Return the bytes on the disk of a file, or of all files in a directory; 0 if it is gone."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        total = path.lstat().st_blocks * 512
        if path.is_symlink() or not path.is_dir():
            return total
        total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{folder}/{name}").st_blocks * 512
    return total
