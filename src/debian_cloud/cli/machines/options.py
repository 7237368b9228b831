# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that several verbs for instances share. No verb."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.cli import options as shared
from debian_cloud.cli import warn
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host.command import failure
from debian_cloud.image.id import ImageId
from debian_cloud.machines import inventory
from debian_cloud.machines import source as sources
from debian_cloud.machines.drivers import PATIENCE
from debian_cloud.machines.registry import Wish
from debian_cloud.packages.offers import Wanted
from debian_cloud.proof.trust import Trust
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from debian_cloud.machines.drivers import Provider
    from debian_cloud.machines.instance import Instance
    from debian_cloud.machines.registry import Registered
    from debian_cloud.machines.source import Source


def add_instance(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Declare the name of an instance, or of several, and the target that has it."""
    if several:
        parser.add_argument("names", nargs="+", metavar="NAME", help="names of instances")
    else:
        parser.add_argument("name", metavar="NAME", help="the name of an instance")
    add_target(parser)


def add_end(parser: argparse.ArgumentParser) -> None:
    """Declare how instances are made to power off."""
    add_instance(parser, several=True)
    parser.add_argument("--force", action="store_true", help="do not ask the guest")
    parser.add_argument(
        *("--timeout",),
        type=int,
        default=int(PATIENCE),
        metavar="SECONDS",
        help="how long it may take to power off (default: %(default)s)",
    )


def add_target(parser: argparse.ArgumentParser, otherwise: str = "all") -> None:
    """Declare the target."""
    parser.add_argument("--on", default="", metavar="TARGET", help=f"the target (default: {otherwise})")


def found(args: argparse.Namespace, name: str = "") -> tuple[Provider, Instance]:
    """The instance that the arguments name (`add_instance`), or that of this name."""
    return inventory.find(name or args.name, args.on, warn)


def add_image(parser: argparse.ArgumentParser) -> None:
    """Declare the image that an instance is started from (`source`)."""
    parser.add_argument("image", metavar="CONFIG|IMAGE", help="a configuration, an image, or the file of one")
    group = parser.add_argument_group("which image")
    shared.add_suite(group)
    group.add_argument("--serial", default="", help="its serial, YYYYMMDD.N (default: the current one)")
    group.add_argument("--archive", default="", metavar="URL", help="the archive, if apt knows several")
    group.add_argument("--unsigned", action="store_true", help="accept a file that is not signed")
    group.add_argument("--anyway", action="store_true", help="accept a file whose image was withdrawn")


def source(args: argparse.Namespace) -> Source:
    """The image that the arguments name (`add_image`); Error if there is none, or it may not be started."""
    path = Path(args.image)
    if path.is_file():
        return sources.of_file(path, Trust(unsigned=args.unsigned), warn, anyway=args.anyway)
    wanted = Wanted(args.image, args.suite, args.arch, serial=args.serial, archive=args.archive)
    if "/" in args.image or path.suffix:
        try:
            of = ImageId.parse(args.image)
        except Error:
            raise Error(
                f"there is no file {printable(args.image)}",
                "give a file, a configuration such as generic, or SUITE/CONFIG/ARCH/SERIAL",
                USAGE,
            ) from None
        wanted = Wanted(of.config, of.suite, of.architecture, serial=of.serial, archive=args.archive)
    return sources.of_index(wanted, warn)


def each(
    args: argparse.Namespace,
    do: Callable[[Provider, Instance], None],
    others: Iterable[tuple[Provider, Instance]] = (),
) -> int:
    """Do something to each instance that the arguments name, and to others; Error at the end if it failed for any."""
    failed: list[Error] = []

    def tried(find: Callable[[], tuple[Provider, Instance]]) -> None:
        try:
            do(*find())
        except (Error, OSError) as error:
            failed.append(error if isinstance(error, Error) else failure(error))

    for name in dict.fromkeys(args.names):
        tried(partial(found, args, name))
    for other in others:
        tried(partial(_same, other))
    if failed:
        raise Error("; ".join(error.message for error in failed), failed[0].hint, max(one.status for one in failed))
    return 0


def _same(other: tuple[Provider, Instance]) -> tuple[Provider, Instance]:
    return other


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Declare where an image is registered (`wish`)."""
    parser.add_argument("--on", required=True, metavar="TARGET", help="the target")
    parser.add_argument(
        *("--regions",),
        action="append",
        default=[],
        metavar="REGION[,REGION...]",
        help="other regions; all: each that the account can use",
    )
    parser.add_argument("--parameters", default="", metavar="PREFIX", help="a path in the provider's parameter store")
    parser.add_argument("--json", action="store_true", help="print JSON")


def wish(args: argparse.Namespace, *, public: bool = False, accounts: Iterable[str] = ()) -> Wish:
    """What the arguments say of where an image is registered, and who may start it."""
    regions = tuple(region for text in args.regions for region in text.split(","))
    return Wish(regions, public, tuple(accounts), args.parameters)


def report(results: Iterable[Registered], *, as_json: bool) -> int:
    """Print what became of an image in each region, and return the exit status: 1 if one failed."""
    found = [*results]
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        for one in found:
            print(f"{one.region:<16} {printable(one.id or '-', 40):<24} {printable(one.reason or one.snapshot)}")
    return FAILED if any(one.reason for one in found) else 0


def as_json(instances: Iterable[Instance]) -> str:
    """Instances as JSON."""
    return json.dumps([asdict(one) for one in instances], indent=2)


def when(seconds: int) -> str:
    """A time in UTC as people read it; "-" for never."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "-"
