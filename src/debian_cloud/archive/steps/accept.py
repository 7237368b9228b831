# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the next upload from the queue of an archive.

Of what is in DIR/incoming, the first upload that an uploader has signed and that
is whole comes into DIR/tmp/checked, as copies that nobody else can change: from
the list in the signed text, each file with its size and hash, and each package
read as strictly as no tool does. Whatever comes before it and is none is set
aside in DIR/rejected, with a reason. A line a decision is printed. When nothing
is left, DIR/tmp/checked is empty.

With --refused, the upload that was taken is set aside before that, for the
reason in the file.
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
        help="the keys that sign, as the step `signing` lists them",
    )
    parser.add_argument(
        "--keyring", type=Path, required=True, metavar="FILE", help="the same keys, as gpg --export writes them"
    )
    parser.add_argument(
        "--owners", type=Path, required=True, metavar="FILE", help="packages of all suites, each with its source"
    )
    parser.add_argument("--refused", type=Path, metavar="FILE", help="why the one that was taken is refused")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    known = incoming.rules(args.archive, args.keyring, args.keys, args.owners)
    for line in incoming.decide(args.archive, known, args.refused):
        print(line)
    return 0
