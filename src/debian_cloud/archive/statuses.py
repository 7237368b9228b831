# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to the status of images in an archive: by its operator, or after a wrong clock."""

from __future__ import annotations

import time
from datetime import date
from typing import TYPE_CHECKING, Final

from debian_cloud.archive import lifecycle, state
from debian_cloud.errors import USAGE, Error
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from debian_cloud.image.index import ImageRecord

_PARTIAL: Final = "partial"
STATUSES: Final = ("withdrawn", "deprecated", _PARTIAL)


def mark(archive: Path, following: Path, status: str, named: str, reason: str = "", cves: Sequence[str] = ()) -> None:
    """Mark in the next state an image as withdrawn or deprecated, or a release as partial.

    `named` is SUITE/CONFIG/ARCH/SERIAL of an image, or SUITE/SERIAL of a release; Error if it does not exist.
    """
    what = named.removeprefix("images/").strip("/")
    suite = what.partition("/")[0]
    if suite not in (known := state.suites(following)):
        raise Error(
            f"the archive has no image {printable(named, 120)}",
            f"it has images of {', '.join(known)}" if known else "it has no images",
            USAGE,
        )
    records = state.records(following, suite)
    if status == _PARTIAL:
        records = lifecycle.partial(records, state.held(archive, suite, records), what)
    elif status == "withdrawn" and _is_unpublished(archive, suite, what, records):
        # An interrupted run has marked it, but that is not published yet.
        return
    else:
        records = lifecycle.marked(records, what, status, _today(), reason, cves)
    state.enter(following, suite, records)


def unwind(following: Path) -> None:
    """Set the dates of the next state that are in the future to today."""
    today = _today()
    for suite in state.suites(following):
        state.enter(following, suite, lifecycle.unwound(state.records(following, suite), today))
    if days := state.leaving(following):
        days = {path: min(day, today) for path, day in days.items()}
        (following / "leaving").write_text(lifecycle.render_leaving(days), "utf-8")


def _today() -> date:
    return date.fromisoformat(time.strftime("%Y-%m-%d", time.gmtime()))


def _is_unpublished(archive: Path, suite: str, image: str, records: tuple[ImageRecord, ...]) -> bool:
    """Whether an image is withdrawn, but the published index still lists it."""
    withdrawn = {record.id for record in records if str(record.id) == image and record.status == "withdrawn"}
    return bool(withdrawn & state.shown(archive / "public", suite))
