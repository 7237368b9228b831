# SPDX-License-Identifier: GPL-3.0-or-later
"""Fail if an archive serves something under dists that is not what it signed last.

Nothing must be made from that: neither a snapshot nor a cosigner's signature.
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
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the archive's own keys")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    signed.refuse_changed(args.archive, args.keyring)
    return 0
