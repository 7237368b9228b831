# SPDX-License-Identifier: GPL-3.0-or-later
"""Say in the state of an archive what became of an image, or that a release may be incomplete.

STATUS is withdrawn or deprecated, and WHAT an image, SUITE/CONFIG/ARCH/SERIAL;
or it is partial, and WHAT a release that is held back, SUITE/SERIAL. STATE is
changed: it is not the one in use.
"""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import lifecycle, state
from debian_cloud.errors import USAGE, Error
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.index import ImageRecord

_PARTIAL = "partial"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("status", choices=("withdrawn", "deprecated", _PARTIAL), metavar="STATUS", help="what it is")
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("state", type=Path, metavar="STATE", help="its next state")
    parser.add_argument("what", metavar="WHAT", help="the image, or the release")
    parser.add_argument("--reason", default="", metavar="TEXT", help="what users are told, in one line")
    parser.add_argument("--cve", action="append", default=[], metavar="CVE", help="one that it is about; repeatable")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    what: str = args.what.removeprefix("images/").strip("/")
    suite = what.partition("/")[0]
    if suite not in (known := state.suites(args.state)):
        raise Error(
            f"the archive has no image {printable(args.what, 120)}",
            f"it has images of {', '.join(known)}" if known else "it has none at all",
            USAGE,
        )
    records = state.records(args.state, suite)
    if args.status == _PARTIAL:
        records = lifecycle.partial(records, state.held(args.archive, suite, records), what)
    elif args.status == "withdrawn" and _is_unpublished(args.archive, suite, what, records):
        # A run that was cut off has said so, and nobody has read it yet.
        return 0
    else:
        today = date.fromisoformat(time.strftime("%Y-%m-%d", time.gmtime()))
        records = lifecycle.marked(records, what, args.status, today, args.reason, args.cve)
    state.enter(args.state, suite, records)
    return 0


def _is_unpublished(archive: Path, suite: str, image: str, records: tuple[ImageRecord, ...]) -> bool:
    """Whether an image was withdrawn, and the index that is shown lists it all the same."""
    return f"images/{image}" in state.shown(archive / "public", suite) and any(
        record.directory == f"images/{image}" and record.status == "withdrawn" for record in records
    )
