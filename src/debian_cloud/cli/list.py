# SPDX-License-Identifier: GPL-3.0-or-later
"""List the available image configurations, or with --images the images.

Without options, it lists the configurations of the archive that the user configured
(FILES), or else of the one that this machine's apt knows.
With --images, it lists the images of the archive that the user configured (FILES),
whose signed index is fetched again, except with --offline, and those in the indexes
that `apt update` fetched, which needs no network. A warning names an archive whose
index is not valid; the images of the others are listed, and the exit status is 1.

    debian-cloud list --suite trixie
    debian-cloud list --images --json
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.cli import options, warn
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.packages import offers, origin, words
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.machine import Machine
    from debian_cloud.packages.images import Image


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_offline(options.add_sources(parser))
    parser.add_argument("--images", action="store_true", help="list images instead of configurations")
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    return _images(args) if args.images else _configurations(args)


def _images(args: argparse.Namespace) -> int:
    if args.mirror or args.security_mirror or args.archive or args.keyring or args.snapshot:
        raise Error(
            "--images lists the images of the archives that are configured",
            "omit mirrors, --archive, --keyring and --snapshot",
            USAGE,
        )
    known = offers.known(args.suite, args.arch, offline=args.offline)
    for sentence in known.refused:
        warn(sentence)
    status = FAILED if known.refused else 0
    if not known.images and not known.refused:
        warn(f"no image is published for {args.suite}{f' and {args.arch}' if args.arch else ''}")
    if args.json:
        print(json.dumps([_as_json(image) for image in known.images], indent=2))
        return status
    for image in known.images:
        record, of = image.record, image.record.id
        print(
            f"{of.config:<16} {of.suite:<10} {of.architecture:<8} {of.serial:<14} {record.format:<8} "
            f"{record.size / 2**20:>7.0f} MiB  {record.status}"
            f"{'' if record.official else ', not official'}"
            f"{''.join(f', with packages of {printable(source)}' for source in record.others)}"
            f"{_in_words(record.machine)}"
        )
    return status


def _in_words(machine: Machine) -> str:
    """What a person needs to start it: firmware, memory, and whom to log in as; empty if the record says nothing."""
    found = (
        " or ".join(machine.firmware),
        f"{machine.memory >> 20} MiB of memory" if machine.memory else "",
        f"user {machine.user}" if machine.user else "",
    )
    return "".join(f", {printable(word)}" for word in found if word)


def _as_json(image: Image) -> dict[str, object]:
    record = asdict(image.record)
    of = record.pop("id")
    # The parts of the id come first, each as a field.
    return {**{word: of[word] for word in ("config", "serial", "suite", "architecture")}, **record, "url": image.url}


def _configurations(args: argparse.Namespace) -> int:
    with origin.of(words.places(args), args.suite, args.arch) as read:
        found = read.configurations(args.suite)
    if args.json:
        print(json.dumps([asdict(config) for config in found], indent=2))
        return 0
    for config in found:
        print(f"{names.config(config.name):<16} {config.version:<12} {printable(config.description)}")
    return 0
