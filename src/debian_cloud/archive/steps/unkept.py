# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the images whose closures an archive must keep and does not have.

DIR is the archive. Each image is printed as SUITE/CONFIG/ARCH/SERIAL, sorted by the
number of failures, then newest first. With --due, only those whose next try is due
are printed. With --failed, nothing is printed: the reason, from standard input, is
noted for that image, with the time of the next try: after an hour, then after two,
at last once a day.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.archive import closures
from debian_cloud.image.id import ImageId

if TYPE_CHECKING:
    import argparse

_SAID: Final = 2**16
"""Maximum characters of standard input."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("--due", action="store_true", help="print only images whose next try is due")
    parser.add_argument("--failed", default="", metavar="IMAGE", help="note that its closure could not be made")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    if args.failed:
        closures.note_failure(args.archive, ImageId.parse(args.failed), sys.stdin.read(_SAID))
        return 0
    for image in closures.wanting(args.archive, due=args.due):
        print(image)
    return 0
