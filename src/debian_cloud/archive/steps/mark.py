# SPDX-License-Identifier: GPL-3.0-or-later
"""Mark in the state of an archive an image as withdrawn or deprecated, or a release as partial.

STATUS is withdrawn or deprecated, and WHAT an image, SUITE/CONFIG/ARCH/SERIAL; or
STATUS is partial, and WHAT a release that is held back, SUITE/SERIAL. STATE is
changed: it must not be the one in use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import statuses

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("status", choices=statuses.STATUSES, metavar="STATUS", help="the new status")
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("state", type=Path, metavar="STATE", help="its next state")
    parser.add_argument("what", metavar="WHAT", help="the image, or the release")
    parser.add_argument("--reason", default="", metavar="TEXT", help="the reason for users, in one line")
    parser.add_argument("--cve", action="append", default=[], metavar="CVE", help="a CVE of the reason; repeatable")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    statuses.mark(args.archive, args.state, args.status, args.what, args.reason, args.cve)
    return 0
