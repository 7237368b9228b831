# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats of images: one module each, the folder is the registry.

A format's module has `PUBLISHED` (whether an archive takes it), `SOURCE` (what
it is made of: the raw disk, or the tree of an image without a disk), `TOOLS`
(the packages of the image's own suite whose programs make it),
`steps(source, out, epoch) -> Plan`, which makes the file `out`, and
`check(name, view, virtual_size)`, by which an archive refuses a file that is of
another format. Its name, with a dot for each underscore, is the format's name
and the file's extension.

`check` reads the file's own header and the places of its tables; no tool opens what somebody uploaded. What is in
the disk is for `verify`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Literal, Protocol, cast

from debian_cloud.errors import USAGE, Error, did_you_mean

if TYPE_CHECKING:
    from debian_cloud.plan import Plan
    from debian_cloud.view import View

Source = Literal["disk", "tree"]


class Format(Protocol):
    """What a module of this folder offers."""

    PUBLISHED: bool
    SOURCE: Source
    TOOLS: tuple[str, ...]

    def steps(self, source: str, out: str, epoch: int) -> Plan:
        """Steps that make `out` of the file or folder `source`; no time in it is later than `epoch`."""

    def check(self, name: str, view: View, virtual_size: int) -> None:
        """Error unless the file in `view` is of this format, and is a disk of so many bytes (0 for a tree).

        No more than some MiB are read, and nothing is executed. `name` is for people.
        """


def names() -> tuple[str, ...]:
    """The formats there are, sorted."""
    return tuple(sorted(module.name.replace("_", ".") for module in pkgutil.iter_modules(__path__)))


def tools(source: Source) -> tuple[str, ...]:
    """The packages that make what is made of a disk or of a tree, in whichever of its formats; sorted."""
    made = (find(name) for name in names())
    return tuple(sorted({tool for format_ in made if source == format_.SOURCE for tool in format_.TOOLS}))


def find(name: str) -> Format:
    """The module of one format; Error suggests another when there is none of that name."""
    if name not in names():
        raise Error(f"unknown disk format {name}", did_you_mean(name, names()), USAGE)
    return cast("Format", importlib.import_module(f"{__name__}.{name.replace('.', '_')}"))
