# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask Debian whether it still has what an image was made of.

BUILDINFO names each package by version and SHA-256. The exit status is 1 when
the signed indexes list one of them no more, or otherwise: then its closure
cannot be made. Where they cannot be read, that is said, and the exit status is 0:
it will be known when the closure is made. What the archive itself has is not
asked for, nor is any package fetched.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import admission
from debian_cloud.build import request
from debian_cloud.cli import options
from debian_cloud.errors import Error
from debian_cloud.host import run

if TYPE_CHECKING:
    import argparse

PLUMBING = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("buildinfo", type=Path, metavar="BUILDINFO", help="the .buildinfo of an image")
    options.add_source(options.add_places(parser))


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    kept = request.locked(args.buildinfo)
    args.snapshot = admission.snapshot_of(kept)
    read = False
    with run.ending_politely():
        try:
            with options.origin_of(args, kept.suite, kept.architecture) as origin:
                read = True
                origin.apt.stanzas(admission.of_debian(kept))
        except Error as error:
            if read:
                raise
            print(f"warning: Debian could not be asked: {error.message}", file=sys.stderr)
    return 0
