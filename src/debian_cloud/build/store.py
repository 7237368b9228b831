# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep layers in the cache, and make trees of them.

A layer is one file, named after its id and its SHA-256: a line of JSON, then a tar of what has changed since the last
layer, with owners and extended attributes. The line has the SHA-256 of that one, so that a layer is put on top of no
other. The files are the user's own; one that another user owns or can write to is removed, as is one whose content is
not what its name says.

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
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from debian_cloud.build.scripts import install
from debian_cloud.errors import Error
from debian_cloud.host import folders, run
from debian_cloud.packages import cache

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
_TICK: Final = 0.02
"""Seconds after which the next change of a file gets another time: more than a tick of any kernel's clock."""
_CAPABILITY: Final = "security.capability"
_TAR: Final = (
    *("--file=-", "--numeric-owner", "--acls"),
    # Others are the machine's, for example SELinux's.
    *("--xattrs", f"--xattrs-include={_CAPABILITY}", "--xattrs-include=user.*"),
)
_CREATE: Final = (
    *("--create", "--format=pax", "--sparse", "--no-recursion", "--null", "--verbatim-files-from"),
    # When files were read or made is not part of the tree.
    "--pax-option=delete=atime,delete=ctime",
)
_EXTRACT: Final = ("--extract", "--preserve-permissions", "--same-owner", "--delay-directory-restore")
NOT_KEPT: Final = "not-kept"
"""File of the workspace with the reason why a layer could not be kept, if there is one."""
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
    _ids: Sequence[str] = ()
    _making: dict[str, tuple[int, contextlib.ExitStack]] = field(default_factory=dict)

    @property
    def locks(self) -> tuple[int, ...]:
        """The descriptors of all locks; a process that has them still makes what a killed build had claimed."""
        return (self.lock, *(descriptor for descriptor, _ in self._making.values()))

    def begin(self, ids: Sequence[str]) -> Sequence[str]:
        """Return the files of the first of these layers that are in the cache; wait for a build that makes the next.

        The others are locked for this build until it calls `made`.
        """
        self._ids = ids
        there: list[str] = []
        for layer in ids:
            last = _digest(there[-1]) if there else ""
            if not (found := self._sound(layer, last)):
                self._claim(layer)
                # Another build may have made it while this one waited.
                if not (found := self._sound(layer, last)):
                    break
                self.made(layer)
            there.append(found)
        for later in ids[len(there) + 1 :]:
            self._claim(later)
        return there

    def made(self, layer: str) -> None:
        """Let other builds that wait for this layer go on."""
        if layer in self._making:
            self._making.pop(layer)[1].close()

    def give_up(self) -> None:
        """Let other builds that wait for any of the layers go on."""
        for layer in [*self._making]:
            self.made(layer)

    def end(self) -> None:
        """Let all other builds go on, and note that the layers were used now."""
        self.give_up()
        now = time.time()
        for number, layer in enumerate(self._ids):
            # Without the one before it, none is of use: the last one is removed first.
            used = now - number / 1000
            for path in self.place.glob(f"{layer}-*"):
                with contextlib.suppress(OSError):
                    os.utime(path, (used, used), follow_symlinks=False)

    def _claim(self, layer: str) -> None:
        place = self.place / f"{layer}{MAKING}"
        # Without room for the lock, another build may make the layer at the same time: either one is whole.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            what = f"the layer {layer[:12]}, which it is making"
            descriptor = stack.enter_context(folders.locked(place, what, wait=True))
            stack.callback(_remove, place)
            self._making[layer] = (descriptor, stack.pop_all())

    def _sound(self, layer: str, last: str) -> str:
        """Return the name of a layer's file in the cache, or an empty string; what cannot be used is removed.

        `last` is the SHA-256 of the layer that it is put on top of.
        """
        for path in sorted(self.place.glob(f"{layer}-*")):
            if not problem(path) and _last(path) == last:
                return path.name
            _remove(path)
        return ""


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


def take(place: Path, tree: Path, names: Sequence[str]) -> None:
    """Make a tree of layers' files, each on top of the one before it; the tree's directory is empty.

    Raise Error if one is not what its name says.
    """
    last = ""
    for name in names:
        try:
            with _opened(place / name) as file, ThreadPoolExecutor(1) as beside:
                # What was checked before may be another file now.
                found = beside.submit(_hashed, file)
                failed = _put(tree, file, last)
                last = found.result()
        except (OSError, ValueError):
            last = ""
        if last != _digest(name):
            raise Error(f"the layer {name} is gone from the cache, or damaged", "build again")
        if failed:
            raise failed
    _note(tree, last, _found(tree))


def _opened(path: Path) -> IO[bytes]:
    """Open the file of a layer; raise ValueError if it is foreign."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))  # noqa: SIM115 - the caller closes it
    if _is_foreign(os.fstat(file.fileno())):
        file.close()
        raise ValueError(f"{path} is foreign")
    return file


def _hashed(file: IO[bytes]) -> str:
    """Return the SHA-256 of all of a file, whose position stays."""
    digest, at = hashlib.sha256(), 0
    while data := os.pread(file.fileno(), _BLOCK, at):
        digest.update(data)
        at += len(data)
    return digest.hexdigest()


def _put(tree: Path, file: IO[bytes], last: str) -> Error | None:
    """Put a layer on top of a tree; raise ValueError if it does not belong there; return the Error of tar(1)."""
    header = _header(file)
    if header["last"] != last:
        raise ValueError("the layer was made on top of another one")
    for path in header["removed"]:
        _unlink(tree / path)
    for path in header["bare"]:
        _bare(tree / path)
    try:
        run.fed(("tar", *_EXTRACT, *_TAR, f"--directory={tree.parent}"), file)
    except Error as failed:
        # A damaged layer is a better reason: the caller knows.
        return failed
    return None


def keep(place: Path, tree: Path, layer: str, stage: str) -> str:
    """Keep a tree as a layer: what has changed since the last layer was made or taken.

    Return why it could not be kept, for example because the disk is full, or an empty string.
    """
    last, before = _noted(tree)
    if last is None:
        return "the one before it is not kept"
    now = _found(tree)
    removed = [path for path, was in before.items() if path not in now or _kind(now[path]) != _kind(was)]
    changed = {path for path, found in now.items() if before.get(path) != found}
    # `take` makes a changed file anew, which changes its directory's time.
    changed |= {path.rpartition("/")[0] for path in changed}
    names = [f"{tree.name}/{path}".rstrip("/") for path in sorted(changed)]
    names += [name for name in _STATE if (tree.parent / name).exists()]
    # tar(1) gives attributes to a directory that is there already, but takes none away.
    bare = [path for path in sorted(changed) if path in before and before[path][-1]]
    header = {"layer": layer, "stage": stage, "last": last, "removed": sorted(removed, reverse=True), "bare": bare}
    digest, failed = None, ""
    try:
        if any(stat.S_ISSOCK(now[path][0]) for path in changed):
            raise OSError("there is a socket in it, which tar(1) cannot keep")
        digest = _keep(place, tree, names, header)
    except OSError as error:
        failed = str(error)
    _note(tree, digest, now)
    return failed


def _keep(place: Path, tree: Path, names: Sequence[str], header: dict[str, Any]) -> str:
    """Write the file of a layer, and return its SHA-256."""
    data = json.dumps(header).encode() + b"\n"
    if len(data) > _HEADER:
        raise OSError("too many files were removed")
    descriptor, partial = tempfile.mkstemp(dir=place, prefix=PARTIAL)
    path = Path(partial)
    try:
        with tempfile.TemporaryFile() as files, os.fdopen(descriptor, "wb") as out:
            files.write(b"".join(os.fsencode(name) + b"\0" for name in names))
            files.seek(0)
            digest = hashlib.sha256()
            argv = ("tar", *_CREATE, *_TAR, f"--directory={tree.parent}", "--files-from=-")
            with run.through(argv, files, heard=True) as tar:
                while data:
                    digest.update(data)
                    out.write(data)
                    data = tar.read(_BLOCK)
        # What was made on top of another tree of this id cannot be used any more.
        for old in place.glob(f"{header['layer']}-*"):
            _remove(old)
        path.rename(place / f"{header['layer']}-{digest.hexdigest()}")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def _header(file: IO[bytes]) -> dict[str, Any]:
    """Read the first line of a layer; raise ValueError if it is damaged."""
    line = file.readline(_HEADER)
    try:
        header = json.loads(line)
    except RecursionError:
        header = None
    if not isinstance(header, dict) or not all(_are_names(header.get(field)) for field in ("removed", "bare")):
        raise ValueError("the first line of the layer is damaged")
    return {"layer": "", "stage": "", "last": "", **header}


def _are_names(found: object) -> bool:
    """Return whether a value is a list of paths that stay in a tree."""
    return isinstance(found, list) and all(
        isinstance(name, str) and ".." not in name.split("/") and not name.startswith("/") for name in found
    )


def _last(path: Path) -> object:
    """Return the SHA-256 of the layer that one was made on top of; an empty string for the first, None if damaged."""
    try:
        with path.open("rb") as file:
            return _header(file)["last"]
    except (OSError, ValueError):
        return None


def _digest(name: str) -> str:
    """Return the SHA-256 in the name of a layer's file."""
    return name.partition("-")[2]


def _foreign(path: Path) -> bool:
    return _is_foreign(path.lstat())


def _is_foreign(found: os.stat_result) -> bool:
    return not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or bool(found.st_mode & 0o022)


def _found(tree: Path) -> dict[str, list[int]]:
    """Return all paths of a tree with what changes when the file does."""
    found: dict[str, list[int]] = {}
    waiting = [str(tree)]
    start = len(str(tree)) + 1
    found[""] = _facts(tree.lstat(), tree)
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                found[entry.path[start:]] = _facts(status, entry.path)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
    return found


def _facts(status: os.stat_result, path: str | Path) -> list[int]:
    # The time of change (inode(7)) cannot be set: what is equal in all of these was not touched.
    times = [status.st_ctime_ns, status.st_mtime_ns]
    attributes = len(_attributes(path)) if stat.S_ISDIR(status.st_mode) else 0
    return [status.st_mode, status.st_ino, *times, status.st_size, status.st_uid, status.st_gid, attributes]


def _attributes(path: str | Path) -> Sequence[str]:
    """Return the names of the extended attributes of a directory that belong to the tree."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        # The file system has none.
        return ()
    return [name for name in names if name == _CAPABILITY or name.startswith(("user.", "system.posix_acl_"))]


def _kind(facts: list[int]) -> int:
    return stat.S_IFMT(facts[0])


def _note(tree: Path, digest: str | None, found: dict[str, list[int]]) -> None:
    """Note what the tree has, and the SHA-256 of the layer that has it; None if that is not kept."""
    (tree.parent / _LISTING).write_text(json.dumps([digest, found]), "utf-8")
    # A change at the same tick as the last one would not be seen.
    time.sleep(_TICK)


def _noted(tree: Path) -> tuple[str | None, dict[str, list[int]]]:
    file = tree.parent / _LISTING
    digest, found = json.loads(file.read_text("utf-8")) if file.exists() else ("", {})
    return digest, found


def _unlink(path: Path) -> None:
    """Remove what a later stage has removed; a directory is empty by then."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()


def _bare(folder: Path) -> None:
    """Remove the extended attributes of a directory."""
    for name in _attributes(folder):
        os.removexattr(folder, name, follow_symlinks=False)


def _remove(path: Path) -> None:
    """Remove what is no layer from the cache; what cannot be removed is no layer the next time either."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
