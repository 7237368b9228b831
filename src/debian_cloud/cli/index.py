# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the image index `Images` of one suite of an archive.

The records (images/SUITE/*/*/*/*.image) below TREE are read, checked against
their own places, and printed as one deb822 file; the newest serial of each
image is `current`. What the archive adds is of files that it signed when it
took the image: its .buildinfo and its attestations must still be the ones in
SHA512SUMS, which a key of the keyring must have signed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import checksums, index, names, sign
from debian_cloud.errors import Error

if TYPE_CHECKING:
    import argparse

    from debian_cloud.checksums import Digest

PLUMBING = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("tree", type=Path, metavar="TREE", help="the archive's public folder")
    parser.add_argument("suite", metavar="SUITE", help="the suite whose images are listed")
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the archive's own keys")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    tree: Path = args.tree
    suite = names.word(args.suite, "suite")
    records: list[index.ImageRecord] = []
    for path in sorted(tree.glob(f"images/{suite}/*/*/*/*.image")):
        # `current` is a link to a serial that is there under its own name.
        if path.parent.is_symlink():
            continue
        found = index.parse(path.read_text("utf-8"), strict=True)
        for record in found:
            if tree / record.directory != path.parent:
                raise Error(f"{path} is the record of {record.directory}", "put it there, or remove it")
        digests = _signed(path, {record.name for record in found}, args.keyring)
        records += (index.with_files(record, digests) for record in found)
    sys.stdout.write(index.render(index.with_status(records)))
    return 0


def _signed(record: Path, disks: set[str], keyring: Path) -> dict[str, Digest]:
    """The .buildinfo and the attestations beside a record; they and the record itself are as they were signed."""
    sums = record.with_name("SHA512SUMS")
    signed = sign.verified(keyring, sums, sums.with_name("SHA512SUMS.gpg")).content.decode("ascii")
    digests: dict[str, Digest] = {}
    # A disk is large, and whoever fetches it compares it with the record; the .changes no index lists.
    listed = {line.partition("  ")[2] for line in signed.splitlines()} - disks - {f"{record.stem}.changes"}
    for name in sorted({*listed, record.name, f"{record.stem}.buildinfo"}):
        wanted = checksums.find(signed, name)
        file = record.with_name(name)
        found = checksums.digest(file) if file.is_file() else None
        if not found or found.hashes["sha512"] != wanted:
            raise Error(
                f"{file} is not the file that the archive signed", "put that back, or remove the whole folder"
            )
        if file != record:
            digests[name] = found
    return digests
