# SPDX-License-Identifier: GPL-3.0-or-later
"""Enter a rebuilder's statement on an image into the state of an archive.

FILE is a statement that `rebuild --statement` wrote: signed by one key of
--keyring, about a published image of STATE, and about the same bytes of each file
of it. Its path below the archive's public directory is printed; the record gets its
size and its hash. A second statement by the same key on an image is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import statements

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("state", type=Path, metavar="STATE", help="its next state")
    parser.add_argument("file", type=Path, metavar="FILE", help="the signed statement")
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the rebuilders' keys")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    print(statements.enter(args.archive, args.state, args.file, args.keyring))
    return 0
