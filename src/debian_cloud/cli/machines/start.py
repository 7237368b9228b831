# SPDX-License-Identifier: GPL-3.0-or-later
"""Start instances that are stopped.

Each has its disk, its keys and its name as before; its port on this machine is another
one, which `debian-cloud ssh` knows.

    debian-cloud start try
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.cli.machines import options

if TYPE_CHECKING:
    import argparse

    from debian_cloud.machines.drivers import Provider
    from debian_cloud.machines.instance import Instance


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_instance(parser, several=True)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""

    def start(provider: Provider, instance: Instance) -> None:
        if instance.expires and instance.expires < time.time():
            warn(f"{instance.name} has expired, and does not power itself off again: see extend")
        provider.power(instance.name, "start")

    return options.each(args, start)
