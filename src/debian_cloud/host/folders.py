# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders in which work is done: ours alone, one holder at a time, and gone at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE: Final = 25
"""How often it is tried to remove a folder."""


@contextlib.contextmanager
def locked(folder: Path, what: str, *, wait: bool = False) -> Iterator[int]:
    """Hold a folder, which is made if need be; the kernel lets go when we die. Gives the lock's descriptor.

    When another process holds it: Error, or with `wait` patience.
    """
    while True:
        descriptor = _own_folder(folder)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise Error(f"{what} is in use by another debian-cloud", "wait until it has ended") from None
                print(f"debian-cloud: waiting for another debian-cloud that uses {what}", file=sys.stderr)  # noqa: T201 - a wait without a word looks like a hang
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Its last holder may have removed it before it let go: then this is no one's folder any more.
            if _same(descriptor, folder):
                yield descriptor
                return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def partial(place: Path, what: str) -> Iterator[Path]:
    """An empty folder beside a place, for what is given that place by a rename when it is whole; then it is removed.

    What a run that was killed has left there is removed, too. Error when another run is at work there.
    """
    held = place.with_name(f".{place.name}.partial")
    with locked(held, what):
        try:
            for left in held.iterdir():
                shutil.rmtree(left)
            # Of its own name: a process that a killed run left behind may still write to the other.
            yield Path(tempfile.mkdtemp(dir=held))
        finally:
            shutil.rmtree(held, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a workspace, with the files in it that belong to a namespace's users; Error when it cannot be."""
    argv = ("rm", "-rf", "--one-file-system", "--", str(folder))
    for _ in range(_PATIENCE):
        said = run.in_namespace(argv)
        if not folder.exists():
            return
        # The kernel ends a killed namespace in its own time; until then its processes may write.
        time.sleep(0.2)
    raise _not_removed(folder, said)


def empty(folder: Path) -> None:
    """Remove what is in a workspace, and keep it; Error when it cannot be."""
    if any(folder.iterdir()):
        said = run.in_namespace(("find", str(folder), "-xdev", "-mindepth", "1", "-delete"))
        if any(folder.iterdir()):
            raise _not_removed(folder, said)


def _not_removed(folder: Path, said: str) -> Error:
    lines = said.splitlines()
    # Why there was no namespace says more than whose files rm(1) may then not remove.
    reason = next((line for line in lines if line.startswith("unshare: ")), lines[-1] if lines else "")
    return Error(f"{folder} could not be removed{reason and f': {reason}'}", f"remove it as root: rm -rf {folder}")


def _own_folder(folder: Path) -> int:
    """A descriptor of a folder that is ours alone to write, made if need be.

    Its name can be guessed and the place may be open to all: what runs in there
    as root must not be put there by another.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            break
        except FileNotFoundError:
            # It was there, and its holder has removed it in the meantime.
            continue
        except OSError:
            raise Error(f"{folder} is no folder", "remove what is there", USAGE) from None
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(descriptor)
        raise Error(f"{folder} belongs to another or is open to others", "remove it, or choose another place", USAGE)
    return descriptor


def _same(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
