# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what was signed and is about to be published.

All of FOLDER must be signed by the archive and complete; otherwise nothing is
recorded, and the exit status is 3, or 1 on a full disk.
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
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the directory to be published")
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the archive's own keys")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    signed.note(args.archive, args.folder, args.keyring)
    return 0
