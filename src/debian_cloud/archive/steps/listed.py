# SPDX-License-Identifier: GPL-3.0-or-later
"""Check whether Debian still has the packages that an image was made of.

BUILDINFO names each package by version and SHA-256. The exit status is 1 if the
signed indexes no longer list one of them, or list it with other content: then the
closure cannot be made. If the indexes cannot be read, that is reported, and the
exit status is 0: it will be known when the closure is made. The archive's own
packages are not checked, and no package is fetched.
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
    """Run the step and return its exit status."""
    buildinfo = described.of(args.buildinfo)
    places = replace(words.places(args), snapshot=admission.snapshot_of(buildinfo))
    with signals.ending_politely():
        why = closures.refuse_unlisted(buildinfo, origin.of(places, buildinfo.id.suite, buildinfo.id.architecture))
    if why:
        print(f"warning: {why}", file=sys.stderr)
    return 0
