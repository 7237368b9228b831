# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the source package of a new configuration.

It is the configuration that --from names, as in the archive's signed index, under
a new name: its dependencies, its Image-* fields and its files, and the packages
that --add names. Its README says how to build, check, sign and upload
it, and how to build the image. It depends on layers such as
debian-cloud-config-common without a version, so that it gets their upgrades.

    debian-cloud new my-hpc --from generic --add slurmd,munge
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import cli, names
from debian_cloud.build import derived
from debian_cloud.build.request import BuildRequest
from debian_cloud.cli import options
from debian_cloud.errors import USAGE, Error
from debian_cloud.image.custom import custom
from debian_cloud.packages import words

if TYPE_CHECKING:
    import argparse

# deb-src-control(5), Maintainer; a comma would begin another maintainer.
_MAINTAINER = re.compile(r"[^<>,\n]*[^<>,\s] <[^<>,\s@]+@[^<>,\s@]+>")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="the new configuration's name, such as my-hpc")
    parser.add_argument("--from", dest="base", required=True, metavar="CONFIG", help="the configuration to copy")
    parser.add_argument("--add", default="", metavar="LIST", help="packages to add, separated by commas")
    parser.add_argument(
        "--maintainer", default="", metavar="NAME", help='"Name <address>" (default: DEBFULLNAME and DEBEMAIL)'
    )
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="where to write its directory (default: here)"
    )
    options.add_sources(parser)
    words.add_source(parser)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    name = names.config(names.word(args.name, "configuration"))
    names.word(name, "configuration")
    names.word(args.base, "configuration")
    base = BuildRequest(args.base, args.suite, args.arch, changes=custom(add=args.add), places=words.places(args))
    uploader = maintainer(args.maintainer)
    made = derived.derive(name, base, uploader, format_datetime(_now()), args.output)
    print(made.folder)
    if made.crowded:
        cli.warn(f"{made.crowded}; set Image-Size in its debian/control")
    return 0


def _now() -> datetime:
    """The time of the changelog entry: SOURCE_DATE_EPOCH if it is set, for a reproducible source package, or now."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or str(int(time.time()))
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError):
        raise Error(
            f"SOURCE_DATE_EPOCH {epoch!r} is not a time", "set seconds since 1970, as `date +%s` prints them", USAGE
        ) from None


def maintainer(wanted: str) -> str:
    """The given maintainer, or else the one that Debian's tools know (debchange(1), ENVIRONMENT VARIABLES)."""
    if not wanted:
        email = os.environ.get("DEBEMAIL", "")
        name = os.environ.get("DEBFULLNAME", "")
        wanted = email if "<" in email else f"{name} <{email}>" if name and email else ""
    if not wanted:
        raise Error(
            "the maintainer is unknown", 'set DEBFULLNAME and DEBEMAIL, or give --maintainer "Name <address>"', USAGE
        )
    if not _MAINTAINER.fullmatch(wanted):
        raise Error(f"{wanted!r} is not a maintainer", "give a name and an address: Name <name@example.org>", USAGE)
    return wanted
