# SPDX-License-Identifier: GPL-3.0-or-later
"""End instances, and remove their disks.

All that an instance consists of is removed, whether it runs or not, without a question. The
image that it was started from stays for others, and so do disks of --persistent-disk.

    debian-cloud terminate try
    debian-cloud terminate --expired
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.cli.machines import options
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.machines import inventory

if TYPE_CHECKING:
    import argparse

    from debian_cloud.machines.drivers import Provider
    from debian_cloud.machines.instance import Instance


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of instances")
    parser.add_argument(
        "--expired", action="store_true", help="also all that have expired, of everyone who shares the target"
    )
    options.add_target(parser)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    if not args.names and not args.expired:
        raise Error("no instance is named", "give names, or --expired; see debian-cloud instances", USAGE)

    def terminate(provider: Provider, instance: Instance) -> None:
        provider.terminate((instance.name,))
        print(f"{instance.name} is terminated")

    if not args.expired:
        return options.each(args, terminate)
    now, known = time.time(), inventory.instances(args.on, warn)
    for sentence in known.refused:
        warn(sentence)
    expired = [(provider, one) for provider, one in known.found if one.expires and one.expires < now]
    return options.each(args, terminate, expired) or (FAILED if known.refused else 0)
