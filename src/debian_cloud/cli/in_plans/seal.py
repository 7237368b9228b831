# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the .buildinfo, the record and the .changes of a built image.

DIR is a build's workspace: it has the disks and the file `facts`, both
made by the steps before. A plan calls this as its last step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.build import seal

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the workspace of a build")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    seal.seal(args.folder)
    return 0
