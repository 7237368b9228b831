# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what an archive serves with what it has signed.

WHAT is `images`: the folders below public/ must hold the files that the archive
signed when it took each image, and the record must describe them; or `indexes`, of
suites, snapshots and closures. What differs is printed, one a line: a word, the
path, a sentence, and for the word `mended` a file to take its place, with tabs
between. Of images the word is `damaged` for what is not as it was signed, `unknown`
for a folder of which no record tells; of indexes `problem` or `warning`. The exit
status is 1 where there is more than warnings and what can be mended.
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
    parser.add_argument("--fast", action="store_true", help="compare disks and packages by size alone")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    found = checked.images if args.what == "images" else checked.indexes
    bad = False
    for one in found(args.archive, args.keyring, fast=args.fast):
        bad |= one.word not in ("warning", "mended")
        print(one.word, one.path, one.sentence, *((one.spare,) if one.spare else ()), sep="\t")
    return int(bad)
