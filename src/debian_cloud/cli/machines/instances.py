# SPDX-License-Identifier: GPL-3.0-or-later
"""List the instances of all targets.

The providers are asked each time, so what is printed is so. A target that cannot be
asked is named in a warning, and the exit status is then 1.
An instance is starting, running, stopping, stopped, paused (it could not write its disk, and `start`
lets it go on) or damaged (it can only be terminated).

    debian-cloud instances
    debian-cloud instances --on local --json
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.cli.machines import options
from debian_cloud.errors import FAILED
from debian_cloud.machines import inventory
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.machines.instance import Instance


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_target(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    known = inventory.instances(args.on, warn)
    for sentence in known.refused:
        warn(sentence)
    if args.json:
        print(options.as_json(known.instances))
    else:
        for instance in known.instances:
            print(_line(instance))
    return FAILED if known.refused else 0


def _line(instance: Instance) -> str:
    login = instance.login
    at = f"{login.user}@{login.host}:{login.port}" if login else "-"
    late = " (expired)" if instance.expires and instance.expires < time.time() else ""
    return (
        f"{printable(instance.name):<16} {instance.target:<8} {instance.state:<9} {printable(at):<24} "
        f"{printable(instance.image or instance.reason)}"
        f"{f', until {options.when(instance.expires)} UTC{late}' if instance.expires else ''}"
        f"{', thrown away at its end' if instance.throw_away else ''}"
    )
