# SPDX-License-Identifier: GPL-3.0-or-later
"""Enter an admitted and signed image into the state of an archive.

FOLDER holds the files of one image as they will be published. Its record is added
to STATE/images/SUITE, with the hashes of what the archive and debsign have added
since: the .buildinfo as it was signed, and the attestations. An image that the
archive has or ever had is refused, so that no old image comes back under its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import images

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the files of one image")
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state, not the one in use")
    parser.add_argument("suite", metavar="SUITE", help="the suite of the image")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    images.enter(args.folder, args.state, args.suite)
    return 0
