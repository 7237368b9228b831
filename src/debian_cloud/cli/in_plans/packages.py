# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch the .debs of lists into a new directory, each verified by its SHA-256.

LIST has a line for each: SHA-256, size, file name, URI as apt reads it. Files are kept
in the cache by their SHA-256, so that the next plan need not fetch them. A plan
calls this before it installs packages; without a list if all stages are in the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.packages import pool

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="where they go, a new directory")
    parser.add_argument("lists", type=Path, nargs="*", metavar="LIST", help="a list of .debs")
    parser.add_argument("--offline", action="store_true", help="use no network: all of them must be in the cache")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    pool.fetch(args.directory, args.lists, offline=args.offline)
    return 0
