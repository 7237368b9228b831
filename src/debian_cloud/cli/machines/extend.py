# SPDX-License-Identifier: GPL-3.0-or-later
"""Let an instance power itself off at another time.

The time is counted from now: 90m, 8h, 3d. The instance must run, because it is told by SSH; it need not
have had a time before.

    debian-cloud extend try 8h
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from debian_cloud.cli.machines import options
from debian_cloud.machines import spec

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="the name of an instance")
    parser.add_argument("time", metavar="TIME", help="after this time from now: 90m, 8h, 3d")
    options.add_target(parser)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    expires = spec.expiry(args.time, int(time.time()))
    provider, instance = options.found(args)
    provider.extend(instance.name, expires)
    print(f"{instance.name} powers itself off at {options.when(expires)} UTC")
    return 0
