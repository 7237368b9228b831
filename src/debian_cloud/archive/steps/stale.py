# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out which packages of an archive's images have a newer version by now.

Nothing is built. The packages of each image of SUITE for ARCH that an index may
list come from its .buildinfo below PUBLIC, and the newest versions from the signed
indexes of Debian and of the archive. The result is written to OUTPUT, for
STATE/staleness. --cache keeps the packages of .buildinfo files, by the hash of the
file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import updates
from debian_cloud.packages import origin, words

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from debian_cloud.errors import Error


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state")
    parser.add_argument("public", type=Path, metavar="PUBLIC", help="the archive's public directory")
    parser.add_argument("suite", metavar="SUITE", help="the suite of the images")
    parser.add_argument("arch", metavar="ARCH", help="their architecture")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the file to write")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="cache file that is kept between runs")
    words.add_source(words.add_places(parser))


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    arch = origin.architecture(args.arch)
    those = updates.contents(args.state, args.public, args.suite, arch, args.cache)
    _report(those.errors)
    with origin.of(words.places(args), args.suite, arch) as read:
        found = updates.pending(those, read)
        _report(found.errors)
    updates.write(found, those, args.output, args.cache)
    print(
        f"stale: {args.suite} {arch}: {len(found.found)} images, {found.urgent} of them with security updates pending"
    )
    return 1 if those.errors or found.errors else 0


def _report(errors: Iterable[Error]) -> None:
    for error in errors:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
