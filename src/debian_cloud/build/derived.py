# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the source package of a new configuration from another that the archive has."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.build import steps
from debian_cloud.configuration import skeleton
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import signals
from debian_cloud.packages import debs, origin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from debian_cloud.build.request import BuildRequest
    from debian_cloud.image.binary import File
    from debian_cloud.packages.resolver import Apt


@dataclass(frozen=True, slots=True)
class Derived:
    """The source package that was written, and why its image's disk is too small, if it is."""

    folder: Path
    crowded: str = ""


def derive(name: str, base: BuildRequest, maintainer: str, date: str, output: Path) -> Derived:
    """Write the source package of a configuration: the one that `base` requests, with the packages that it adds.

    `maintainer` is "Name <address>", `date` as in a changelog (RFC 5322); the package's directory is put in `output`.
    """
    names.word(name, "configuration")
    folder = output.resolve() / names.package(name)
    # For os.path, a name that is too long does not exist; writing it reports the error.
    if os.path.lexists(folder):
        raise Error(f"{folder} exists already", "remove it, or choose another --output", USAGE)
    added = base.changes.add
    with origin.of(base.places, base.suite, base.architecture) as found:
        _refuse_taken(found.apt, name)
        resolution = found.resolve(base.config, base.suite, base.changes)
        config = resolution.config
        _refuse_essential(found.apt, added)
        (binary,) = debs.fetched(found, [(config.name, config.version)])
    write(folder, skeleton.source(skeleton.Wish(name, binary, added, config.suite, maintainer, date)))
    try:
        steps.check_size(resolution)
    except Error as error:
        return Derived(folder, error.message)
    return Derived(folder)


def _refuse_taken(apt: Apt, name: str) -> None:
    package = names.package(name)
    if package in apt.known():
        raise Error(
            f"a package {package} exists already",
            "choose another name; to change that package, get it with `apt source`",
            USAGE,
        )


def _refuse_essential(apt: Apt, added: Iterable[str]) -> None:
    """Raise Error that names an essential package: nothing depends on one without a version (Debian Policy 3.5)."""
    for package in added:
        if apt.fields(package).get("Essential") == "yes":
            raise Error(f"{package} is part of every Debian system", "omit it from --add", USAGE)


def write(folder: Path, files: Iterable[File]) -> None:
    """Write the source package; its directory appears when it is complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            signals.ending_politely(),
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
