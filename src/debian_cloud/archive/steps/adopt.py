# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what an archive has signed, if that is known only by its signature.

This is for PATHs below DIR/public that were just made, and without a PATH for all
that an older version left. What is incomplete or in the wrong place is left out.
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
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", help="below DIR/public")
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the archive's own keys")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    signed.adopt(args.archive, args.keyring, args.paths)
    return 0
