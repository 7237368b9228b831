# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of an archive's images that have a newer version by now; nothing is built.

An update counts as a security update if any version between the two came from Debian's security suite, because a
point release may supersede that version. The lists have the day of the newest release file, without the time, so that
they change only if there is something new to publish.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from debian_cloud.archive import state
from debian_cloud.errors import Error
from debian_cloud.host import checksums
from debian_cloud.image import index, staleness
from debian_cloud.image.installed import Installed
from debian_cloud.packages import described

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debian_cloud.image.id import ImageId
    from debian_cloud.image.index import ImageRecord
    from debian_cloud.packages.origin import Origin


@dataclass(frozen=True, slots=True)
class Contents:
    """Image -> its packages, and the hash of its .buildinfo, which names them; and errors of those not read."""

    installed: Mapping[ImageId, tuple[Installed, ...]]
    hashes: Mapping[ImageId, str]
    errors: tuple[Error, ...]


@dataclass(frozen=True, slots=True)
class Pending:
    """Image -> what `Images-Status` has on its packages, and the errors of images that were left out."""

    found: Mapping[ImageId, str]
    errors: tuple[Error, ...]

    @property
    def urgent(self) -> int:
        """The number of images with pending security updates."""
        return sum(staleness.SECURITY in text for text in self.found.values())


def contents(known: Path, public: Path, suite: str, arch: str, cache: Path | None = None) -> Contents:
    """The packages of each image of a suite and an architecture that an index may list."""
    images = {
        record.id: record for record in index.listed(state.records(known, suite)) if record.id.architecture == arch
    }
    kept = _kept(cache)
    installed: dict[ImageId, tuple[Installed, ...]] = {}
    errors = []
    for image, record in images.items():
        try:
            installed[image] = kept.get(record.buildinfo_sha256) or _read(public, record)
        except Error as error:
            errors.append(error)
    hashes = {image: images[image].buildinfo_sha256 for image in installed}
    return Contents(installed, hashes, tuple(errors))


def pending(those: Contents, origin: Origin) -> Pending:
    """The packages that have a newer version in the signed indexes that were read."""
    day = datetime.fromtimestamp(origin.apt.debian_epoch, UTC).strftime("%Y-%m-%d")

    # Images share most of their packages.
    @functools.cache
    def newest(package: Installed) -> tuple[str, bool] | None:
        return origin.apt.newer(package.name, package.version)

    found: dict[ImageId, str] = {}
    errors = []
    for image, packages in those.installed.items():
        try:
            found[image] = staleness.found(image, packages, newest, day)
        except Error as error:
            errors.append(error)
    return Pending(found, tuple(errors))


def write(found: Pending, those: Contents, output: Path, cache: Path | None = None) -> None:
    """Write the pending updates, and keep the packages of .buildinfo files, by hash, for the next time."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(found.found[image] for image in sorted(found.found, key=str)), "utf-8")
    if cache:
        _keep(cache, {those.hashes[image]: packages for image, packages in those.installed.items()})


def _read(public: Path, record: ImageRecord) -> tuple[Installed, ...]:
    file = public / record.buildinfo
    if not file.is_file() or checksums.digest(file, ("sha256",)).hashes["sha256"] != record.buildinfo_sha256:
        raise Error(f"{record.buildinfo} is missing, or is not as it was signed", "run debian-cloud-archive check")
    return tuple(Installed(p.name, p.version, p.architecture) for p in described.of(file).packages)


def _kept(file: Path | None) -> dict[str, tuple[Installed, ...]]:
    try:
        return staleness.recalled(file.read_text("utf-8")) if file else {}
    except (OSError, ValueError):
        # It does not exist yet, or is damaged: all is read again.
        return {}


def _keep(file: Path, known: dict[str, tuple[Installed, ...]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(staleness.remembered(known), "utf-8")
    partial.replace(file)
