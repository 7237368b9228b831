# SPDX-License-Identifier: GPL-3.0-or-later
"""The indexes of an archive's images, and of their files, as they will be signed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from debian_cloud.archive import lifecycle, state
from debian_cloud.image import index, inventory, staleness

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debian_cloud.archive.lifecycle import Held
    from debian_cloud.image.index import ImageRecord
    from debian_cloud.image.inventory import Entry
    from debian_cloud.text.deb822 import Stanza


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a suite's indexes: records with their status, withdrawn or expired records, and pending updates.

    `held` are images that wait for others, and are not in the indexes; `pending` is by the path of an image; `beside`
    are the files beside the listed images that no record lists.
    """

    held: tuple[Held, ...]
    listed: tuple[ImageRecord, ...]
    gone: tuple[ImageRecord, ...]
    pending: Mapping[str, Stanza]
    beside: tuple[Entry, ...] = ()


def listing(known: Path, suite: str, archive: Path) -> Listing:
    """The listing of a suite from a state; `archive` gives its release sets, and the closures it must keep."""
    records = state.records(known, suite)
    held = state.held(archive, suite, records)
    unkept = state.unkept(archive, suite, records)
    listed = lifecycle.published(records, held, unkept)
    directories = {record.directory for record in listed}
    return Listing(
        held,
        listed,
        tuple(record for record in records if record.status in lifecycle.GONE),
        state.pending(known, suite),
        tuple(entry for entry in state.files(known, suite) if entry.directory in directories),
    )


def write(found: Listing, folder: Path) -> None:
    """Write Images, Images-Status and Files into a directory; Error if a client would refuse one of them."""
    images = index.render(found.listed)
    became = staleness.render((*found.listed, *found.gone), found.pending)
    # apt fetches no empty file, and would not know the archive; an empty line is not a record for any reader.
    images, became = images or "\n", became or "\n"
    entries = [entry for record in found.listed for entry in inventory.of_record(record)]
    carried = inventory.render((*entries, *found.beside)) or "\n"
    # Only what clients and mirrors accept is signed.
    index.parse(images)
    staleness.parse(became)
    for _entry in inventory.read(io.BytesIO(carried.encode("ascii"))):
        pass
    (folder / "Images").write_text(images, "utf-8")
    (folder / "Images-Status").write_text(became, "utf-8")
    (folder / inventory.NAME).write_text(carried, "ascii")
