# SPDX-License-Identifier: GPL-3.0-or-later
"""Every path of an image explained: by the package that ships it, or by what generated it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class Explained:
    """A path, and why it is as it is: one of the two is set."""

    entry: Entry
    package: str = ""
    generator: str = ""


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A path, or a place beside all paths, and what is wrong with it."""

    path: str
    why: str


def verify(
    image: Iterable[Entry],
    shipped: Shipped,
    rebuilt: Iterable[Entry],
    within: str = "",
) -> Iterator[Explained | Unexplained]:
    """A verdict on each path of the image, and on each that it lacks. `within` says of which file system.

    `shipped` is what the .debs would put there (`manifest.by_path`). `rebuilt`
    is the same image made again of the closure's own .debs: what a package does
    not ship must be of the closed list (`generated.GENERATED`), and equal what
    came out there.
    """
    again = {entry.path: entry for entry in rebuilt}
    there = set()
    for entry in image:
        there.add(entry.path)
        verdict = _verdict(entry, shipped.get(entry.path, ()), again.get(entry.path), within)
        if isinstance(verdict, Unexplained):
            verdict = replace(verdict, path=f"{within}{verdict.path or '/'}")
        yield verdict
    for path in sorted(again.keys() - there):
        who = ", ".join(package for package, _ in shipped.get(path, ()))
        yield Unexplained(
            f"{within}{path}", f"it is not there, though {who or generated.generator(path) or 'the rebuild'} has it"
        )


def beside(image: DiskImage, rebuilt: DiskImage) -> Iterator[Unexplained]:
    """What is wrong with a disk beside the paths of its root file system: nothing, or a place and its bytes."""
    yield from left(image)
    if image.boot_code != rebuilt.boot_code:
        yield Unexplained("boot sector", "it is not GRUB's as grub-pc-bin has it")
    if image.bios != rebuilt.bios:
        yield Unexplained("BIOS boot partition", "it is not GRUB's core as the rebuild makes it")
    if image.table != rebuilt.table:
        yield Unexplained("partition table", "it is not the one that the image's name and size give")
    if image.esp and rebuilt.esp:
        for verdict in verify(image.esp.entries(), {}, rebuilt.esp.entries(), "EFI system partition: "):
            if isinstance(verdict, Unexplained):
                yield verdict
    elif image.esp or rebuilt.esp:
        yield Unexplained("EFI system partition", "it is not there" if rebuilt.esp else "it should not be there")


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
    entry: Entry, shipped: Sequence[tuple[str, Entry]], again: Entry | None, within: str
) -> Explained | Unexplained:
    if again is None:
        return Unexplained(entry.path, "nothing that the image is made of has it" + _loud(entry))
    # Times and numbers of inodes are the build's, not a package's.
    if what := _difference(entry, again):
        who = ", ".join(package for package, _ in shipped) or generated.generator(entry.path, again.target)
        who = who or "the rebuild"
        return Unexplained(entry.path, f"{what} not what {who} gives it")
    for package, of_package in shipped:
        if not _difference(entry, replace(of_package, mtime=entry.mtime, xattrs=())):
            return Explained(entry, package=package)
    generator = generated.generator(entry.path, entry.target)
    if generator or within:
        return Explained(entry, generator=generator or "debian-cloud")
    if shipped:
        what = _difference(entry, replace(shipped[0][1], mtime=entry.mtime, xattrs=()))
        return Unexplained(entry.path, f"{what} not what {shipped[0][0]} ships, and nothing that is known changes it")
    return Unexplained(entry.path, "no package ships it, and it is not of the closed list of generated files")


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
