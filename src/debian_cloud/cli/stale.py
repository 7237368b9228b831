# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out which packages of an archive's images have a newer version by now.

Nothing is built. The packages of each image of SUITE for ARCH that an index may
list come from its .buildinfo below PUBLIC, and what is newest from the signed
indexes of Debian and of the archive. OUTPUT becomes what STATE/staleness knows
of them. --cache keeps what was read of .buildinfo files, by their hash.
"""

from __future__ import annotations

import functools
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import state
from debian_cloud.build import request
from debian_cloud.cli import options
from debian_cloud.errors import Error
from debian_cloud.host import checksums
from debian_cloud.image import index, staleness

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.index import ImageRecord

PLUMBING = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state")
    parser.add_argument("public", type=Path, metavar="PUBLIC", help="the archive's public folder")
    parser.add_argument("suite", metavar="SUITE", help="the suite of the images")
    parser.add_argument("arch", metavar="ARCH", help="their architecture")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the file to write")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="what is kept from one run to the next")
    options.add_source(options.add_places(parser))


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    arch = options.architecture(args)
    images = {
        record.directory: record
        for record in index.listed(state.records(args.state, args.suite))
        if record.architecture == arch
    }
    kept = _kept(args.cache)
    installed: dict[str, tuple[staleness.Installed, ...]] = {}
    unread = False
    for directory, record in images.items():
        try:
            installed[directory] = kept.get(record.buildinfo_sha256) or _read(args.public, record)
        except Error as error:
            print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
            unread = True
    with options.origin_of(args, names.word(args.suite, "suite"), arch) as origin:
        day = datetime.fromtimestamp(origin.apt.debian_epoch, UTC).strftime("%Y-%m-%d")

        # Images share most of their packages.
        @functools.cache
        def newest(package: staleness.Installed) -> tuple[str, bool] | None:
            return origin.apt.newer(package[0], package[1])

        found: dict[str, str] = {}
        for directory, those in installed.items():
            try:
                found[directory] = staleness.found(directory, those, newest, day)
            except Error as error:
                print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
                unread = True
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text("\n".join(found[directory] for directory in sorted(found)), "utf-8")
    if args.cache:
        _keep(args.cache, {images[directory].buildinfo_sha256: those for directory, those in installed.items()})
    urgent = sum(staleness.SECURITY in text for text in found.values())
    print(f"stale: {args.suite} {arch}: {len(found)} images, {urgent} of them with security updates pending")
    return 1 if unread else 0


def _read(public: Path, record: ImageRecord) -> tuple[staleness.Installed, ...]:
    file = public / record.buildinfo
    if not file.is_file() or checksums.digest(file, ("sha256",)).hashes["sha256"] != record.buildinfo_sha256:
        raise Error(
            f"{record.buildinfo} is missing, or not as it was signed", "debian-cloud-archive check tells more"
        )
    return tuple((p.name, p.version, p.architecture) for p in request.locked(file).packages)


def _kept(file: Path | None) -> dict[str, tuple[staleness.Installed, ...]]:
    try:
        return staleness.recalled(file.read_text("utf-8")) if file else {}
    except (OSError, ValueError):
        # It is not there yet, or it was damaged: all is read again.
        return {}


def _keep(file: Path, known: dict[str, tuple[staleness.Installed, ...]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(staleness.remembered(known), "utf-8")
    partial.replace(file)
