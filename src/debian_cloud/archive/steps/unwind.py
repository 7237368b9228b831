# SPDX-License-Identifier: GPL-3.0-or-later
"""Set dates in the future in the next state of an archive to today.

This lets an archive continue after its clock was ahead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import statuses

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's next state")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    statuses.unwind(args.state)
    return 0
