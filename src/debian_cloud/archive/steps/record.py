# SPDX-License-Identifier: GPL-3.0-or-later
"""Enter an admitted and signed image into the state of an archive.

FOLDER holds the files of one image as they will be published. Its record is
added to STATE/images/SUITE, with the hashes of what the archive and debsign have
added since: the .buildinfo as it was signed, and the attestations. An image that
the archive ever had is refused, so that nothing old comes back under its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import state
from debian_cloud.errors import Error
from debian_cloud.host import checksums, files
from debian_cloud.image import index

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the files of one image")
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state, not the one in use")
    parser.add_argument("suite", metavar="SUITE", help="the suite of the image")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    folder: Path = args.folder
    known = state.records(args.state, args.suite)
    (path,) = folder.glob("*.image")
    added = index.parse(files.text(path), strict=True)
    directory = added[0].directory
    if any(record.directory == directory for record in known):
        raise Error(
            f"the archive has or had {directory}, and no path is ever used again", "build it with a new serial"
        )
    others = {record.name for record in added} | {f"{added[0].stem}.image", f"{added[0].stem}.changes"}
    digests = {
        found.name: checksums.digest(found)
        for found in sorted(folder.iterdir())
        if found.name not in others and not found.name.startswith("SHA")
    }
    added = tuple(index.with_files(record, digests) for record in added)
    state.enter(args.state, args.suite, (*known, *added))
    return 0
