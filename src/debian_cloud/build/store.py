# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep layers in the cache, and make trees of them.

A layer is one file, named after its id and its SHA-256: a line of JSON, then a tar of what has changed since the last
layer, with owners and extended attributes. The files are the user's own; one that another user owns or can write to
is removed, as is one whose content is not what its name says.

Every build that uses the cache holds a shared lock on its directory; what removes files needs the exclusive one. A
build that makes a layer holds a lock of the layer's own, so that another that wants the same layer waits for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from debian_cloud.build.scripts import install
from debian_cloud.errors import Error
from debian_cloud.host import folders, run
from debian_cloud.packages import cache
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BOUND: Final = 2**32
"""Bytes of layers that stay on the disk by default: those of about ten images."""

_NAME: Final = re.compile(r"([0-9a-f]{64})-([0-9a-f]{64})")
_LISTING: Final = "listing"
"""File of the workspace with what the tree had when the last layer was made or taken."""
PARTIAL: Final = "partial."
MAKING: Final = ".making"
_HEADER: Final = 2**24
"""Largest first line of a layer, in bytes."""
_BLOCK: Final = 2**20
_TAR: Final = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")
_STATE: Final = (install.ASKED, install.NEWEST)
"""Files of the workspace that belong to the tree: the installer continues with them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in the cache: its id, the stage that made it, its size in bytes, and when it was last used."""

    id: str
    stage: str
    path: Path
    size: int
    used: float


@dataclass(slots=True)
class Store:
    """The cache of layers, while a build uses it."""

    place: Path
    lock: int
    _making: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    def begin(self, ids: Sequence[str]) -> Sequence[str]:
        """Return the first of these layers that are in the cache; wait for a build that is making the next of them.

        The others are locked for this build until it calls `made`.
        """
        there = 0
        while there < len(ids):
            if self._sound(ids[there]):
                there += 1
                continue
            self._claim(ids[there])
            # Another build may have made it while this one waited.
            if not self._sound(ids[there]):
                break
            self.made(ids[there])
        for later in ids[there + 1 :]:
            self._claim(later)
        return ids[:there]

    def made(self, layer: str) -> None:
        """Let other builds that wait for this layer go on."""
        self._making.pop(layer).close()

    def end(self) -> None:
        """Let all other builds go on."""
        for layer in [*self._making]:
            self.made(layer)

    def _claim(self, layer: str) -> None:
        place = self.place / f"{layer}{MAKING}"
        with contextlib.ExitStack() as stack:
            stack.enter_context(folders.locked(place, f"the layer {layer[:12]}, which it is making", wait=True))
            stack.callback(_remove, place)
            self._making[layer] = stack.pop_all()

    def _sound(self, layer: str) -> bool:
        """Return whether the cache has a layer; one that is not what its name says is removed."""
        for path in self.place.glob(f"{layer}-*"):
            if problem(path):
                _remove(path)
            else:
                os.utime(path)
                return True
        return False


@contextlib.contextmanager
def opened(bound: int) -> Iterator[Store]:
    """Use the cache of layers for a build; then reduce it to its bound, unless another build uses it."""
    place = cache.directory() / cache.LAYERS
    try:
        with folders.locked(place, "the cache of layers", wait=True, shared=True) as lock:
            store = Store(place, lock)
            try:
                yield store
            finally:
                store.end()
    finally:
        with contextlib.suppress(Error, OSError):
            prune(bound)


def prune(bound: int) -> None:
    """Remove the least recently used layers until they take at most `bound` bytes; Error if a build uses them."""
    place = cache.directory() / cache.LAYERS
    with folders.locked(place, "the cache of layers"):
        for path in place.iterdir():
            # Only a killed build leaves these.
            if not _NAME.fullmatch(path.name):
                _remove(path)
        cache.bound_files(place, bound)


def listed() -> tuple[Layer, ...]:
    """Return the layers in the cache, the most recently used first."""
    place = cache.place() / cache.LAYERS
    found = []
    for path in place.iterdir() if place.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            if (name := _NAME.fullmatch(path.name)) and not _foreign(path):
                with path.open("rb") as file:
                    header = _header(file)
                status = path.stat()
                found.append(Layer(name[1], str(header["stage"]), path, status.st_size, status.st_mtime))
    return tuple(sorted(found, key=lambda layer: -layer.used))


def problem(path: Path) -> str:
    """Return what is wrong with the file of a layer, or an empty string."""
    name = _NAME.fullmatch(path.name)
    try:
        if name is None:
            return "its name is not that of a layer"
        if _foreign(path):
            return "it is not a file that only this user can write to"
        with path.open("rb") as file:
            header = _header(file)
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != name[2] or header["layer"] != name[1]:
                return "its content is not what its name says"
    except (OSError, ValueError):
        return "it is damaged"
    return ""


def take(place: Path, tree: Path, layers: Sequence[str]) -> None:
    """Make a tree of layers, each on top of the one before it; the tree's directory is empty or not there."""
    tree.mkdir(exist_ok=True)
    for layer in layers:
        path = next(iter(place.glob(f"{layer}-*")), None)
        if path is None:
            raise Error(f"the layer {layer} is gone from the cache", "build again")
        with path.open("rb") as file:
            for name in _header(file)["removed"]:
                _unlink(tree / name)
            os.lseek(file.fileno(), file.tell(), os.SEEK_SET)
            options = ("--extract", "--preserve-permissions", "--same-owner", "--delay-directory-restore", *_TAR)
            run.fed(("tar", *options, f"--directory={tree.parent}"), file)
    _note(tree, _found(tree))


def keep(place: Path, tree: Path, layer: str, stage: str) -> None:
    """Keep a tree as a layer, if there is room: what has changed since the last layer was made or taken."""
    before, now = _noted(tree), _found(tree)
    removed = [path for path, was in before.items() if path not in now or _kind(now[path]) != _kind(was)]
    changed = [path for path, found in now.items() if before.get(path) != found]
    names = [f"{tree.name}/{path}".rstrip("/") for path in changed]
    names += [name for name in _STATE if (tree.parent / name).exists()]
    header = {"layer": layer, "stage": stage, "removed": sorted(removed, reverse=True)}
    descriptor, partial = tempfile.mkstemp(dir=place, prefix=PARTIAL)
    path = Path(partial)
    try:
        with tempfile.TemporaryFile() as files, os.fdopen(descriptor, "wb") as out:
            files.write(b"".join(os.fsencode(name) + b"\0" for name in names))
            files.seek(0)
            digest = hashlib.sha256()
            options = ("--create", "--format=pax", "--no-recursion", "--null", "--verbatim-files-from", *_TAR)
            with run.through(
                ("tar", *options, f"--directory={tree.parent}", "--files-from=-"), files, heard=True
            ) as tar:
                data = json.dumps(header).encode() + b"\n"
                while data:
                    digest.update(data)
                    out.write(data)
                    data = tar.read(_BLOCK)
        path.chmod(0o600)
        path.rename(place / f"{layer}-{digest.hexdigest()}")
    except OSError as error:
        path.unlink(missing_ok=True)
        print(f"debian-cloud: the layer is not kept: {printable(str(error))}", file=sys.stderr)  # noqa: T201 - the log of the step
    _note(tree, now)


def _header(file: IO[bytes]) -> dict[str, Any]:
    """Read the first line of a layer; raise ValueError if it is damaged."""
    try:
        header = json.loads(file.readline(_HEADER))
    except RecursionError:
        raise ValueError("the first line of the layer is damaged") from None
    names = header.get("removed") if isinstance(header, dict) else None
    if not isinstance(names, list) or any(
        not isinstance(name, str) or ".." in name.split("/") or name.startswith("/") for name in names
    ):
        raise ValueError("the first line of the layer is damaged")
    return {"layer": "", "stage": "", **header}


def _foreign(path: Path) -> bool:
    found = path.lstat()
    return not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or bool(found.st_mode & 0o022)


def _found(tree: Path) -> dict[str, list[int]]:
    """Return all paths of a tree with what changes when the file does."""
    found: dict[str, list[int]] = {}
    waiting = [str(tree)]
    start = len(str(tree)) + 1
    found[""] = _facts(tree.lstat())
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                found[entry.path[start:]] = _facts(status)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
    return found


def _facts(status: os.stat_result) -> list[int]:
    # The time of change (inode(7)) cannot be set: what is equal in all of these was not touched.
    return [status.st_mode, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_uid, status.st_gid]


def _kind(facts: list[int]) -> int:
    return stat.S_IFMT(facts[0])


def _note(tree: Path, found: dict[str, list[int]]) -> None:
    (tree.parent / _LISTING).write_text(json.dumps(found), "utf-8")


def _noted(tree: Path) -> dict[str, list[int]]:
    file = tree.parent / _LISTING
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}


def _unlink(path: Path) -> None:
    """Remove what a later stage has removed; a directory is empty by then."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()


def _remove(path: Path) -> None:
    """Remove what is no layer from the cache."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
