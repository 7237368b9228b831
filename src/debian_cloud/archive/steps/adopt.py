# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down what an archive has signed, where that is known by its signature alone.

So it is for PATHs below DIR/public, which were made just now, and without a PATH
for all that an older version left. What is not whole, or is in another's place, is
left out.
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
    """Do it; the exit status."""
    signed.adopt(args.archive, args.keyring, args.paths)
    return 0
