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
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.cli.machines import options
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host import signals
from debian_cloud.image.id import ImageId
from debian_cloud.machines import registry, target
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.machines.registry import Registry, Wish


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
    if args.clean:
        return _clean(where, wish, dry=args.dry_run)
    of = ImageId.parse(args.image)
    if args.dry_run:
        print(f"would deregister {of.stem}")
        return 0
    with signals.ending_politely():
        return options.report(where.deregister(of, wish), as_json=args.json)


def _clean(where: Registry, wish: Wish, *, dry: bool) -> int:
    status = 0
    for one in where.orphans(wish):
        done = "would remove" if dry else "removed"
        try:
            if not dry:
                where.remove(one)
        except Error as error:
            done, status = f"{error.message}: not removed:", FAILED
        print(f"{done} {printable(' '.join(one), 80)}")
    return status
