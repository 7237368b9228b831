# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell of which images an archive has yet to keep what they were made of.

DIR is the archive. Each image whose closure it is to keep and has not is printed,
SUITE/CONFIG/ARCH/SERIAL: those first that failed least often, and of these the
newest. With --due, only those whose time for another try has come. With
--failed, nothing is printed, and what standard input says of that image is noted
as the reason, and when it is to be tried again: after an hour, then after two, at
last once a day.
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
"""Characters of standard input, at most."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("--due", action="store_true", help="only those that are to be tried by now")
    parser.add_argument("--failed", default="", metavar="IMAGE", help="note that its closure could not be made")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    if args.failed:
        closures.note_failure(args.archive, ImageId.parse(args.failed), sys.stdin.read(_SAID))
        return 0
    for image in closures.wanting(args.archive, due=args.due):
        print(image)
    return 0
