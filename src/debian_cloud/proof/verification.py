# SPDX-License-Identifier: GPL-3.0-or-later
"""Explain every path of an image: by the package that ships it, or by what generated it.

The bytes of an image decide whether it is the one that its packages make (`differing`). If they are the rebuild's,
all paths are read from the rebuild. If not, what can be read of the image tells the user what was changed; nothing in
it can make the image valid.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.disk.layout import ESP
from debian_cloud.errors import Error
from debian_cloud.image import entries, generated
from debian_cloud.view import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from debian_cloud.disk.opened import DiskImage, TreeImage
    from debian_cloud.image.entries import Entry
    from debian_cloud.view import View

    Shipped = Mapping[str, Sequence[tuple[str, Entry]]]
    """Path -> each package that ships it, with what it ships there (`manifest.by_path`)."""


MOST: Final = 1000
"""Most unexplained items of one image that are kept; the rest is only counted."""
_GRAIN: Final = 256
"""Bytes that are compared together where two disks differ: those of an inode."""
_GRAINS: Final = 2**15
"""Most of these that are named if they differ: 8 MiB."""
# The order in which unexplained items are reported.
IMAGE, LOUD, ADDED, CHANGED, MISSING, PLACE = range(6)


@dataclass(frozen=True, slots=True)
class Explained:
    """A path, and what explains it: `package` or `generator` is set.

    `shipped` is the path in the package, if it is another: the builder copied the file.
    """

    path: str
    kind: str
    package: str = ""
    generator: str = ""
    shipped: str = ""


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A path, or a place outside all paths, and what is wrong with it; `rank` is its order among others."""

    path: str
    why: str
    rank: int = PLACE


class Tally:
    """Unexplained items by rank: the first few of each rank are kept, and all are counted."""

    def __init__(self) -> None:
        self._kept: dict[int, list[Unexplained]] = {rank: [] for rank in range(PLACE + 1)}
        self.total = 0

    def add(self, one: Unexplained) -> None:
        """Count an item, and keep it if its rank has room."""
        self.total += 1
        if len(self._kept[one.rank]) < MOST:
            self._kept[one.rank].append(one)

    @property
    def first(self) -> tuple[Unexplained, ...]:
        """The most important items, at most MOST."""
        return tuple(itertools.islice(itertools.chain.from_iterable(self._kept.values()), MOST))


def verify(
    image: Iterable[Entry], shipped: Shipped, rebuilt: Iterable[Entry], *, esp: bool = False
) -> Iterator[Explained | Unexplained]:
    """Yield a verdict on each path of the image, and on each that it lacks.

    `shipped` is what the .debs would install (`manifest.by_path`). `rebuilt` is the same image rebuilt from the
    closure's .debs: what no package ships must be in the closed list (`generated.GENERATED`), and equal the rebuild.
    On the EFI system partition (`esp`), packages have only copies of their files, found by content.
    """
    within = ESP if esp else ""
    copies = _by_content(shipped)
    again = {entry.path: entry for entry in rebuilt}

    def origins(entry: Entry) -> Iterator[tuple[str, Entry]]:
        if not esp:
            yield from shipped.get(entry.path, ())
        if esp or generated.is_copy(entry.path):
            found = copies.get((entry.sha256, entry.size), ())
            # Of files with the same content, the most similar path comes first; an empty file needs a similar path.
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
        yield Unexplained(f"{within}{path or '/'}", f"it is missing, although {who} has it", MISSING)


def verify_esp(image: DiskImage, shipped: Shipped, rebuilt: DiskImage) -> Iterator[Explained | Unexplained]:
    """Yield a verdict on each path of the EFI system partition, if the rebuild has one."""
    if rebuilt.esp:
        yield from verify(image.esp.entries() if image.esp else (), shipped, rebuilt.esp.entries(), esp=True)


def readable(
    what: str, verdicts: Callable[[], Iterable[Explained | Unexplained]]
) -> Iterator[Explained | Unexplained]:
    """Yield verdicts on an image whose bytes were compared; if it cannot be read, that is one of them."""
    try:
        yield from verdicts()
    except Error as error:
        yield Unexplained(what, f"it cannot be read: {error.message}", CHANGED)
    except Exception as error:
        # The bytes have already decided, whatever our reader missed.
        yield Unexplained(what, f"it cannot be read: {type(error).__name__}", CHANGED)


def differing(image: View, rebuilt: View) -> Iterator[tuple[int, int]]:
    """Yield where two disks differ: of each few hundred bytes, the first that differs, and how many do.

    All bytes after the end of the shorter disk are reported as one place.
    """
    both = min(image.size, rebuilt.size)
    for start, end in _ranges(image, rebuilt):
        for position in range(start, min(end, both), PIECE):
            size = min(PIECE, min(end, both) - position)
            found, expected = image.read(position, size), rebuilt.read(position, size)
            if found == expected:
                continue
            for at in range(0, size, _GRAIN):
                one, other = found[at : at + _GRAIN], expected[at : at + _GRAIN]
                if one != other:
                    places = [n for n, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
                    yield position + at + places[0], len(places)
    if image.size != rebuilt.size:
        yield both, max(image.size, rebuilt.size) - both


def beside(
    image: DiskImage | TreeImage, rebuilt: DiskImage | TreeImage, told: Container[str]
) -> Iterator[Unexplained]:
    """Yield the places where the bytes of two images differ, one for each name that places have in the rebuild.

    Places of the paths in `told` are left out: a change of a path causes many other differences there.
    """
    found: dict[str, tuple[int, int]] = {}
    for number, (offset, count) in enumerate(differing(image.view, rebuilt.view)):
        if number >= _GRAINS:
            found.setdefault("disk", (offset, 0))
            break
        if offset >= rebuilt.view.size:
            where, path = "after the end", ""
        elif offset >= image.view.size:
            where, path = "missing end", ""
        else:
            where, path = rebuilt.place(offset)
        if path not in told or not path:
            first, before = found.get(where, (offset, 0))
            found[where] = first, before + count
    for where, (offset, count) in found.items():
        how = f"{count} bytes differ from the rebuild, the first" if count > 1 else "it differs from the rebuild"
        yield Unexplained(where, f"{how} at byte {offset}" if count else f"more bytes differ, from byte {offset} on")


def _ranges(image: View, rebuilt: View) -> Iterator[tuple[int, int]]:
    """Yield the ranges that are not a hole in at least one of two files, each byte once."""
    reached = 0
    for start, end in sorted((*image.data, *rebuilt.data)):
        if end > reached:
            yield max(start, reached), end
            reached = end


def _verdict(
    entry: Entry, origins: Sequence[tuple[str, Entry]], again: Entry | None, *, esp: bool
) -> Explained | Unexplained:
    if again is None:
        return Unexplained(entry.path, f"nothing that makes the image has it{_loud(entry)}", _rank(entry, ADDED))
    generator = generated.generator(entry.path, again.target, esp=esp)
    # Times and inode numbers come from the build, not from a package.
    if what := _difference(entry, again):
        who = _who(origins, generator)
        return Unexplained(entry.path, f"{what} not what {who} gives it", _rank(entry, CHANGED))
    for package, of_package in origins:
        if of_package.path != entry.path or esp:
            # A copy: its owner and mode are the rebuild's, as compared above.
            if (entry.kind, entry.sha256, entry.size) == (entries.FILE, of_package.sha256, of_package.size):
                return Explained(entry.path, entry.kind, package, shipped=of_package.path)
        elif not _difference(entry, replace(of_package, mtime=entry.mtime, xattrs=())):
            return Explained(entry.path, entry.kind, package)
    if generator:
        return Explained(entry.path, entry.kind, generator=generator)
    why = "no package ships it, and it is not in the closed list of generated files"
    if origins:
        what = _difference(entry, replace(origins[0][1], mtime=entry.mtime, xattrs=()))
        why = f"{what} not what {origins[0][0]} ships, and no known generator changes it"
    return Unexplained(entry.path, why, _rank(entry, CHANGED))


def _who(origins: Iterable[tuple[str, Entry]], generator: str) -> str:
    """Return what makes a path, in words."""
    return ", ".join(dict.fromkeys(package for package, _ in origins)) or generator or "the rebuild"


def _by_content(shipped: Shipped) -> dict[tuple[str, int], list[tuple[str, Entry]]]:
    """Return SHA-256 and size -> each file with that content, with its package."""
    found: dict[tuple[str, int], list[tuple[str, Entry]]] = {}
    for packages in shipped.values():
        for package, entry in packages:
            if entry.kind == entries.FILE:
                found.setdefault((entry.sha256, entry.size), []).append((package, entry))
    return found


def _alike(path: str, other: str) -> int:
    """Return how many of their last components two paths have in common."""
    pairs = zip(reversed(path.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _loud(entry: Entry) -> str:
    return ", and it is set-user-ID or set-group-ID" if entry.kind == entries.FILE and entry.mode & 0o6000 else ""


def _rank(entry: Entry, rank: int) -> int:
    """Return the rank of an entry: what gives its caller more rights comes first."""
    capable = any(name == "security.capability" for name, _ in entry.xattrs)
    return LOUD if _loud(entry) or capable else rank


def _difference(entry: Entry, other: Entry) -> str:
    """Return, in words, how an entry differs from another of the same path; "" if it does not."""
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
