# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats of images: one module each; the directory is the registry.

A format's module has `PUBLISHED` (whether an archive accepts it), `SOURCE` (what it is made of: the raw disk, or the
tree of an image without a disk), `TOOLS` (the packages of the image's own suite whose programs make it), `DIGEST`
(by which digest a .buildinfo identifies its file: SHA256, or BLOCKS for what is mostly holes and not published),
`UNIT` (the size of the disk is a multiple of so many bytes), `steps(source, out, epoch) -> Plan`, which makes the
file `out`, `check(name, view, virtual_size)`, by which an archive refuses a file of another format, `holds(view)`,
whether a file has this format, and `inner(name, view)`, how its disk or its tar archive is read. Its name, with a dot
for each underscore, is the format's name and the file's extension.

`check` reads the file's own header and the places of its tables; no tool opens an uploaded file. `verify` checks what
is in the disk.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from debian_cloud.errors import USAGE, Error, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from debian_cloud.plan import Plan
    from debian_cloud.view import View

Source = Literal["disk", "tree"]
Algorithm = Literal["sha256", "sha256-blocks"]
SHA256: Final[Algorithm] = "sha256"
"""The SHA-256 of all bytes of a file."""
BLOCKS: Final[Algorithm] = "sha256-blocks"
"""The SHA-256 of a file's blocks that have data, and of their places (`host.checksums`)."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A disk that a tool reads: `argv`, followed by the path of the file and that of the raw disk to write.

    `size` is the disk's in bytes; `allocated` returns how many of them the file has at most, the rest are holes.
    """

    argv: tuple[str, ...]
    size: int
    allocated: Callable[[], int]


class Format(Protocol):
    """The interface of a format's module."""

    PUBLISHED: bool
    SOURCE: Source
    TOOLS: tuple[str, ...]
    DIGEST: Algorithm
    UNIT: int

    def steps(self, source: str, out: str, epoch: int) -> Plan:
        """Steps that make `out` from the file or directory `source`; no time in it is later than `epoch`."""

    def check(self, name: str, view: View, virtual_size: int) -> None:
        """Raise Error unless the file in `view` has this format, and a disk of `virtual_size` bytes (0: a tree).

        No more than a few MiB are read, and nothing is executed. `name` is for messages.
        """

    def holds(self, view: View) -> bool:
        """Whether the file in `view` has this format, from its ends alone."""

    def inner(self, name: str, view: View) -> View | Iterator[bytes] | Converted:
        """The raw disk or tar archive in it: a part of the file, pieces unpacked as they are read, or a tool's work.

        Error if it is damaged.
        """


def names() -> tuple[str, ...]:
    """The names of all formats, sorted."""
    return tuple(sorted(module.name.replace("_", ".") for module in pkgutil.iter_modules(__path__)))


def of(view: View) -> str:
    """The name of the format of a file, from its ends, or "" for none."""
    # Whatever is a raw disk with something around it is not just a raw disk.
    return next((name for name in sorted(names(), key=lambda name: name == "raw") if find(name).holds(view)), "")


def tools(source: Source) -> tuple[str, ...]:
    """The packages that make all formats of a disk, or all formats of a tree; sorted."""
    made = (find(name) for name in names())
    return tuple(sorted({tool for format_ in made if source == format_.SOURCE for tool in format_.TOOLS}))


def find(name: str) -> Format:
    """The module of one format; Error suggests another name if this one is unknown."""
    if name not in names():
        raise Error(f"unknown disk format {name}", did_you_mean(name, names()), USAGE)
    return cast("Format", importlib.import_module(f"{__name__}.{name.replace('.', '_')}"))
