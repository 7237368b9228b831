# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the indexes of the images of one suite of an archive.

The records of STATE/images/SUITE, which the archive entered when it accepted each
image, become FOLDER/Images: withdrawn and expired images are left out, and of the
rest the newest serial of each image is `current`. With --archive, images of a set
in DIR/conf/releases wait for each other: those that are held back, and those that
they wait for, are printed; an image that is already published stays published.

FOLDER/Images-Status has for each image that was ever published its status, and
which of its packages have a newer version, as `stale` found it. FOLDER/Files lists
each file and link of the listed images for mirrors, with its SHA-256. If a client
would refuse one of the three, none is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import indexes, lifecycle

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state")
    parser.add_argument("suite", metavar="SUITE", help="the suite whose images are listed")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the directory for the indexes")
    parser.add_argument("--archive", type=Path, metavar="DIR", help="the archive, with the sets of its releases")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    found = indexes.listing(args.state, args.suite, args.archive)
    for one in found.held:
        images = " ".join(map(lifecycle.member, one.images))
        print(f"held back: {one.release}: {images} (missing: {' '.join(one.missing)})")
    indexes.write(found, args.folder)
    return 0
