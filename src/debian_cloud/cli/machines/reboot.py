# SPDX-License-Identifier: GPL-3.0-or-later
"""Reboot instances.

The guest is asked to power off, and is then started again. With --force, the machine is reset
at once, and its disk is as after a power failure.

    debian-cloud reboot try
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from debian_cloud.cli.machines import options

if TYPE_CHECKING:
    import argparse

    from debian_cloud.machines.drivers import Provider
    from debian_cloud.machines.instance import Instance


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_end(parser)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""

    def reboot(provider: Provider, instance: Instance) -> None:
        provider.power(instance.name, "reboot", force=args.force, seconds=args.timeout)

    return options.each(args, reboot)
