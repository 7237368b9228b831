# SPDX-License-Identifier: GPL-3.0-or-later
"""The indexes of an archive's images, as they will be signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debian_cloud.archive import lifecycle, state
from debian_cloud.image import index, staleness
from debian_cloud.image.id import ImageId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debian_cloud.archive.lifecycle import Held
    from debian_cloud.image.index import ImageRecord
    from debian_cloud.text.deb822 import Stanza


@dataclass(frozen=True, slots=True)
class Listing:
    """What the indexes of a suite will say: records with their status, those that are gone, and what is pending.

    `held` waits for other images, and is not in it; `pending` is by the path of an image.
    """

    held: tuple[Held, ...]
    listed: tuple[ImageRecord, ...]
    gone: tuple[ImageRecord, ...]
    pending: Mapping[str, Stanza]


def listing(known: Path, suite: str, archive: Path | None) -> Listing:
    """What a state says of a suite; an archive has the sets of its releases, and what it is to keep."""
    records = state.records(known, suite)
    held = state.held(archive, suite, records) if archive else ()
    unkept = state.unkept(archive, suite, records) if archive else frozenset[ImageId]()
    return Listing(
        held,
        lifecycle.published(records, held, unkept),
        tuple(record for record in records if record.status in lifecycle.GONE),
        state.pending(known, suite),
    )


def write(found: Listing, folder: Path) -> None:
    """Write Images and Images-Status into a folder; Error when a client would refuse one of them."""
    images = index.render(found.listed)
    became = staleness.render((*found.listed, *found.gone), found.pending)
    # apt fetches no empty file, and would not know the archive; an empty line is no record to any reader.
    images, became = images or "\n", became or "\n"
    # Signed is what clients and mirrors take, and nothing else.
    index.parse(images)
    staleness.parse(became)
    (folder / "Images").write_text(images, "utf-8")
    (folder / "Images-Status").write_text(became, "utf-8")
