# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the source package of a configuration of one's own.

It is the configuration that --from names, as the archive's signed index has it,
under a new name: its dependencies, its Image-* fields and its files, and the
packages that --add names. Its README says how to build, check, sign and upload
it, and how to make the image. Layers such as debian-cloud-config-common are
depended on without a version, so that their upgrades reach it.

    debian-cloud new my-hpc --from generic --add slurmd,munge
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import cli, names
from debian_cloud.build import steps
from debian_cloud.cli import options
from debian_cloud.configuration import skeleton
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.image import custom
from debian_cloud.packages import debs, origin

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from debian_cloud.image.binary import File
    from debian_cloud.packages.resolver import Apt

# deb-src-control(5), Maintainer; a comma would begin another one.
_MAINTAINER = re.compile(r"[^<>,\n]*[^<>,\s] <[^<>,\s@]+@[^<>,\s@]+>")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="the new configuration's name, such as my-hpc")
    parser.add_argument("--from", dest="base", required=True, metavar="CONFIG", help="the one it is made from")
    parser.add_argument("--add", default="", metavar="LIST", help="packages to add, comma between them")
    parser.add_argument(
        "--maintainer", default="", metavar="NAME", help='"Name <address>" (default: DEBFULLNAME and DEBEMAIL)'
    )
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="where its folder goes (default: here)"
    )
    options.add_sources(parser)
    options.add_source(parser)


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    name = names.config(names.word(args.name, "configuration"))
    names.word(name, "configuration")
    names.word(args.base, "configuration")
    wanted = custom.custom(add=args.add)
    uploader = maintainer(args.maintainer)
    date = format_datetime(_now())
    folder: Path = args.output.resolve() / names.package(name)
    # As os.path sees it, a name that is too long is not there; writing it says so.
    if os.path.lexists(folder):
        raise Error(f"{folder} exists already", "remove it, or choose another --output", USAGE)
    with origin.of(options.places(args), args.suite, args.arch) as found:
        _refuse_taken(found.apt, name)
        resolution = found.resolve(args.base, args.suite, wanted)
        base = resolution.config
        _refuse_essential(found.apt, wanted.add)
        (binary,) = debs.fetched(found, [(base.name, base.version)])
    files = skeleton.source(skeleton.Wish(name, binary, wanted.add, base.suite, uploader, date))
    write(folder, files)
    print(folder)
    try:
        steps.check_size(resolution)
    except Error as error:
        cli.warn(f"{error.message}; set Image-Size in its debian/control")
    return 0


def _now() -> datetime:
    """The time that the changelog's entry has: the one set, so that a source package can be written anew."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or str(int(time.time()))
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError):
        raise Error(
            f"SOURCE_DATE_EPOCH {epoch!r} is no time", "seconds since 1970, as `date +%s` prints them", USAGE
        ) from None


def maintainer(wanted: str) -> str:
    """The maintainer asked for, else the one that Debian's tools know (debchange(1), ENVIRONMENT VARIABLES)."""
    if not wanted:
        email = os.environ.get("DEBEMAIL", "")
        name = os.environ.get("DEBFULLNAME", "")
        wanted = email if "<" in email else f"{name} <{email}>" if name and email else ""
    if not wanted:
        raise Error(
            "no maintainer is known", 'set DEBFULLNAME and DEBEMAIL, or give --maintainer "Name <address>"', USAGE
        )
    if not _MAINTAINER.fullmatch(wanted):
        raise Error(f"{wanted!r} is no maintainer", "one name and one address: Name <name@example.org>", USAGE)
    return wanted


def _refuse_taken(apt: Apt, name: str) -> None:
    package = names.package(name)
    if package in apt.known():
        raise Error(
            f"there is a package {package} already", "choose another name; to change it, `apt source` has it", USAGE
        )


def _refuse_essential(apt: Apt, added: Iterable[str]) -> None:
    """Error that names what is there anyway: nobody depends on it without a version (Debian Policy 3.5)."""
    for package in added:
        if apt.fields(package).get("Essential") == "yes":
            raise Error(f"{package} is part of every Debian system", "leave it out of --add", USAGE)


def write(folder: Path, files: Iterable[File]) -> None:
    """Write the source package; its folder appears when it is whole."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            run.ending_politely(),
            tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial,
        ):
            whole = Path(partial) / folder.name
            (whole / "files").mkdir(parents=True)
            for file in files:
                path = whole / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                if file.link:
                    path.symlink_to(file.link)
                else:
                    path.write_bytes(file.content)
                    path.chmod(file.mode)
            whole.rename(folder)
    except OSError as error:
        raise Error(
            f"{folder} cannot be written: {error.strerror}", "choose another place with --output", USAGE
        ) from None
