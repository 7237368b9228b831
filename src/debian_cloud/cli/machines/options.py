# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that several verbs for instances share. No verb."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.errors import Error
from debian_cloud.machines import inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from debian_cloud.machines.drivers import Provider
    from debian_cloud.machines.instance import Instance


def add_instance(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Declare the name of an instance, or of several, and the target that has it."""
    if several:
        parser.add_argument("names", nargs="+", metavar="NAME", help="names of instances")
    else:
        parser.add_argument("name", metavar="NAME", help="the name of an instance")
    add_target(parser)


def add_target(parser: argparse.ArgumentParser, otherwise: str = "all") -> None:
    """Declare the target."""
    parser.add_argument("--on", default="", metavar="TARGET", help=f"the target (default: {otherwise})")


def found(args: argparse.Namespace, name: str = "") -> tuple[Provider, Instance]:
    """The instance that the arguments name (`add_instance`), or that of this name."""
    return inventory.find(name or args.name, args.on, warn)


def each(args: argparse.Namespace, do: Callable[[Provider, Instance], None]) -> int:
    """Do something to each instance that the arguments name; Error at the end if it failed for some."""
    failed: list[Error] = []
    for name in dict.fromkeys(args.names):
        try:
            do(*found(args, name))
        except Error as error:
            failed.append(error)
    if failed:
        raise Error("; ".join(error.message for error in failed), failed[0].hint, max(one.status for one in failed))
    return 0


def as_json(instances: Iterable[Instance]) -> str:
    """Instances as JSON."""
    return json.dumps([asdict(one) for one in instances], indent=2)


def when(seconds: int) -> str:
    """A time in UTC as people read it; "-" for never."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "-"
