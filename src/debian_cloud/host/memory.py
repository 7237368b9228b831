# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory in memory for the root file system that a build makes, where there is room for it.

It is below /dev/shm (shm_overview(7)), so that no file system need be mounted. Another user cannot enter it. What a
killed build leaves there takes memory, so every later one of the same user removes it. What builds that run have not
used yet of the room that they need is not free for others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import failures, folders, signals

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHARED: Final = Path("/dev/shm")  # noqa: S108 - the directory below it belongs to this user alone, which is checked
_MOUNTS: Final = Path("/proc/self/mountinfo")
_MEMORY: Final = Path("/proc/meminfo")
_CONTROL: Final = Path("/sys/fs/cgroup")
_GROUP: Final = Path("/proc/self/cgroup")

_SPARE: Final = 3 * 2**29
"""Bytes of memory that stay for the processes of a build, the page cache and others."""
_PROMISE: Final = "promise"
"""File with the bytes that a tree will take."""
NEVER: Final = failures.ON_DISK
_MANAGER: Final = Path("/run/systemd/notify")
"""Socket that is there only while systemd(1) runs, and so logind(8); directories beside it come with the package."""
_LINGERING: Final = Path("/var/lib/systemd/linger")
_FIRST_USER: Final = 1000
"""Lowest id of users whose files here logind(8) removes (login.defs(5), SYS_UID_MAX)."""


@dataclass(frozen=True, slots=True)
class Tree:
    """An empty directory in memory, and the descriptor of its lock (`folders.locked`)."""

    path: Path
    lock: int


@contextlib.contextmanager
def tree(workspace: Path, size: int) -> Iterator[Tree | None]:
    """Yield a directory for a tree of about `size` bytes, or None if memory has no room; it is removed at the end."""
    with contextlib.ExitStack() as used:
        try:
            found = _begun(used, workspace, size)
        except (Error, OSError):
            # Another user has made the directory, for example.
            found = None
        yield found


def room(size: int, promised: int = 0) -> bool:
    """Return whether memory has room for a tree of about `size` bytes, and for what else a build needs.

    Of the free memory, `promised` bytes are for other trees.
    """
    needed = _needed(size) + promised
    return _is_memory() and shutil.disk_usage(_SHARED).free >= needed and available() >= needed + _SPARE


def _needed(size: int) -> int:
    # Small files take a page each, and the installation has files that the image has not.
    return size + size // 2


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


def _begun(used: contextlib.ExitStack, workspace: Path, size: int) -> Tree | None:
    """Return a tree that is there until `used` ends, or None if there is no room.

    Raise Error if this user's directory is another's. What killed builds left in it is removed before.
    """
    place = _SHARED / f"debian-cloud-{os.geteuid()}"
    wanted = not os.environ.get(NEVER) and not _outlives_its_login()
    if not os.path.lexists(place) and not (wanted and room(size)):
        return None
    with folders.locked(place, "the memory for trees", wait=True):
        place.chmod(0o700)
        promised = sum(map(_promised, place.iterdir()))
        if not wanted or not room(size, promised):
            return None
        # One of this workspace that was killed may still be in use.
        name = hashlib.sha256(os.fsencode(workspace)).hexdigest()[:16]
        folder = Path(tempfile.mkdtemp(dir=place, prefix=f"{name}."))
        lock = used.enter_context(folders.locked(folder, f"the memory for {workspace}"))
        used.callback(_remove, folder)
        (folder / _PROMISE).write_text(str(_needed(size)), "ascii")
    root = folder / "tree"
    root.mkdir()
    # It becomes the image's root directory, whatever the user's umask is.
    root.chmod(0o755)
    return Tree(root, lock)


def _outlives_its_login() -> bool:
    """Return whether this process may still run when its user's last session ends.

    logind(8) then removes what the user has in /dev/shm, used or not (logind.conf(5), RemoveIPC).
    """
    uid = os.geteuid()
    if uid < _FIRST_USER or not _MANAGER.exists():
        return False
    with contextlib.suppress(KeyError, OSError):
        if (_LINGERING / pwd.getpwuid(uid).pw_name).exists():
            return False
    # A service of this user, or under nohup(1).
    group = _GROUP.read_text("utf-8", "surrogateescape")
    return "/user.slice/" not in group or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _promised(folder: Path) -> int:
    """Return how many bytes a build may still write to its directory; one that no build uses is removed."""
    with contextlib.suppress(Error):
        with folders.locked(folder, "it"):
            folders.remove(folder)
        return 0
    try:
        return max(0, int((folder / _PROMISE).read_text("ascii")) - _size(folder))
    except (OSError, ValueError):
        return 0


def _size(folder: Path) -> int:
    """Return the bytes that the files of a directory take, as far as they can be seen, while a build changes them."""
    found, waiting = 0, [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return found


def _remove(folder: Path) -> None:
    with signals.undisturbed():
        folders.remove(folder)
