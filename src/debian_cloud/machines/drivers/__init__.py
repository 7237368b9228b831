# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers: one module for each kind of provider; the directory is the registry.

A driver's module has `FIELDS`, the fields that a target of it may have, and `provider(target)`, which returns the
provider that the target names. Instances and their state are the provider's: it is asked each time. An import that
needs a package which only this driver needs is in its module, and an Error there names the package.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.host import signals
from debian_cloud.host.command import failure
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from debian_cloud.machines.instance import Console, Instance, Power
    from debian_cloud.machines.source import Source
    from debian_cloud.machines.spec import MachineSpec
    from debian_cloud.machines.target import Target

PATIENCE: Final = 120.0
"""Seconds in which an instance that is to stop should have done so; without acceleration it takes 20."""
_AGAIN: Final = 15.0
"""Seconds after which a guest is asked again to power off: early in its boot it does not hear it."""
_POLL: Final = 0.1


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


def one_by_one(
    names: Sequence[str],
    least: int,
    start: Callable[[str, list[str]], None],
    end: Callable[[Sequence[str]], None],
) -> tuple[list[str], str]:
    """Start instances one by one; the names of those that were started, and why the others were not.

    `start` adds a name to the list when its instance has been started. If fewer than `least` are, or it is
    interrupted, `end` is called with them, and what went wrong is raised.
    """
    started: list[str] = []
    try:
        for name in names:
            start(name, started)
    except BaseException as error:
        if isinstance(error, (Error, OSError)) and len(started) >= least:
            reason = error if isinstance(error, Error) else failure(error)
            return started, f"{reason.message}{reason.hint and f'; {reason.hint}'}"
        # What went wrong before is what the user is told.
        with signals.undisturbed(), contextlib.suppress(Error, OSError):
            end(started)
        raise
    return started, ""


def power_off(name: str, seconds: float, runs: Callable[[], bool], ask: Callable[[], None]) -> None:
    """Ask a guest to power off until it does not run any more; Error after so many seconds."""
    end, asked = time.monotonic() + seconds, 0.0
    while runs():
        now = time.monotonic()
        if now > end:
            raise Error(
                f"{name} is still running after {seconds:.0f} s, although it was asked to power off",
                f"see debian-cloud console {name}, wait longer with --timeout, or give --force",
            )
        if not asked or now - asked > _AGAIN:
            asked = now
            ask()
        time.sleep(_POLL)


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
