# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepare what an archive is about to sign: complete, in agreement with its state, and dated.

FOLDER/dists is as reprepro has written it, with the list of packages in --packages,
and gets the indexes of the images that the archive's state has; with --again it is
made from what was signed last, which must be what is served. Each Release gets its
dates and the keys that will sign it.

Withdrawn and expired images are in no index, and of the rest the newest serial of
each image is `current`. Images of a set in DIR/conf/releases wait for each other:
those that are held back, and those that they wait for, are printed; an image that
is already published stays published. Images-Status has for each image that was ever
published its status, and which of its packages have a newer version, as `stale`
found it. Files lists each file and link of the listed images for mirrors, with its
SHA-256. If a client would refuse one of the three, nothing is prepared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import indexes, lifecycle, ready

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the directory to be signed")
    parser.add_argument("--packages", type=Path, metavar="FILE", help="output of `reprepro list` for all suites")
    parser.add_argument("--again", action="store_true", help="use the indexes that were signed last")
    parser.add_argument("--keyring", type=Path, metavar="FILE", help="the archive's own keys, for --again")
    parser.add_argument("--born", type=int, default=0, metavar="SECONDS", help="when the youngest key was made")
    parser.add_argument(
        "--signers", required=True, metavar="KEYS", help="the fingerprints of the keys that will sign"
    )
    parser.add_argument("--after-wrong-clock", action="store_true", help="ignore dates in the future")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    signing = ready.Signing(args.signers, args.born, after_wrong_clock=args.after_wrong_clock)
    if args.again:
        ready.again(args.archive, args.folder, args.keyring, signing)
        return 0
    for one in indexes.enter(args.archive, args.archive / "state", args.folder / "dists"):
        images = " ".join(map(lifecycle.member, one.images))
        print(f"held back: {one.release}: {images} (missing: {' '.join(one.missing)})")
    ready.anew(args.archive, args.folder, args.packages, signing)
    return 0
