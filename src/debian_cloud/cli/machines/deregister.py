# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove an image from a provider with which it was registered.

IMAGE is SUITE/CONFIG/ARCH/SERIAL; an archive need not have it any more. Its registration and
its disk are removed in the region of TARGET and in --regions, and with --parameters the
parameters that name it. Instances of it go on running. What is gone already is no error.

With --clean and no IMAGE, disks are removed that `register` made and that no image has: those
that interrupted commands left. With --dry-run they are only listed.

    debian-cloud deregister trixie/ec2/amd64/20261120.0 --on frankfurt
    debian-cloud deregister --clean --on frankfurt
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.cli.machines import options
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import signals
from debian_cloud.image.id import ImageId
from debian_cloud.machines import registry, target

if TYPE_CHECKING:
    import argparse

    from debian_cloud.machines.registry import Registered, Registry


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("image", metavar="IMAGE", nargs="?", default="", help="the image, SUITE/CONFIG/ARCH/SERIAL")
    options.add_registry(parser)
    parser.add_argument("--clean", action="store_true", help="remove disks that no image has")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    if bool(args.image) == args.clean:
        raise Error("an image or --clean is needed", "give one of them", USAGE)
    where = registry.of(target.find(args.on, warn))
    wish = options.wish(args)
    print(f"debian-cloud: {args.on}: {where.about()}", file=sys.stderr)
    with signals.ending_politely():
        if args.clean:
            found = where.orphans(wish)
            results = found if args.dry_run else tuple(_removed(where, one) for one in found)
        else:
            results = where.deregister(ImageId.parse(args.image), wish, dry=args.dry_run)
    return options.report(results, as_json=args.json)


def _removed(where: Registry, one: Registered) -> Registered:
    """Remove an orphan; the same with the reason if that fails, which does not keep the others."""
    try:
        if not one.reason:
            where.remove(one)
    except Error as error:
        return replace(one, reason=error.message)
    return one
