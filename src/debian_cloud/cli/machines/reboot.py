# SPDX-License-Identifier: GPL-3.0-or-later
"""Reboot instances.

The guest is asked to power off, and is then started again. With --force, the machine is reset
at once, and its disk is as after a power failure.

    debian-cloud reboot try
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from debian_cloud.cli.machines import options
from debian_cloud.machines.drivers import PATIENCE

if TYPE_CHECKING:
    import argparse

    from debian_cloud.machines.drivers import Provider
    from debian_cloud.machines.instance import Instance


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_instance(parser, several=True)
    parser.add_argument("--force", action="store_true", help="do not ask the guest")
    parser.add_argument(
        *("--timeout",),
        type=int,
        default=int(PATIENCE),
        metavar="SECONDS",
        help="how long it may take to power off (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""

    def reboot(provider: Provider, instance: Instance) -> None:
        provider.power(instance.name, "reboot", force=args.force, seconds=args.timeout)

    return options.each(args, reboot)
