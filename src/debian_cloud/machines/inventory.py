# SPDX-License-Identifier: GPL-3.0-or-later
"""All instances of all targets, and the one of a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.host.command import failure
from debian_cloud.machines import drivers, target
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from debian_cloud.machines.drivers import Provider
    from debian_cloud.machines.instance import Instance


@dataclass(frozen=True, slots=True)
class Known:
    """The instances of those targets that answer, each with its provider, and a sentence on each other target."""

    found: tuple[tuple[Provider, Instance], ...]
    refused: tuple[str, ...] = ()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances alone."""
        return tuple(instance for _, instance in self.found)


def instances(on: str, warn: Callable[[str], None]) -> Known:
    """The instances of a target, or of all; a target that cannot be asked does not hide those of others."""
    if on:
        provider = drivers.provider(target.find(on, warn))
        return Known(tuple((provider, one) for one in provider.describe()))
    read = target.read(warn)
    found: list[tuple[Provider, Instance]] = []
    refused = [*read.refused]
    for each in read.targets:
        try:
            provider = drivers.provider(each)
            found += ((provider, one) for one in provider.describe())
        except (Error, OSError) as error:
            why = error if isinstance(error, Error) else failure(error)
            refused.append(f"target {each.name} is left out: {why.message}")
    return Known(tuple(found), tuple(refused))


def find(name: str, on: str, warn: Callable[[str], None]) -> tuple[Provider, Instance]:
    """An instance by its name; Error if there is none, or if several targets have one and none of them is given."""
    known = instances(on, warn)
    for sentence in known.refused:
        warn(sentence)
    there = [(provider, one) for provider, one in known.found if one.name == name]
    if len(there) > 1:
        raise Error(
            f"several targets have an instance {name}: {', '.join(one.target for _, one in there)}",
            "choose one with --on TARGET",
            USAGE,
        )
    if not there:
        raise Error(
            f"there is no instance {printable(name, 80)}",
            did_you_mean(name, {one.name for one in known.instances}),
            USAGE,
        )
    return there[0]
