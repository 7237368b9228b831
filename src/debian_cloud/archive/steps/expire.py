# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out what an archive need not keep.

DIR is the archive, WORK a directory of files with a path or a word on each line.
STEP `tracks` reads WORK/tracks (reprepro's dumptracks) and writes WORK/listed and
WORK/in-snapshots, the pool files and the images in the signed indexes that the
policy keeps; WORK/snapshots, the snapshots that it does not keep; and WORK/untrack,
versions that no suite has. STEP `plan` reads these, and WORK/unreferenced and
WORK/known (reprepro's dumpunreferenced and _listchecksums), and writes
WORK/expired; WORK/state, the files of the state that change; WORK/shown, the
withdrawn or expired images that an index still lists; WORK/folders, WORK/forget and
WORK/pool, what is removed; and WORK/report. Nothing else is changed. A clock that
is behind the last publication is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import expiry

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("step", choices=("tracks", "plan"), metavar="STEP", help="tracks, then plan")
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("work", type=Path, metavar="WORK", help="files to read and write")
    parser.add_argument("--dry-run", action="store_true", help="report what would be done")
    parser.add_argument("--json", action="store_true", help="report in JSON")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    if args.step == "tracks":
        expiry.tracks(args.archive, args.work)
    else:
        found = expiry.plan(args.archive, args.work)
        report = (expiry.as_json if args.json else expiry.as_text)(found, dry_run=args.dry_run)
        (args.work / "report").write_text(report, "utf-8")
    return 0
