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
    words.add_source(words.add_places(parser))


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    buildinfo = described.of(args.buildinfo)
    places = replace(words.places(args), snapshot=admission.snapshot_of(buildinfo))
    with signals.ending_politely():
        why = closures.refuse_unlisted(buildinfo, origin.of(places, buildinfo.id.suite, buildinfo.id.architecture))
    if why:
        print(f"warning: {why}", file=sys.stderr)
    return 0
