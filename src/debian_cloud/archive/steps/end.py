# SPDX-License-Identifier: GPL-3.0-or-later
"""Write each snapshot of an archive whose signature has no end, with one.

An older version made such snapshots. Below FOLDER each is under its path in
DIR/signed, to be signed anew (`vouch`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import signed

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where they go")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    signed.end(args.archive, args.folder)
    return 0
