# SPDX-License-Identifier: GPL-3.0-or-later
"""Check an uploaded image against its record, before the archive accepts it.

FOLDER holds the files of one upload, whose signature and hashes the archive has
verified: the record STEM.image, the .buildinfo, the .changes, and each file that
the record names, with the size and the hashes that it gives, and nothing else. Each
must be of the format that its name says, and the values of the .buildinfo must be
valid. The suite must be SUITE. An image that a person changed by options of the
builder (`Official: no`) is only for suites that accept such images.

With --public, the archive keeps closures: then an image is refused if its
.buildinfo names packages of the archive that the archive does not list.

Attestations are made from the .buildinfo and written beside the files: bills of
materials, and a statement that the signer of the .changes built these files, which
the archive signs. Then SHA256SUMS and SHA512SUMS are written, and the path at which
the archive publishes the directory is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import images

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the files of one upload")
    parser.add_argument("suite", metavar="SUITE", help="the suite that the upload is for")
    parser.add_argument("--uploaders", type=Path, required=True, metavar="FILE", help="the keys of the uploaders")
    parser.add_argument("--unofficial", action="store_true", help="the suite also accepts unofficial images")
    parser.add_argument(
        "--allow-expired",
        action="store_true",
        help="the suite also accepts images whose apt accepts Debian's indexes after their Valid-Until",
    )
    parser.add_argument("--public", type=Path, metavar="DIR", help="its public directory, if closures are kept")
    parser.add_argument(
        "--known",
        type=Path,
        metavar="FILE",
        help="the suite's packages: name, version, architecture, size and SHA-256, one a line",
    )
    parser.add_argument("--keys", type=Path, metavar="FILE", help="fingerprints of the archive's keys, one a line")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    keeping = images.Keeping(args.public, args.known, args.keys) if args.public else None
    terms = images.Terms(args.uploaders, args.unofficial, args.allow_expired, keeping)
    print(images.admit(args.folder, args.suite, terms))
    return 0
