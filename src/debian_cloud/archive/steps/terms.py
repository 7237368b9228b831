# SPDX-License-Identifier: GPL-3.0-or-later
"""Print each suite of an archive, and for how many seconds its signatures are valid.

The scripts that make the keyring package, and decide when machines have it, call
this.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import signed

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    for suite, term in signed.terms_of(args.archive).items():
        print(suite, term)
    return 0
