# SPDX-License-Identifier: GPL-3.0-or-later
"""Take from the next state of an archive what is dated in the future.

So it goes on after a clock that was ahead: what is dated after today is of today.
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
    """Do it; the exit status."""
    statuses.unwind(args.state)
    return 0
