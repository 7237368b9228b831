# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what apt resolved, to give the same answer to the same question without apt.

A question is all that an answer depends on: the SHA-256 of each signed release file, whose signature was verified in
this run; the sources; all settings of apt; the versions of apt and of this program; and what was asked. A question
that differs in any of these has another answer.

Answers are in the directory of the private apt, which is locked while they are used: a directory that only this user
can enter, with one file for each answer. What is in it is reached by its descriptor, so that whoever can rename
directories above has nothing to put in its place; and nothing is kept where others could change it. A file of another
owner or mode, of another question, or damaged in any way is as good as none. Each is written under another name and
renamed, and the least recently used ones are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from debian_cloud import VERSION
from debian_cloud.errors import Error
from debian_cloud.host import files, run
from debian_cloud.image.config import ImageConfig
from debian_cloud.image.custom import OFFICIAL, Custom
from debian_cloud.image.resolution import Needs, Package, Resolution

if TYPE_CHECKING:
    from collections.abc import Callable

    from debian_cloud.image.buildinfo import Buildinfo

_T = TypeVar("_T")

FOLDER: Final = "resolved"
"""Directory in that of a private apt."""
MOST: Final = 64
"""Maximum number of answers in it."""
LARGEST: Final = 2**20
"""Maximum bytes of one answer; that of an image with 330 packages has 60,000."""
_NEW: Final = "new"
_NAME: Final = re.compile("[0-9a-f]{64}")
_PRIVATE: Final = stat.S_IRWXG | stat.S_IRWXO
_CODE: Final = Path(__file__).parents[1]
"""The program's own code: while it is changed, its version stays the same."""


@dataclass(frozen=True, slots=True)
class Store:
    """The answers of one private apt: a descriptor of its directory, and what all its questions have in common."""

    root: int
    basis: str


def store(root: Path, descriptor: int, releases: str, *settings: str) -> Store | None:
    """Return the answers of a private apt in a directory, or None if others could change them.

    `descriptor` is of that directory, which is locked; `releases` are its release files (`releases.identity`),
    `settings` are those of the machine's apt and of the private one, and its sources.
    """
    try:
        files.refuse_changeable(root)
    except Error:
        return None
    versions = (VERSION, _code(), run.output(("apt-get", "--version")))
    return Store(descriptor, _digest(json.dumps((*versions, releases, *settings)).encode()))


def configurations(
    kept: Store | None, suite: str, ask: Callable[[], tuple[ImageConfig, ...]]
) -> tuple[ImageConfig, ...]:
    """Return all image configurations of a suite: those that are kept, else those that `ask` returns."""

    def decoded(value: object) -> tuple[ImageConfig, ...]:
        return tuple(_made(ImageConfig, fields_) for fields_ in _list(value))

    def encoded(found: tuple[ImageConfig, ...]) -> object:
        return [asdict(config) for config in found]

    return _answer(kept, ("configurations", suite), ask, encoded, decoded)


def resolution(
    kept: Store | None,
    asked: tuple[str, str, Custom, Buildinfo | None],
    ask: Callable[[], Resolution],
) -> Resolution:
    """Return the resolution of a configuration, suite, changes, and lock: the kept one, else that of `ask`.

    Neither has release files. The changes are not kept with it: a seed may contain a password.
    """
    name, suite, custom, lock = asked
    # Only these have an effect on the packages.
    lines = replace(custom, seed="", hostname="", keep=()).lines
    locked = _digest(json.dumps(asdict(lock), sort_keys=True).encode()) if lock else ""

    def encoded(found: Resolution) -> object:
        parts = asdict(found)
        del parts["custom"], parts["releases"]
        return parts

    found = _answer(kept, ("resolution", name, suite, locked, *lines), ask, encoded, _resolution)
    return replace(found, custom=custom)


def _answer(
    kept: Store | None,
    question: tuple[str, ...],
    ask: Callable[[], _T],
    encoded: Callable[[_T], object],
    decoded: Callable[[object], _T],
) -> _T:
    if kept is None:
        return ask()
    name = _digest(json.dumps((kept.basis, *question)).encode())
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        return decoded(json.loads(_read(kept, name)))
    found = ask()
    # If it cannot be kept, the next run asks again.
    with contextlib.suppress(OSError):
        _write(kept, name, json.dumps(encoded(found)).encode())
    return found


def _read(kept: Store, name: str) -> bytes:
    """Return a kept answer; raise OSError if there is none, ValueError if it is not as it was written."""
    folder = _folder(kept)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or not _own(found) or found.st_nlink != 1:
            raise ValueError(name)
        head, _, body = file.read(LARGEST + 1).partition(b"\n")
        if head.decode("ascii") != f"{name} {_digest(body)}":
            raise ValueError(name)
        # It may belong to a file system that is full, or can only be read.
        with contextlib.suppress(OSError):
            os.utime(file.fileno())
        return body


def _write(kept: Store, name: str, body: bytes) -> None:
    """Keep an answer, and remove those that were used least recently."""
    data = f"{name} {_digest(body)}\n".encode() + body
    if len(data) > LARGEST:
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(FOLDER, 0o700, dir_fd=kept.root)
    folder = _folder(kept)
    try:
        # A killed run may have left it.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_NEW, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(_NEW, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(data)
        os.rename(_NEW, name, src_dir_fd=folder, dst_dir_fd=folder)
        _bound(folder)
    finally:
        os.close(folder)


def _bound(folder: int) -> None:
    """Remove all but the most recently used answers."""
    now = time.time()
    used: list[tuple[float, str]] = []
    for name in os.listdir(folder):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        # A time that is yet to come tells nothing: the clock was set back.
        used.append((found.st_mtime if _NAME.fullmatch(name) and found.st_mtime <= now + 1 else 0, name))
    for _, name in sorted(used)[:-MOST]:
        os.unlink(name, dir_fd=folder)


def _folder(kept: Store) -> int:
    """Return a descriptor of the directory of answers; raise OSError if it is missing, or not private."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(FOLDER, flags, dir_fd=kept.root)
    if not _own(os.fstat(folder)):
        os.close(folder)
        raise PermissionError(FOLDER)
    return folder


def _own(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & _PRIVATE


def _resolution(value: object) -> Resolution:
    parts = _dict(value)
    packages, tools = (
        tuple(_made(Package, package) for package in _list(parts[name])) for name in ("packages", "tools")
    )
    config = _made(ImageConfig, parts["config"])
    needs = {
        _text(name): Needs(_groups(of["pre_depends"]), _groups(of["depends"]))
        for name, of in _dict(parts["needs"]).items()
    }
    given = {"config": config, "packages": packages, "tools": tools, "needs": needs}
    return _made(Resolution, parts, **given, custom=OFFICIAL, releases=())


def _groups(value: object) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(map(_text, _list(group))) for group in _list(value))


def _made(cls: type[_T], value: object, **given: object) -> _T:
    """Make a dataclass of the fields `given`, and of others that have text, integers and lists of texts.

    Raise an exception if a field is missing, unknown, or of another type.
    """
    parts = {**_dict(value), **given}
    for field in fields(cast("Any", cls)):
        if field.name not in given:
            parts[field.name] = _AS[str(field.type)](parts[field.name])
    return cls(**parts)


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return value


_AS: Final[dict[str, Callable[[object], object]]] = {
    "int": _int,
    "str": _text,
    "tuple[str, ...]": lambda value: tuple(map(_text, _list(value))),
}
"""Type of a field -> a function that returns a value of this type, or raises TypeError."""


def _code() -> str:
    """Return the SHA-256 of this program's modules."""
    digest = hashlib.sha256()
    for path in sorted(_CODE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
