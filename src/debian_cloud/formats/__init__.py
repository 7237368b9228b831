# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk formats: one module each, the folder is the registry.

A format's module has `PUBLISHED` (whether an archive takes it) and
`steps(raw, out) -> Plan`, which makes the file `out` of the raw disk `raw`. Its
name is the format's name and the file's extension.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol, cast

from debian_cloud.errors import USAGE, Error, did_you_mean

if TYPE_CHECKING:
    from debian_cloud.plan import Plan


class Format(Protocol):
    """What a module of this folder offers."""

    PUBLISHED: bool

    def steps(self, raw: str, out: str) -> Plan:
        """Steps that make `out` of the raw disk `raw`."""


def names() -> tuple[str, ...]:
    """The formats there are, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find(name: str) -> Format:
    """The module of one format; Error suggests another when there is none of that name."""
    if name not in names():
        raise Error(f"unknown disk format {name}", did_you_mean(name, names()), USAGE)
    return cast("Format", importlib.import_module(f"{__name__}.{name}"))
