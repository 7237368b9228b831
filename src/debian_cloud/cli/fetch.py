# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch the newest image of a configuration from the archive or its mirror.

The image is listed in the signed index of the archive that the user configured
(FILES), or in the index that `apt update` fetched; apt's own helper downloads it
from the archive of that index, and verifies its SHA-512. An archive whose index is not valid
is named in a warning, and ignored. For an image that was withdrawn, it reports which
archive withdrew it, when, and why.

With --proof, the image's proof is also fetched, into the directory STEM.proof
beside it: its record, its .buildinfo, the archive's signed sums, and in
STEM.proof/closure its closure, from the mirror or else from the archive itself.
Then `debian-cloud verify IMAGE` needs nothing else. A file under its final
name is complete, even if a run is interrupted: until then, it is in a hidden
directory, which the next run for the same image removes. If no place has a closure,
a warning names the places; a directory STEM.proof/closure that was copied there by
other means is used as well.

    debian-cloud fetch ec2 --output images
    debian-cloud fetch container --suite bookworm --serial 20261121.0
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.cli import options, warn
from debian_cloud.packages.offers import Wanted
from debian_cloud.proof import fetch

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("config", metavar="CONFIG", help="an image configuration, such as ec2")
    options.add_suite(parser)
    parser.add_argument("--format", default="", help="its format (default: qcow2, or another that exists)")
    parser.add_argument("--serial", default="", help="its serial, YYYYMMDD.N (default: the current one)")
    parser.add_argument("--archive", default="", metavar="URL", help="the archive, if apt knows several")
    parser.add_argument(
        "--proof", action="store_true", help="also fetch the files that `verify` needs, into a directory beside it"
    )
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    wanted = Wanted(args.config, args.suite, args.arch, args.format, args.serial, args.archive)
    print(fetch.fetch(wanted, args.output, warn, proof=args.proof))
    return 0
