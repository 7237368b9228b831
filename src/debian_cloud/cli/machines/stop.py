# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop instances; their disks stay.

The guest is asked to power off, and again if it does not hear that early in its boot.
With --force, the machine is ended at once, as if the power had failed.

    debian-cloud stop try
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

    def stop(provider: Provider, instance: Instance) -> None:
        provider.power(instance.name, "stop", force=args.force, seconds=args.timeout)

    return options.each(args, stop)
