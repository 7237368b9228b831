# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the image index `Images` of one suite of an archive.

The records (images/SUITE/*/*/*/*.image) below TREE are read, checked against
their own places, and printed as one deb822 file; the newest serial of each
image is `current`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import index, names
from debian_cloud.errors import Error

if TYPE_CHECKING:
    import argparse

PLUMBING = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("tree", type=Path, metavar="TREE", help="the archive's public folder")
    parser.add_argument("suite", metavar="SUITE", help="the suite whose images are listed")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    tree: Path = args.tree
    suite = names.word(args.suite, "suite")
    records: list[index.ImageRecord] = []
    for path in sorted(tree.glob(f"images/{suite}/*/*/*/*.image")):
        # `current` is a link to a serial that is there under its own name.
        if path.parent.is_symlink():
            continue
        for record in index.parse(path.read_text("utf-8"), strict=True):
            if tree / record.directory != path.parent:
                raise Error(f"{path} is the record of {record.directory}", "put it there, or remove it")
            sums = [(path.parent / name).read_text("utf-8") for name in ("SHA256SUMS", "SHA512SUMS")]
            records.append(index.with_buildinfo(record, *sums))
    sys.stdout.write(index.render(index.with_status(records)))
    return 0
