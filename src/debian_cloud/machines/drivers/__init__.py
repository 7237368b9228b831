# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers: one module for each kind of provider; the directory is the registry.

A driver's module has `FIELDS`, the fields that a target of it may have, and `provider(target)`, which returns the
provider that the target names. Instances and their state are the provider's: it is asked each time. An import that
needs a package which only this driver needs is in its module, and an Error there names the package.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debian_cloud.machines.instance import Console, Instance, Power
    from debian_cloud.machines.source import Source
    from debian_cloud.machines.spec import MachineSpec
    from debian_cloud.machines.target import Target

PATIENCE: Final = 120.0
"""Seconds in which an instance that is to stop should have done so; without acceleration it takes 20."""


class NameInUseError(Error):
    """The name of an instance is another's."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is an instance {name} already", "choose another --name, or terminate that one", USAGE
        )


@dataclass(frozen=True, slots=True)
class Started:
    """The instances that were started; `reason` says why there are not as many as was asked for at most."""

    instances: tuple[Instance, ...]
    reason: str = ""


class Provider(Protocol):
    """What all verbs need of a provider; names are those of instances.

    `pause` is how many seconds to leave between two questions of a loop.
    """

    @property
    def pause(self) -> float:
        """See above."""

    def about(self) -> str:
        """Where instances run, as one line for people: an account and region, or this machine."""

    def check(self, spec: MachineSpec) -> None:
        """Raise Error if the provider cannot have such an instance; nothing is made or fetched for it."""

    def publish(self, source: Source) -> str:
        """Bring an image to the provider, if it is not there, and return the provider's name for it."""

    def run(self, spec: MachineSpec, image: str, names: Sequence[str], least: int) -> Started:
        """Start instances of these names, at least so many of them, or none and raise Error (`NameInUseError`)."""

    def describe(self, names: Sequence[str] = ()) -> tuple[Instance, ...]:
        """The instances that were started by this program, sorted by name: those of these names, or all."""

    def console(self, name: str) -> Console:
        """The console of an instance."""

    def power(self, name: str, action: Power, *, force: bool = False, seconds: float = PATIENCE) -> None:
        """Start, stop or reboot an instance, and wait so long for it to stop; with `force`, do not ask the guest."""

    def extend(self, name: str, expires: int) -> None:
        """Let an instance expire at another time, in seconds since 1970."""

    def terminate(self, names: Sequence[str]) -> None:
        """End instances and remove all that belongs to them alone; what is gone already is no error."""


class Driver(Protocol):
    """The interface of a driver's module."""

    FIELDS: tuple[str, ...]

    def provider(self, target: Target) -> Provider:
        """The provider that a target names; Error if it cannot be used."""


def names() -> tuple[str, ...]:
    """The names of all drivers, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def provider(target: Target) -> Provider:
    """The provider of a target; Error if its driver is unknown, or has no such field."""
    if target.driver not in names():
        raise Error(
            f"target {target.name} has the unknown driver {printable(target.driver, 80)}",
            did_you_mean(target.driver, names()),
            USAGE,
        )
    driver = cast("Driver", importlib.import_module(f"{__name__}.{target.driver}"))
    for field in target.settings:
        if field not in driver.FIELDS:
            known = ("Target", "Driver", *driver.FIELDS)
            raise Error(
                f"target {target.name} has the unknown field {printable(field, 80)}",
                did_you_mean(field, known),
                USAGE,
            )
    return driver.provider(target)
