# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the indexes of the images of all suites in a directory, which is DISTS.

The records of STATE/images/SUITE, which the archive entered when it accepted each
image, become SUITE/main/images/Images: withdrawn and expired images are left out,
and of the rest the newest serial of each image is `current`. Images of a set in
DIR/conf/releases wait for each other: those that are held back, and those that
they wait for, are printed; an image that is already published stays published.

Images-Status has for each image that was ever published its status, and which of
its packages have a newer version, as `stale` found it. Files lists each file and
link of the listed images for mirrors, with its SHA-256. If a client would refuse
one of the three, none is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import indexes, lifecycle

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive, with the sets of its releases")
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state")
    parser.add_argument("dists", type=Path, metavar="DISTS", help="the directory of the suites")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    for suite in sorted(path for path in args.dists.iterdir() if path.is_dir()):
        found = indexes.listing(args.state, suite.name, args.archive)
        for one in found.held:
            images = " ".join(map(lifecycle.member, one.images))
            print(f"held back: {one.release}: {images} (missing: {' '.join(one.missing)})")
        folder = suite / "main/images"
        folder.mkdir(parents=True, exist_ok=True)
        indexes.write(found, folder)
    return 0
