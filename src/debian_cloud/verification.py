# SPDX-License-Identifier: GPL-3.0-or-later
"""Every path of an image explained: by the package that ships it, or by what generated it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from . import entries, generated
from .filesystems import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .entries import Entry
    from .filesystems import View
    from .opened import DiskImage, TreeImage


if TYPE_CHECKING:
    Shipped = Mapping[str, Sequence[tuple[str, Entry]]]
    """Path -> each package that ships it, with what it ships there (`manifest.by_path`)."""


ESP: Final = "EFI system partition: "
"""What the paths of that partition begin with in a verdict."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A path, and why it is as it is: `package` or `generator` is set.

    `shipped` is where the package has it, when that is elsewhere: the builder
    copied it.
    """

    path: str
    kind: str
    package: str = ""
    generator: str = ""
    shipped: str = ""


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A path, or a place beside all paths, and what is wrong with it."""

    path: str
    why: str


def verify(
    image: Iterable[Entry], shipped: Shipped, rebuilt: Iterable[Entry], *, esp: bool = False
) -> Iterator[Explained | Unexplained]:
    """A verdict on each path of the image, and on each that it lacks.

    `shipped` is what the .debs would put there (`manifest.by_path`). `rebuilt`
    is the same image made again of the closure's own .debs: what a package does
    not ship must be of the closed list (`generated.GENERATED`), and equal what
    came out there. On the EFI system partition (`esp`) all that packages have is
    a copy of their files, found by content.
    """
    within = ESP if esp else ""
    copies = _by_content(shipped)
    again = {entry.path: entry for entry in rebuilt}

    def origins(entry: Entry) -> Iterator[tuple[str, Entry]]:
        if not esp:
            yield from shipped.get(entry.path, ())
        if esp or generated.is_copy(entry.path):
            found = copies.get((entry.sha256, entry.size), ())
            # Of files of the same content, the one of the most similar place; empty files are alike everywhere.
            for package in sorted(found, key=lambda one: (-_alike(one[1].path, entry.path), one[1].path)):
                if entry.size or _alike(package[1].path, entry.path):
                    yield package

    there = set()
    for entry in image:
        there.add(entry.path)
        expected = again.get(entry.path)
        verdict = _verdict(entry, tuple(origins(expected or entry)), expected, esp=esp)
        yield replace(verdict, path=f"{within}{verdict.path or '/'}")
    for path in sorted(again.keys() - there):
        who = _who(tuple(origins(again[path])), generated.generator(path, again[path].target, esp=esp))
        yield Unexplained(f"{within}{path or '/'}", f"it is not there, though {who} has it")


def verify_esp(image: DiskImage, shipped: Shipped, rebuilt: DiskImage) -> Iterator[Explained | Unexplained]:
    """A verdict on each path of the EFI system partition, if there is one, or should be."""
    if image.esp and rebuilt.esp:
        yield from verify(image.esp.entries(), shipped, rebuilt.esp.entries(), esp=True)
    elif image.esp or rebuilt.esp:
        yield Unexplained(ESP.rstrip(": "), "it is not there" if rebuilt.esp else "it should not be there")


def beside(image: DiskImage, rebuilt: DiskImage) -> Iterator[Unexplained]:
    """What is wrong with a disk beside the paths of its file systems: nothing, or a place and its bytes."""
    yield from left(image)
    if image.boot_code != rebuilt.boot_code:
        yield Unexplained("boot sector", "it is not GRUB's as grub-pc-bin has it")
    if image.bios != rebuilt.bios:
        yield Unexplained("BIOS boot partition", "it is not GRUB's core as the rebuild makes it")
    if image.table != rebuilt.table:
        yield Unexplained("partition table", "it is not the one that the image's name and size give")


def left(image: DiskImage | TreeImage) -> Iterator[Unexplained]:
    """Bytes that belong to no path, and to nothing else that is known."""
    for finding in image.unaccounted():
        yield Unexplained(finding.where, f"{finding.length} bytes at byte {finding.offset} belong to nothing")


def anywhere(image: View, rebuilt: View) -> Iterator[Unexplained]:
    """The last resort: the first place at which the bytes of two disks differ, whatever is there."""
    if image.size != rebuilt.size:
        yield Unexplained("disk", f"it has {image.size} bytes, and should have {rebuilt.size}")
        return
    for start, end in sorted({*image.data, *rebuilt.data}):
        for position in range(start, end, PIECE):
            size = min(PIECE, end - position)
            found, expected = image.read(position, size), rebuilt.read(position, size)
            if found != expected:
                first = next(n for n, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
                yield Unexplained("disk", f"byte {position + first} is not what the rebuild has there")
                return


def _verdict(
    entry: Entry, origins: Sequence[tuple[str, Entry]], again: Entry | None, *, esp: bool
) -> Explained | Unexplained:
    if again is None:
        return Unexplained(entry.path, "nothing that the image is made of has it" + _loud(entry))
    generator = generated.generator(entry.path, again.target, esp=esp)
    # Times and numbers of inodes are the build's, not a package's.
    if what := _difference(entry, again):
        return Unexplained(entry.path, f"{what} not what {_who(origins, generator)} gives it")
    for package, of_package in origins:
        if of_package.path != entry.path or esp:
            # A copy: owner and mode are the rebuild's, as was seen above.
            if (entry.kind, entry.sha256, entry.size) == (entries.FILE, of_package.sha256, of_package.size):
                return Explained(entry.path, entry.kind, package, shipped=of_package.path)
        elif not _difference(entry, replace(of_package, mtime=entry.mtime, xattrs=())):
            return Explained(entry.path, entry.kind, package)
    if generator:
        return Explained(entry.path, entry.kind, generator=generator)
    if origins:
        what = _difference(entry, replace(origins[0][1], mtime=entry.mtime, xattrs=()))
        return Unexplained(entry.path, f"{what} not what {origins[0][0]} ships, and nothing that is known changes it")
    return Unexplained(entry.path, "no package ships it, and it is not of the closed list of generated files")


def _who(origins: Iterable[tuple[str, Entry]], generator: str) -> str:
    """Who makes a path, in words."""
    return ", ".join(dict.fromkeys(package for package, _ in origins)) or generator or "the rebuild"


def _by_content(shipped: Shipped) -> dict[tuple[str, int], list[tuple[str, Entry]]]:
    """SHA-256 and size -> each file of that content, with its package."""
    found: dict[tuple[str, int], list[tuple[str, Entry]]] = {}
    for packages in shipped.values():
        for package, entry in packages:
            if entry.kind == entries.FILE:
                found.setdefault((entry.sha256, entry.size), []).append((package, entry))
    return found


def _alike(path: str, other: str) -> int:
    """How many of their last names two paths have alike."""
    pairs = zip(reversed(path.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _loud(entry: Entry) -> str:
    return ", and it is set-id" if entry.kind == entries.FILE and entry.mode & 0o6000 else ""


def _difference(entry: Entry, other: Entry) -> str:
    """What about an entry differs from another of the same path, in words; "" when nothing does."""
    if entry.kind != other.kind:
        return f"it is a {entry.kind}, which is"
    if entry.kind == entries.FILE and (entry.sha256, entry.size) != (other.sha256, other.size):
        return "its content is"
    if entry.target != other.target:
        return f"it leads to {entry.target}, which is"
    if entry.device != other.device:
        return f"its device is {entry.device[0]}:{entry.device[1]},"
    if entry.kind != entries.SYMLINK and entry.mode != other.mode:
        return f"its mode is {entry.mode:04o},"
    if (entry.uid, entry.gid) != (other.uid, other.gid):
        return f"its owner is {entry.uid}:{entry.gid},"
    if entry.xattrs != other.xattrs:
        return f"its extended attributes are {', '.join(name for name, _ in entry.xattrs) or 'none'},"
    if entry.mtime != other.mtime:
        return f"its time is {entry.mtime},"
    return ""
