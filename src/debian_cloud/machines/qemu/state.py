# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of one instance, and of all: what QEMU and the next command find there.

```
ROOT/key key.pub              the key that this user's instances let in
ROOT/bases/DIGEST.FORMAT      verified images, never rewritten; an instance has a hard link to its own
ROOT/disks/NAME.qcow2         disks that outlive instances
ROOT/instances/NAME/          spec.json lock base.* disk.qcow2 seed/ known_hosts console.log qemu.log vars.fd
                              credential.* rebooting
                              qmp console console.lock pid port: of its QEMU, or of the last one
```

An instance's directory is made under another name, so one with its own name is complete. QEMU holds a lock on the
file `lock` for as long as it lives, however it ends (F_OFD_SETLK of fcntl(2)): to ask for that lock is to ask
whether it runs, and no process id is trusted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTANCES: Final = "instances"
BASES: Final = "bases"
DISKS: Final = "disks"

SPEC: Final = "spec.json"
LOCK: Final = "lock"
DISK: Final = "disk.qcow2"
SEED: Final = "seed"
KNOWN_HOSTS: Final = "known_hosts"
CONSOLE_LOG: Final = "console.log"
QEMU_LOG: Final = "qemu.log"
VARIABLES: Final = "vars.fd"
QMP: Final = "qmp"
CONSOLE: Final = "console"
PID: Final = "pid"
PORT: Final = "port"
REBOOTING: Final = "rebooting"
"""File that is there from the end of an instance until it is started again by the same command."""
CREDENTIAL: Final = "credential"
"""Prefix of the files whose texts the firmware passes on."""

GONE: Final = ".gone."
"""Prefix of the name of an instance's directory that is being removed."""

_LARGEST: Final = 2**16
_VERSION: Final = 1
# struct flock of fcntl(2), with the padding at its end.
_FLOCK: Final = struct.Struct("@hhqqi4x")

Way = Literal["seed", "credentials", "none"]
"""How an instance is told at its first boot (`machines.seed`)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is needed to start an instance again; sizes in bytes, times in seconds since 1970.

    `boot` is bios, uefi or secure; `code` and `code_format` are the firmware's file, empty for bios. `user` is whom
    to log in as, empty if nobody can. `largest` is the size that none of its files may exceed.
    """

    name: str
    id: str
    image: str
    architecture: str
    memory: int
    cpus: int
    boot: str
    code: str
    code_format: str
    way: Way
    user: str
    disks: tuple[str, ...]
    largest: int
    created: int
    expires: int
    throw_away: bool

    def text(self) -> str:
        """The content of spec.json."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1) + "\n"


_KINDS: Final = {"str": str, "int": int, "bool": bool, "Way": str, "tuple[str, ...]": list}
"""Annotation of a field -> its type in JSON."""


def read(folder: Path) -> Kept:
    """What is kept of an instance; Error if it is incomplete, or from a newer program."""
    try:
        found = json.loads(files.text(folder / SPEC, _LARGEST))
        if found.pop("version") != _VERSION:
            raise ValueError("it is of another version of this program")
        values = {field.name: found.pop(field.name) for field in fields(Kept)}
        wrong = [field.name for field in fields(Kept) if type(values[field.name]) is not _KINDS[str(field.type)]]
        if found or wrong or values["way"] not in ("seed", "credentials", "none"):
            raise ValueError(f"it has unexpected fields: {', '.join((*wrong, *found))}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Error) as error:
        raise Error(f"{folder / SPEC} cannot be read: {printable(str(error))}", "terminate the instance") from None
    # Their types were compared above.
    return Kept(**cast("dict[str, Any]", {**values, "disks": tuple(map(str, values["disks"]))}))


def write(folder: Path, kept: Kept) -> None:
    """Write what is kept of an instance, whole or not at all."""
    put(folder / SPEC, kept.text())


def put(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.rename(path)


def root(given: str = "") -> Path:
    """The directory of all instances of this user, made if needed; Error if others can change it.

    By default it is `debian-cloud` below XDG_STATE_HOME (XDG Base Directory Specification).
    """
    folder = Path(given) if given else _home() / "debian-cloud"
    # Before anything is made there: root's HOME may be another user's.
    files.refuse_changeable(folder, "instances")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (INSTANCES, BASES, DISKS):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Error(
            f"instances cannot be in {printable(str(folder))}: {error.strerror}",
            "set XDG_STATE_HOME to another directory",
            USAGE,
        ) from None
    for name in (INSTANCES, BASES, DISKS):
        files.refuse_changeable(folder / name, "instances")
    return folder


def _home() -> Path:
    if found := files.user_directory("XDG_STATE_HOME", ".local/state"):
        return found
    raise Error("there is no home directory for instances", "set HOME or XDG_STATE_HOME to a path", USAGE)


def names(root_: Path) -> tuple[str, ...]:
    """The names of all instances, sorted."""
    return tuple(
        sorted(path.name for path in (root_ / INSTANCES).iterdir() if path.is_dir() and not path.name.startswith("."))
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Lock an instance, and yield the descriptor, which QEMU inherits; None if QEMU or another command has it."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            yield None
            return
        # What was opened may have been removed before it was locked.
        if not os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK, follow_symlinks=False)):  # noqa: PTH116 - of a descriptor, too
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        yield descriptor
    finally:
        # The lock lasts until the last process that has inherited the descriptor has closed it.
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether QEMU runs, or a command is about to start it or to remove the instance."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _short(folder: Path, name: str) -> Iterator[str]:
    """A path of a socket that fits into its address (unix(7): 107 bytes), whatever the directory is called."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def listening(folder: Path, name: str) -> socket.socket:
    """A socket in an instance's directory that QEMU will answer at; one that is left from before is replaced."""
    (folder / name).unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with _short(folder, name) as path:
            found.bind(path)
        found.listen(4)
    except BaseException:
        found.close()
        raise
    return found


def connected(folder: Path, name: str, seconds: float) -> socket.socket:
    """A connection to such a socket; OSError if nobody listens."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        found.settimeout(seconds)
        with _short(folder, name) as path:
            found.connect(path)
    except BaseException:
        found.close()
        raise
    return found


def tail(path: Path, most: int) -> bytes:
    """The last bytes of a log; none if there is no such file."""
    try:
        with files.opened(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read(most)
    except Error:
        return b""


def trim(path: Path, most: int) -> None:
    """Reduce a log to its last bytes if it is much larger: a guest decides how much it writes.

    QEMU appends to it meanwhile, so what it writes at this moment may get lost.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size > 4 * most:
            kept = tail(path, most)
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(kept)
