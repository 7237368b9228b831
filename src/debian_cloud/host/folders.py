# SPDX-License-Identifier: GPL-3.0-or-later
"""Working directories: writable only by this user, used by one process at a time, and removed at the end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTIAL: Final = ".partial"
"""End of the name of a directory with what is not complete yet; a dot is before it."""
_PATIENCE: Final = 25
"""Number of attempts to remove a directory."""


@contextlib.contextmanager
def locked(folder: Path, what: str, *, wait: bool = False, shared: bool = False, mode: int = 0o700) -> Iterator[int]:
    """Lock a directory, which is created if needed, and yield the lock's descriptor.

    The kernel releases the lock when this process ends. If another process holds it, raise Error, or with `wait`,
    wait for it. A `shared` lock excludes only those that are not. Other users have no more rights than `mode` gives
    them; none of them can list the directory, because who can open it can lock it.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = _own_folder(folder, mode)
        try:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise Error(f"another debian-cloud uses {what}", "wait until it has ended") from None
                print(f"debian-cloud: waiting for another debian-cloud that uses {what}", file=sys.stderr)  # noqa: T201 - a wait without a word looks like a hang
                fcntl.flock(descriptor, kind)
            # Its last holder may have removed the directory before it released the lock: then the descriptor is of a
            # removed one.
            if _same(descriptor, folder):
                yield descriptor
                return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def partial(place: Path, what: str, *, wait: bool = False) -> Iterator[Path]:
    """An empty directory beside a path, for what is renamed to that path when it is complete; removed at the end.

    What a killed run left there is removed, too. Error if another run is using it, or with `wait`, wait for its end:
    the path may exist then.
    """
    held = place.with_name(f".{place.name}{PARTIAL}")
    with locked(held, what, wait=wait):
        try:
            for left in held.iterdir():
                shutil.rmtree(left)
            # With a new name: a process that a killed run left behind may still write to the old one.
            yield Path(tempfile.mkdtemp(dir=held))
        finally:
            shutil.rmtree(held, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a workspace, with files in it that belong to a namespace's users; Error if that fails."""
    argv = ("rm", "-rf", "--one-file-system", "--", str(folder))
    for _ in range(_PATIENCE):
        said = run.in_namespace(argv)
        if not folder.exists():
            return
        # The kernel ends a killed namespace asynchronously; until then its processes may write.
        time.sleep(0.2)
    raise _not_removed(folder, said)


def empty(folder: Path) -> None:
    """Remove the contents of a workspace, but not the workspace; Error if that fails."""
    if any(folder.iterdir()):
        said = run.in_namespace(("find", str(folder), "-xdev", "-mindepth", "1", "-delete"))
        if any(folder.iterdir()):
            raise _not_removed(folder, said)


def _not_removed(folder: Path, said: str) -> Error:
    lines = said.splitlines()
    # The reason why there was no namespace is more useful than the files that rm(1) could not remove without one.
    reason = next((line for line in lines if line.startswith("unshare: ")), lines[-1] if lines else "")
    return Error(f"{folder} could not be removed{reason and f': {reason}'}", f"remove it as root: rm -rf {folder}")


def _own_folder(folder: Path, mode: int) -> int:
    """A descriptor of a directory to which only this user can write, created if needed.

    Its name can be guessed, and its parent may be writable by all: no other user must be able to put files there that
    run as root.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=mode)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            break
        except FileNotFoundError:
            # Its holder removed it after mkdir(2) found it.
            continue
        except PermissionError:
            raise _not_own(folder) from None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise Error(f"{folder} is not a directory", "remove that file", USAGE) from None
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(descriptor)
        raise _not_own(folder)
    if found.st_mode & 0o077 & ~mode:
        # It may be on a file system that is read-only.
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & (0o7700 | mode))
    return descriptor


def _not_own(folder: Path) -> Error:
    return Error(
        f"{folder} belongs to another user, or other users may write to it",
        "remove it, or choose another place",
        USAGE,
    )


def _same(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
