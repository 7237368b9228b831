# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the indexes of the images of one suite of an archive.

The records of STATE/images/SUITE, which the archive entered when it took each
image, become FOLDER/Images: what was withdrawn or has expired is left out, and
of the rest the newest serial of each image is `current`. With --archive, images
of a set in DIR/conf/releases wait for each other: what is held back, and for
what, is printed; nothing that is shown already is taken back so.

FOLDER/Images-Status says of each image that was ever published what became of
it, and which of its packages have a newer version, as `stale` found it. What a
client would refuse is not written: neither of the two, then.
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
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the indexes go")
    parser.add_argument("--archive", type=Path, metavar="DIR", help="the archive, with the sets of its releases")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    found = indexes.listing(args.state, args.suite, args.archive)
    for one in found.held:
        images = " ".join(map(lifecycle.member, one.images))
        print(f"held back: {one.release}: {images} (missing: {' '.join(one.missing)})")
    indexes.write(found, args.folder)
    return 0
