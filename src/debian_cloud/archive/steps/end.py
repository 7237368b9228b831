# SPDX-License-Identifier: GPL-3.0-or-later
"""Write each snapshot of an archive that has no Valid-Until, with one.

An older version made such snapshots. Each is written below FOLDER, under its path
in DIR/signed, to be signed again (`vouch`).
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
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the directory to write to")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    signed.end(args.archive, args.folder)
    return 0
