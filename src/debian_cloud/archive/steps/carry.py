# SPDX-License-Identifier: GPL-3.0-or-later
"""Enter into the state of an archive the files beside each image that no record lists.

They are entered as they are served below DIR/public, if the archive's checksums
there are signed by a key in FILE and agree. For each image of which that is not so,
a warning is printed, and none of its files is entered.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import carried
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state, not the one in use")
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the archive's own keys")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    for sentence in carried.enter(args.archive, args.state, args.keyring):
        print(f"warning: {printable(sentence)}")
    return 0
