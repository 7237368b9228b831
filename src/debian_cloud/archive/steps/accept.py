# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the next upload from the queue of an archive.

The first complete upload in DIR/incoming that an uploader has signed is copied into
DIR/tmp/checked, where no other process can change it: the files of its signed list,
each with its size and hash. Each package is then parsed strictly. Anything before
it that is not such an upload is moved to DIR/rejected, with a reason. A line is
printed for each decision. If no upload is left, DIR/tmp/checked is empty.

With --refused, the upload that was taken before is first moved to DIR/rejected, for
the reason in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import incoming

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive, whose lock is held")
    parser.add_argument(
        "--keys",
        type=Path,
        required=True,
        metavar="FILE",
        help="the uploaders' keys, as the step `signing` lists them",
    )
    parser.add_argument(
        "--keyring", type=Path, required=True, metavar="FILE", help="the same keys, as gpg --export writes them"
    )
    parser.add_argument(
        "--owners", type=Path, required=True, metavar="FILE", help="packages of all suites, each with its source"
    )
    parser.add_argument("--refused", type=Path, metavar="FILE", help="the reason to refuse the upload that was taken")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    known = incoming.rules(args.archive, args.keyring, args.keys, args.owners)
    for line in incoming.decide(args.archive, known, args.refused):
        print(line)
    return 0
