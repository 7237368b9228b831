# SPDX-License-Identifier: GPL-3.0-or-later
"""All instances of all targets, and the one of a name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.machines import drivers, target
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from debian_cloud.machines.drivers import Provider
    from debian_cloud.machines.instance import Instance


@dataclass(frozen=True, slots=True)
class Known:
    """The instances of those targets that answer, and a sentence on each of the others."""

    instances: tuple[Instance, ...]
    refused: tuple[str, ...] = ()


def providers(on: str, warn: Callable[[str], None]) -> tuple[tuple[str, Callable[[], Provider]], ...]:
    """The name of each target, or of the one that is given, and what opens its provider."""
    found = (target.find(on, warn),) if on else target.targets(warn)
    return tuple((one.name, partial(drivers.provider, one)) for one in found)


def instances(on: str, warn: Callable[[str], None]) -> Known:
    """The instances of a target, or of all; a target that cannot be asked does not hide those of others."""
    found: list[Instance] = []
    refused: list[str] = []
    for name, opened in providers(on, warn):
        try:
            found += opened().describe()
        except Error as error:
            if on:
                raise
            refused.append(f"target {name} is left out: {error.message}")
    return Known(tuple(found), tuple(refused))


def find(name: str, on: str, warn: Callable[[str], None]) -> tuple[Provider, Instance]:
    """An instance by its name, on a target or on the first that has it; Error if there is none."""
    others: list[str] = []
    refused: list[str] = []
    for target_, opened in providers(on, warn):
        try:
            provider = opened()
            known = {one.name: one for one in provider.describe()}
        except Error as error:
            if on:
                raise
            refused.append(f"target {target_} cannot be asked: {error.message}")
            continue
        if name in known:
            return provider, known[name]
        others += known
    raise Error(
        "; ".join((f"there is no instance {printable(name, 80)}", *refused)), did_you_mean(name, others), USAGE
    )
