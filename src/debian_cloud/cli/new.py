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

import difflib
import os
import re
import tempfile
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import config, debs, names, options, run, skeleton
from debian_cloud.errors import USAGE, Error, did_you_mean

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from debian_cloud.binary import File
    from debian_cloud.packages import Apt

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


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    name = names.config(names.word(args.name, "configuration"))
    names.word(name, "configuration")
    names.word(args.base, "configuration")
    added = tuple(dict.fromkeys(word for word in args.add.replace(",", " ").split() if word))
    uploader = maintainer(args.maintainer)
    folder: Path = args.output.resolve() / names.package(name)
    if folder.exists() or folder.is_symlink():
        raise Error(f"{folder} exists already", "remove it, or choose another --output", USAGE)
    with options.origin(args) as origin:
        _refuse_taken(origin.apt, name)
        base = origin.apt.configuration(args.base, args.suite)
        _refuse_unknown(origin.apt, added)
        (binary,) = debs.fetched(origin, [(base.name, base.version)])
    now = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())), UTC)
    files = skeleton.source(skeleton.Wish(name, binary, added, base.suite, uploader, format_datetime(now)))
    write(folder, files)
    print(folder)
    return 0


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


def _refuse_unknown(apt: Apt, added: Iterable[str]) -> None:
    """Error that names every package that no signed source has, or that is another's configuration."""
    known = apt.known()
    unknown = [word for word in added if word not in known]
    if unknown:
        raise Error(
            f"no signed source has {' nor '.join(unknown)}",
            "; ".join(filter(None, (_alike(word, known) for word in unknown)))
            or "`apt-cache search WORD` finds packages",
            USAGE,
        )
    everywhere = [word for word in added if apt.fields(word).get("Essential") == "yes"]
    if everywhere:
        # Debian Policy 3.5: nobody depends on these.
        raise Error(f"{everywhere[0]} is part of every Debian system", "leave it out of --add", USAGE)
    images = [word for word in added if config.is_image(apt.fields(word))]
    if images:
        raise Error(
            f"{images[0]} is an image of its own", "an image has one configuration: name it with --from", USAGE
        )


def _alike(word: str, known: Iterable[str]) -> str:
    # Among the tens of thousands of a suite, only those that begin alike are looked at.
    close = difflib.get_close_matches(word, [name for name in known if name[:1] == word[:1]], n=1)
    return f"{word}: {did_you_mean(word, close)}" if close else ""


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
