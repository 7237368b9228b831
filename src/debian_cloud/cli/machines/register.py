# SPDX-License-Identifier: GPL-3.0-or-later
"""Register an image with a provider, so that others can start it there.

IMAGE is named as for `run`, and verified first. It is uploaded to the region of TARGET
once, copied from there to --regions, and registered in each with what its signed record says
of its machine. What is there already is found by its tags and not made again, so a
command that was interrupted is run again. Each region is done as best it can be:
if one fails, the others are done all the same, and the exit status is 1.

Nobody but the account can start an image, unless --public or --account is given. If a region
forbids public images, --public fails there: that setting is the account's own. With
--parameters, the provider's parameter store says which image is the latest, as PREFIX/13/latest/ARCH
and PREFIX/trixie/latest/ARCH, and which one has a serial, for ever.

Only the driver ec2 registers images.

    debian-cloud register ec2 --on frankfurt --regions eu-west-1 --public
    debian-cloud deregister trixie/ec2/amd64/20261120.0 --on frankfurt --regions all
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.cli.machines import options
from debian_cloud.host import signals
from debian_cloud.machines import registry, target

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_image(parser)
    options.add_registry(parser)
    parser.add_argument("--public", action="store_true", help="let everybody start it, and read its disk")
    parser.add_argument(
        "--account", action="append", default=[], metavar="NUMBER", help="let another account do that"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, and make nothing")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    where = registry.of(target.find(args.on, warn))
    wish = options.wish(args, public=args.public, accounts=args.account)
    found = options.source(args)
    print(f"debian-cloud: {found.record.stem} on {args.on}: {where.about()}", file=sys.stderr)
    where.allows(found)
    if args.dry_run:
        print(f"would register {found.record.stem}")
        return 0
    with signals.ending_politely():
        return options.report(where.register(found, wish), as_json=args.json)
