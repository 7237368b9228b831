# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets: where instances run. Each has a name, a driver, and the driver's settings, in files of its own.

A file NAME.target has one stanza (deb822): Target, Driver, and fields of the driver. A user's file takes precedence
over the machine's; `local` is there without one. No file has a password or a secret key: a driver takes those from
where its provider's own tools have them.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.host import files
from debian_cloud.image.sources import names_a_user
from debian_cloud.packages import own
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ENDING: Final = ".target"
_FOLDER: Final = "targets.d"
_MACHINE: Final = Path("/etc/debian-cloud")
_LARGEST: Final = 2**16
"""Largest file of a target, in bytes."""
_MOST: Final = 1000
"""Most targets."""
_SECRET: Final = re.compile("secret|password|token|credential", re.IGNORECASE)
_OPEN: Final = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class Target:
    """Where instances run; `settings` are the fields of its driver."""

    name: str
    driver: str
    settings: Mapping[str, str] = field(default_factory=dict)


LOCAL: Final = Target("local", "qemu")
"""This machine."""


@dataclass(frozen=True, slots=True)
class Read:
    """The targets, `local` first and the others by name, and a sentence on each file that is none."""

    targets: tuple[Target, ...]
    refused: tuple[str, ...] = ()


def read(warn: Callable[[str], None]) -> Read:
    """All targets; `warn` is called with a sentence about a file that others can read although it has a secret."""
    found: dict[str, Target] = {LOCAL.name: LOCAL}
    refused: list[str] = []
    for folder in _folders():
        for path in _there(folder):
            try:
                target = _read(path, warn)
            except Error as error:
                refused.append(error.message)
                # Another file of this name must not act in its place.
                found.pop(path.name.removesuffix(_ENDING), None)
            else:
                found[target.name] = target
    order = sorted(found, key=lambda name: (name != LOCAL.name, name))
    return Read(tuple(found[name] for name in order), tuple(refused))


def find(name: str, warn: Callable[[str], None]) -> Target:
    """The target of a name; Error if there is none, or its file is not one. No other file is read."""
    for folder in reversed(_folders()):
        for path in _there(folder):
            if path.name == f"{name}{_ENDING}":
                return _read(path, warn)
    if name == LOCAL.name:
        return LOCAL
    known = {path.name.removesuffix(_ENDING) for folder in _folders() for path in _there(folder)}
    raise Error(f"there is no target {printable(name, 80)}", did_you_mean(name, {LOCAL.name, *known}), USAGE)


def _folders() -> tuple[Path, ...]:
    """The directories of the machine and of the user, whose files come before those."""
    return _MACHINE / _FOLDER, own.directory() / _FOLDER


def _there(folder: Path) -> Iterator[Path]:
    try:
        # A file that only root, or a group, may read is for others.
        found = sorted(path for path in folder.iterdir() if path.name.endswith(_ENDING) and os.access(path, os.R_OK))
    except OSError:
        return
    if len(found) > _MOST:
        raise Error(f"{folder} has {len(found)} targets", f"at most {_MOST} are read", USAGE)
    yield from found


def _read(path: Path, warn: Callable[[str], None]) -> Target:
    name = printable(str(path))
    # A target says to which address credentials go.
    files.refuse_changeable(path, "where instances run")
    stanzas = list(deb822.parse(files.text(path, _LARGEST)))
    if len(stanzas) != 1:
        raise Error(f"{name} has {len(stanzas)} stanzas", "a file has one target, in one stanza", USAGE)
    settings = dict(stanzas[0])
    try:
        target = Target(settings.pop("Target"), settings.pop("Driver"), settings)
    except KeyError as missing:
        raise Error(f"{name} has no field {missing.args[0]}", "a target has Target and Driver", USAGE) from None
    names.word(target.name, "target")
    if target.name != path.name.removesuffix(_ENDING):
        raise Error(f"{name} is of a target {target.name}", f"name it {target.name}{_ENDING}", USAGE)
    secret = any(_SECRET.search(key) for key in settings) or any(map(names_a_user, settings.values()))
    if secret and path.stat().st_mode & _OPEN:
        warn(f"{name} has a secret, and other users can read it: run chmod 600 {name}")
    return target
