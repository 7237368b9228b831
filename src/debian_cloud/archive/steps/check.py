# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what an archive serves with what it has signed.

WHAT is `images`: the directories below public/ must hold the files that the archive
signed when it accepted each image, and the record must describe them; or `indexes`,
those of suites, snapshots and closures. Each difference is printed on a line: a
word, the path, a sentence, and for the word `mended` a file that can replace it,
separated by tabs. For images the word is `damaged` for what is not as it was
signed, or `unknown` for a directory without a record; for indexes it is `problem`,
`warning` or `mended`. The exit status is 1 if any word is not `warning` or
`mended`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import checked

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("what", choices=("images", "indexes"), metavar="WHAT", help="images or indexes")
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the archive's own keys")
    parser.add_argument("--fast", action="store_true", help="compare disks and packages only by size")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    found = checked.images if args.what == "images" else checked.indexes
    bad = False
    for one in found(args.archive, args.keyring, fast=args.fast):
        bad |= one.word not in ("warning", "mended")
        print(one.word, one.path, one.sentence, *((one.spare,) if one.spare else ()), sep="\t")
    return int(bad)
