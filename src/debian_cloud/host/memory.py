# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory in memory for the root file system that a build makes, where there is room for it.

It is below /dev/shm (shm_overview(7)), so that no file system need be mounted. Another user cannot enter it. What a
killed build leaves there takes memory, so every later one of the same user removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import folders

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHARED: Final = Path("/dev/shm")  # noqa: S108 - the directory below it belongs to this user alone, which is checked
_MOUNTS: Final = Path("/proc/self/mountinfo")
_MEMORY: Final = Path("/proc/meminfo")
_CONTROL: Final = Path("/sys/fs/cgroup")
_GROUP: Final = Path("/proc/self/cgroup")

_SPARE: Final = 3 * 2**29
"""Bytes of memory that stay for the processes of a build, the page cache and others."""
NEVER: Final = "DEBIAN_CLOUD_TREE_ON_DISK"
"""Variable of the environment: if it is set, no tree is made in memory."""


@dataclass(frozen=True, slots=True)
class Tree:
    """An empty directory in memory, and the descriptor of its lock (`folders.locked`)."""

    path: Path
    lock: int


@contextlib.contextmanager
def tree(workspace: Path, size: int) -> Iterator[Tree | None]:
    """Yield a directory for a tree of about `size` bytes, or None if memory has no room; it is removed at the end."""
    place = _SHARED / f"debian-cloud-{os.geteuid()}"
    if os.environ.get(NEVER) or not room(size):
        yield None
        return
    try:
        mine = _begun(place)
    except (Error, OSError):
        # Another user has made it, for example.
        yield None
        return
    folder = mine / hashlib.sha256(os.fsencode(workspace)).hexdigest()[:16]
    with folders.locked(folder, f"the memory for {workspace}", wait=True) as lock:
        try:
            folders.empty(folder)
            root = folder / "tree"
            root.mkdir()
            # It becomes the image's root directory, whatever the user's umask is.
            root.chmod(0o755)
            yield Tree(root, lock)
        finally:
            folders.remove(folder)


def room(size: int) -> bool:
    """Return whether memory has room for a tree of about `size` bytes, and for what else a build needs."""
    # Small files take a page each, and the installation has files that the image has not.
    needed = size + size // 2
    return _is_memory() and shutil.disk_usage(_SHARED).free >= needed and available() >= needed + _SPARE


def available() -> int:
    """Return how many bytes of memory processes may still take: of this machine, and of its control groups."""
    try:
        found = re.search(r"(?m)^MemAvailable: +([0-9]+) kB$", _MEMORY.read_text("ascii"))
    except OSError:
        return 0
    return min([int(found[1]) * 1024 if found else 0, *_groups()])


def _groups() -> Iterator[int]:
    """Yield what the limits of this process's control groups leave (cgroups(7), version 2)."""
    with contextlib.suppress(OSError):
        for line in _GROUP.read_text("utf-8", "surrogateescape").splitlines():
            if line.startswith("0::"):
                group = _CONTROL / line.removeprefix("0::").strip("/")
                for folder in (group, *group.parents):
                    with contextlib.suppress(OSError, ValueError):
                        limit = (folder / "memory.max").read_text("ascii").strip()
                        yield int(limit) - int((folder / "memory.current").read_text("ascii"))


def _is_memory() -> bool:
    """Return whether the directory is a file system in memory, from which programs can run (proc(5))."""
    found = False
    with contextlib.suppress(OSError):
        for line in _MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            fields = before.split()
            # Of several, the last one is on top.
            if fields[4] == str(_SHARED):
                found = after.startswith("tmpfs ") and not {"noexec", "ro"} & {*fields[5].split(",")}
    return found


def _begun(place: Path) -> Path:
    """Return this user's directory, without what killed builds left there; raise Error if it is another user's."""
    with folders.locked(place, "the memory for trees", wait=True):
        place.chmod(0o700)
        for left in place.iterdir():
            with contextlib.suppress(Error), folders.locked(left, "it"):
                folders.remove(left)
    return place
