# SPDX-License-Identifier: GPL-3.0-or-later
"""Make signed uploads of packages and images, ready for an archive's queue.

Each FILE is a .changes, with the files that it lists beside it, a .deb, or a
directory with such files. Each upload gets its own directory below WORK, with hard
links to its files if possible. .debs without a .changes get one for each source
package. The key signs the .dsc and the .buildinfo if they are not signed yet, and
the .changes in any case. For each upload, the path of its .changes,
WORK/NUMBER/NAME, is printed on a line. What the archive already has is left out,
and reported on standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import adding

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("work", type=Path, metavar="WORK", help="an empty directory on its file system")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="uploads, .debs or directories to add")
    parser.add_argument("--suite", required=True, metavar="SUITE", help="the suite of .debs, or an empty string")
    parser.add_argument("--homedir", type=Path, required=True, metavar="DIR", help="GnuPG home of the key")
    parser.add_argument("--key", required=True, metavar="FINGERPRINT", help="the key that signs")
    parser.add_argument(
        "--known",
        type=Path,
        required=True,
        metavar="FILE",
        help="the archive's files: lines of codename and SHA-256",
    )


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    given = {"suite": args.suite, "homedir": args.homedir, "key": args.key, "known": args.known}
    for one in adding.prepare(args.archive, args.work, args.files, **given):
        if one.changes:
            print(one.changes)
        else:
            print(f"already in the archive: {one.name}", file=sys.stderr)
    return 0
