# SPDX-License-Identifier: GPL-3.0-or-later
"""Add the signatures of cosigners to the release files that an archive publishes.

Each FILE is the output of `gpg --clearsign` or `gpg --detach-sign` for a Release of
PUBLIC, in dists or in a snapshot: the first goes into InRelease, the second into
Release.gpg. Each signature must be a good one by a key of --keyring; one by a key
that has signed already changes nothing. The files that change are written below
OUTPUT under their names in PUBLIC, with the copies of the same InRelease that
closures have kept. For each signature, the directory, FILE and signer are printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import cosignatures

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("public", type=Path, metavar="PUBLIC", help="the archive's public directory")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="a new directory for the changed files")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a cosigner's signature")
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the keys of the cosigners")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    for one in cosignatures.add(args.public, args.output, args.files, args.keyring):
        print(f"{one.place}: {one.name} is signed by {one.signer}")
    return 0
