# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepare what an archive is about to sign: complete, in agreement with its state, and dated.

FOLDER/dists is as reprepro has written it, with the list of packages in --packages;
with --again it is made from what was signed last, which must be what is served.
Each Release gets its dates.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import ready

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the directory to be signed")
    parser.add_argument("--packages", type=Path, metavar="FILE", help="output of `reprepro list` for all suites")
    parser.add_argument("--again", action="store_true", help="use the indexes that were signed last")
    parser.add_argument("--keyring", type=Path, metavar="FILE", help="the archive's own keys, for --again")
    parser.add_argument("--born", type=int, default=0, metavar="SECONDS", help="when the youngest key was made")
    parser.add_argument("--after-wrong-clock", action="store_true", help="ignore dates in the future")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    known = args.keyring if args.again else args.packages
    make = ready.again if args.again else ready.anew
    make(args.archive, args.folder, known, args.born, after_wrong_clock=args.after_wrong_clock)
    return 0
