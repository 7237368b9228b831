# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep all packages that an image was made of, so that it can be verified and rebuilt.

BUILDINFO names each package by version and SHA-256. They are fetched through apt,
as are the signed release files and the indexes that list them; a package that no
signed source lists with this SHA-256 is refused. FOLDER becomes an apt suite with
these packages and this evidence. Its Release is signed by each --signer, or by the
first secret key of --homedir. What POOL already has is linked, not fetched again:
serials that share a POOL cost what changed between them. POOL and FOLDER must be on
one file system. The last line gives the number of packages, their bytes, and the
bytes that were added to POOL. If it fails or is interrupted, FOLDER is not made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import admission, closures
from debian_cloud.host import signals
from debian_cloud.packages import described, origin, words

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("buildinfo", type=Path, metavar="BUILDINFO", help="the .buildinfo of an image")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="directory of the closure; it must not exist")
    parser.add_argument("--pool", type=Path, required=True, metavar="POOL", help="files shared with other closures")
    parser.add_argument("--homedir", type=Path, required=True, metavar="DIR", help="GnuPG home of the key that signs")
    parser.add_argument(
        "--signer", action="append", default=[], metavar="KEY", help="a key that signs, by fingerprint; repeatable"
    )
    words.add_source(words.add_places(parser))


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    with signals.ending_politely():
        buildinfo = described.of(args.buildinfo)
        # An image of a snapshot may have packages that the archive no longer lists.
        places = replace(words.places(args), snapshot=admission.snapshot_of(buildinfo))
        found = closures.keep(
            buildinfo,
            args.folder,
            closures.Pool(args.pool),
            closures.Signing(args.homedir, tuple(args.signer)),
            origin.of(places, buildinfo.id.suite, buildinfo.id.architecture),
        )
        print(f"{found.packages} packages, {found.size} bytes; {found.added} bytes added to the pool")
    return 0
