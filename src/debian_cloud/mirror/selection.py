# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a mirror carries.

A mirror with a selection is for clients that need no other image: the signed indexes and checksums list all of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debian_cloud.image.index import ImageRecord


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

    def takes(self, record: ImageRecord) -> bool:
        """Whether a file has the right configuration, architecture and format, whatever its serial."""
        return (
            (not self.configs or record.id.config in self.configs)
            and (not self.architectures or record.id.architecture in self.architectures)
            and (not self.formats or record.format in self.formats)
        )

    def chosen(self, records: Iterable[ImageRecord]) -> Iterator[tuple[ImageRecord, bool]]:
        """Each file in an index, and whether it is carried."""
        if not self.newest:
            yield from ((record, self.takes(record)) for record in records)
            return
        known = [(record, self.takes(record)) for record in records]
        serials = defaultdict[str, set[tuple[int, int]]](set)
        for record, taken in known:
            if taken:
                serials[record.id.series].add(record.id.number)
        kept = {series: {*sorted(numbers)[-self.newest :]} for series, numbers in serials.items()}
        yield from ((record, taken and record.id.number in kept[record.id.series]) for record, taken in known)


EVERYTHING: Final = Selection()


def described_by(record: ImageRecord) -> Iterator[tuple[str, str]]:
    """Option and value of each word that selects a file."""
    yield "--config", record.id.config
    yield "--architecture", record.id.architecture
    yield "--format", record.format
