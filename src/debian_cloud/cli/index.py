# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the image index of one suite of an archive.

The records of STATE/images/SUITE, which the archive entered when it took each
image, become FOLDER/Images: what was withdrawn or has expired is left out, and
of the rest the newest serial of each image is `current`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import index, names

if TYPE_CHECKING:
    import argparse

PLUMBING = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state")
    parser.add_argument("suite", metavar="SUITE", help="the suite whose images are listed")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the index goes")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    file: Path = args.state / "images" / names.word(args.suite, "suite")
    records = index.parse(file.read_text("utf-8")) if file.exists() else ()
    (args.folder / "Images").write_text(index.render(index.with_status(index.listed(records))), "utf-8")
    return 0
