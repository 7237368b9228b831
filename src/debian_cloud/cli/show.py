# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the machine facts and the packages of a configuration's image.

The machine facts are the `Image-*` fields of the configuration package; the
packages are those that apt would install now. The exit status is 1 if they do
not fit on the disk.

    debian-cloud show generic
    debian-cloud show generic --add slurmd --json
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.build import request, steps
from debian_cloud.cli import options
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("config", metavar="CONFIG", help="an image configuration, such as ec2")
    options.add_offline(options.add_sources(parser))
    options.add_changes(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with every package")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    resolution = request.resolved(options.resolve_request(args))
    config = resolution.config
    if args.json:
        print(json.dumps(asdict(resolution), indent=2))
        steps.check_size(resolution)
        return 0
    disk = f"{config.size / 2**30:g} GiB or more" if config.firmware else "none: a root file system"
    facts = (
        ("configuration", f"{names.config(config.name)} ({config.name} {config.version})"),
        ("", config.description),
        ("suite", config.suite),
        ("architecture", config.architecture),
        ("components", ", ".join(config.components)),
        ("disk", disk),
        ("formats", ", ".join(config.formats)),
        ("firmware", ", ".join(config.firmware)),
        ("boot mode", config.boot_mode),
        ("root device", config.root_device),
        ("drivers", ", ".join(config.drivers)),
        ("CD-ROM", ", ".join(config.cdrom)),
        ("console", config.console),
        ("IMDS", f"{config.imds} required" if config.imds else ""),
        ("TPM", f"{config.tpm} requested" if config.tpm else ""),
        ("volume", config.volume),
        ("memory", f"{config.memory / 2**20:g} MiB or more" if config.memory else ""),
        ("first boot", config.first_boot),
        ("user", config.user),
        ("datasources", ", ".join(config.datasources)),
        ("packages", f"{len(resolution.packages)}, {resolution.installed_size / 2**20:.0f} MiB installed"),
    )
    for name, value in facts:
        if value:
            print(f"{name:<14} {printable(value)}")
    # After the facts are printed: the user may need them to choose the size.
    steps.check_size(resolution)
    return 0
