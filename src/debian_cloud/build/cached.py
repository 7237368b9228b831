# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user's cache has: listed, verified, and reduced.

`packages.cache`, `packages.pool` and `build.store` keep it within its bounds while builds use it; this is for a
person who looks at it. Only `pruned` changes anything, and only while nothing uses the packages and layers.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.build import store
from debian_cloud.errors import Error
from debian_cloud.host import files, folders
from debian_cloud.packages import cache, keyrings, pool
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_UNFINISHED: Final = {
    cache.DEBS: re.compile(r"partial"),
    cache.LAYERS: re.compile(rf"{re.escape(store.PARTIAL)}.*|[0-9a-f]{{64}}{re.escape(store.MAKING)}"),
    cache.KEYRINGS: re.compile(r"[0-9a-f]{64}\.[0-9]+"),
}
"""Directory -> names of what a run is about to keep there, or was when it was killed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the cache that is damaged or foreign, and what is wrong with it."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Archive:
    """The private apt of one mirror, suite and architecture: its suites with their addresses, bytes, last use."""

    path: Path
    sources: tuple[str, ...]
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a cache has; sizes are bytes on the disk."""

    place: Path
    archives: tuple[Archive, ...]
    keyrings: tuple[int, int]
    """Number and bytes."""
    packages: tuple[int, int]
    """Number and bytes."""
    layers: tuple[store.Layer, ...]
    bytes_of_layers: int


@dataclass(frozen=True, slots=True)
class Freed:
    """What was removed: numbers of packages, layers, and damaged or unfinished things; bytes; and bytes that stay."""

    packages: int
    layers: int
    others: int
    size: int
    left: int


def contents() -> Contents:
    """Return what the cache has; one that is not there is empty."""
    place = cache.place()
    archives = sorted(_archives(place), key=lambda archive: -archive.used)
    layers = [*_entries(place / cache.LAYERS)]
    return Contents(
        place,
        (*archives,),
        _total(place / cache.KEYRINGS),
        _total(place / cache.DEBS),
        store.listed(),
        sum(map(cache.size, layers)),
    )


def problems() -> Iterator[Problem]:
    """Yield what in the cache is damaged, or could be changed by other users; every file is hashed."""
    place = cache.place()
    if not os.path.lexists(place):
        return
    if why := _unusable_place(place):
        yield Problem(place, why)
        return
    for path in _in_place(place):
        if path.name in _CHECKS:
            yield from _of_files(path)
        elif not path.name.startswith(cache.GONE) and (why := _foreign_folder(path)):
            yield Problem(path, why)


def pruned(bound: int | None = None, *, everything: bool = False) -> Freed:
    """Remove damaged and unfinished things, then the least recently used packages and layers, and return what went.

    Together they may then take `bound` bytes; without it, each its own bound. With `everything`, all of them go.
    Raise Error, and remove nothing, if a build uses them.
    """
    place = cache.place()
    if os.path.lexists(place) and (why := _unusable_place(place)):
        raise Error(f"{printable(str(place))} is not used: {why}", "remove it, or make it yours alone")
    with contextlib.ExitStack() as stack:
        for name, what in ((cache.DEBS, "the cache of packages"), (cache.LAYERS, "the cache of layers")):
            if os.path.lexists(place / name):
                stack.enter_context(folders.locked(place / name, f"{what}, so nothing was removed"))
        others, size = _removed(_unusable(place, hashed=not everything))
        packages, layers = ([*_entries(place / name)] for name in (cache.DEBS, cache.LAYERS))
        if everything:
            chosen = [*packages, *layers]
        elif bound is None:
            chosen = [*cache.oldest(packages, cache.BOUND_OF_DEBS), *cache.oldest(layers, store.BOUND)]
        else:
            chosen = [*cache.oldest([*packages, *layers], bound)]
        _, freed = _removed(iter(chosen))
    kinds = [path.parent.name for path in chosen]
    left = sum(_total(place / name)[1] for name in (cache.DEBS, cache.LAYERS))
    return Freed(kinds.count(cache.DEBS), kinds.count(cache.LAYERS), others, size + freed, left)


def _archives(place: Path) -> Iterator[Archive]:
    for path in _in_place(place):
        if path.name not in _CHECKS and not path.name.startswith(cache.GONE) and not _foreign_folder(path):
            with contextlib.suppress(FileNotFoundError):
                yield Archive(path, cache.sources_of(path), cache.size(path), path.stat().st_mtime)


def _in_place(place: Path) -> Iterator[Path]:
    """Yield what is in the directory of the cache; nothing if no build uses it."""
    if not _unusable_place(place):
        yield from sorted(place.iterdir())


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what is in a directory of this user; nothing if it is another's, or no directory."""
    if not _foreign_folder(folder):
        yield from sorted(folder.iterdir())


def _total(folder: Path) -> tuple[int, int]:
    found = [*_entries(folder)]
    unfinished = sum(bool(_UNFINISHED[folder.name].fullmatch(path.name)) for path in found)
    return len(found) - unfinished, sum(map(cache.size, found))


def _unusable_place(place: Path) -> str:
    """Return why no build uses a cache in this directory (`cache.directory`), or an empty string."""
    # It may be a symlink, which is checked below.
    if why := _not_own_folder(place, follow=True):
        return why
    try:
        files.refuse_changeable(place)
    except Error:
        return "other users can write to it, or to a directory above it"
    return ""


def _foreign_folder(path: Path) -> str:
    """Return why a path is no directory of this user alone, or an empty string."""
    try:
        return _not_own_folder(path) or _foreign(path.lstat())
    except FileNotFoundError:
        # A build has removed it in the meantime.
        return "it is gone"


def _not_own_folder(path: Path, *, follow: bool = False) -> str:
    """Return why a path is no directory of this user, or an empty string; a symlink is one only if it is followed."""
    try:
        found = path.stat(follow_symlinks=follow)
    except FileNotFoundError:
        return "it is gone"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    return "it belongs to another user" if found.st_uid != os.geteuid() else ""


def _foreign(found: os.stat_result) -> str:
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    return "other users can write to it" if found.st_mode & 0o022 else ""


def _of_files(folder: Path) -> Iterator[Problem]:
    """Yield the problems of a directory of the cache, and of what is in it."""
    if why := _foreign_folder(folder):
        yield Problem(folder, why)
        return
    for path in _entries(folder):
        if not _UNFINISHED[folder.name].fullmatch(path.name) and (why := _problem(path, _CHECKS[folder.name])):
            yield Problem(path, why)


def _problem(path: Path, check: Callable[[Path], str]) -> str:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return "it is not a regular file"
        return _foreign(found) or check(path)
    except FileNotFoundError:
        # A build has removed it in the meantime.
        return ""
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


_CHECKS: Final[dict[str, Callable[[Path], str]]] = {
    cache.DEBS: pool.problem,
    cache.LAYERS: store.problem,
    cache.KEYRINGS: keyrings.problem,
}
"""Directory of the cache -> a function that returns what is wrong with the content of a file in it."""


def _unusable(place: Path, *, hashed: bool) -> Iterator[Path]:
    """Yield what killed runs left, what is foreign, and, if files are to be hashed, what is damaged."""
    for path in _in_place(place):
        if path.name.startswith(cache.GONE) or (path.name not in _CHECKS and _foreign_folder(path)):
            yield path
        elif path.name in _CHECKS:
            for left in _entries(path):
                if _UNFINISHED[path.name].fullmatch(left.name):
                    # Keyrings have no lock.
                    if path.name != cache.KEYRINGS or left.lstat().st_mtime < time.time() - cache.FRESH:
                        yield left
                elif hashed and _problem(left, _CHECKS[path.name]):
                    yield left


def _removed(paths: Iterator[Path]) -> tuple[int, int]:
    """Remove files and directories; return their number and bytes."""
    number = total = 0
    for path in paths:
        size = cache.size(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
        if os.path.lexists(path):
            raise Error(f"{printable(str(path))} cannot be removed", "ask its owner, or remove it as root")
        number, total = number + 1, total + size
    return number, total
