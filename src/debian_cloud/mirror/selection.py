# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a mirror carries.

A mirror with a selection is for clients that need no other image: the signed indexes and checksums list all of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud import formats, names
from debian_cloud.image.id import ImageId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debian_cloud.image.inventory import Entry

_DEEP: Final = 6
"""Parts of the path of a file of an image: TREE/SUITE/CONFIG/ARCH/SERIAL/NAME."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The configurations, architectures and formats of the images, and how many of the newest serials of each.

    Empty and 0 mean all.
    """

    configs: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    newest: int = 0

    def __str__(self) -> str:
        """As options, without line breaks: equal selections have equal texts."""
        numbers = (f"--newest={self.newest}",) if self.newest else ()
        return " ".join((*sorted(f"{option}={word}" for option, word in self.words()), *numbers))

    def words(self) -> Iterator[tuple[str, str]]:
        """Option and value of each word."""
        for option, words in (
            ("--config", self.configs),
            ("--architecture", self.architectures),
            ("--format", self.formats),
        ):
            for word in words:
                yield option, word

    def chosen(self, entries: Iterable[Entry]) -> tuple[tuple[Entry, ...], frozenset[tuple[str, str]]]:
        """The files and links that are carried, and option and value of each word that could select some.

        Error if the path of a file is not one that an image has.
        """
        entries = tuple(entries)
        of = {entry.path: image for entry in entries if (image := _image(entry))}
        # A file of a format that is known neither here nor to the operator is carried: it may be a proof.
        known = {*formats.names(), *self.formats}
        disks: dict[str, str] = {}
        for entry in entries:
            image = of.get(entry.path)
            form = entry.path.rpartition("/")[2].removeprefix(f"{image.stem}.") if image else ""
            if form in known and entry.path.startswith(f"{names.IMAGES}/"):
                disks[entry.path] = form
        forms = defaultdict[ImageId, set[str]](set)
        for path, form in disks.items():
            forms[of[path]].add(form)
        kept = self._kept({image: forms[image] for image in of.values()})
        left_out = {path for path, form in disks.items() if self.formats and form not in self.formats}
        taken = (entry for entry in entries if _is_of(entry, of.get(entry.path), kept, left_out))
        return tuple(taken), frozenset(_offered(of.values(), disks.values()))

    def _kept(self, images: dict[ImageId, set[str]]) -> set[ImageId]:
        """The selected ones of some images, which are given with their formats."""
        found = {
            image
            for image, forms in images.items()
            if (not self.configs or image.config in self.configs)
            and (not self.architectures or image.architecture in self.architectures)
            and (not self.formats or forms & {*self.formats})
        }
        if not self.newest:
            return found
        series = defaultdict[str, list[ImageId]](list)
        for image in sorted(found, key=lambda image: image.number):
            series[image.series].append(image)
        return {image for serials in series.values() for image in serials[-self.newest :]}


EVERYTHING: Final = Selection()


def _image(entry: Entry) -> ImageId | None:
    """The image to which a file belongs, or to which a link of a series leads; None if there is none."""
    parts = entry.path.split("/")
    if entry.target and len(parts) == _DEEP - 1:
        parts = [*parts[:-1], entry.target, ""]
    return ImageId.parse("/".join(parts[1:-1])) if len(parts) == _DEEP else None


def _is_of(entry: Entry, image: ImageId | None, kept: set[ImageId], left_out: set[str]) -> bool:
    """Whether an entry is of an image that is kept, and no disk that is left out, nor a link to one."""
    if not image:
        return True
    beside = f"{entry.directory}/{entry.target}" if entry.target else entry.path
    return image in kept and beside not in left_out


def _offered(images: Iterable[ImageId], forms: Iterable[str]) -> Iterator[tuple[str, str]]:
    for image in {*images}:
        yield "--config", image.config
        yield "--architecture", image.architecture
    for form in {*forms}:
        yield "--format", form
