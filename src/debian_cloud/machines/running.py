# SPDX-License-Identifier: GPL-3.0-or-later
"""Start instances of an image on a target, and wait until they can be entered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import progress, signals
from debian_cloud.machines import drivers, spec, ssh
from debian_cloud.machines.drivers import NameInUseError
from debian_cloud.text.printable import plain, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from debian_cloud.machines.drivers import Provider, Started
    from debian_cloud.machines.instance import Instance, Login
    from debian_cloud.machines.source import Source
    from debian_cloud.machines.spec import MachineSpec
    from debian_cloud.machines.target import Target

PATIENCE: Final = 600
"""Seconds in which an instance should answer; without acceleration its first boot takes one to four minutes."""
_LINES: Final = 20
"""Lines of the console that are shown when it does not."""


_TRIES: Final = 20
"""How often another name is tried, if other commands are faster."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What will be started where: at least `least` instances of these names, or none.

    If the name was `chosen` here, another one is as good.
    """

    target: Target
    source: Source
    spec: MachineSpec
    names: tuple[str, ...]
    least: int
    chosen: bool = False


def planned(target: Target, source: Source, wanted: MachineSpec, least: int = 1, most: int = 1) -> Planned:
    """What a specification asks for on a target; Error if it cannot be had, or a name is in use.

    Without a name, the instance is called after its configuration.
    """
    spec.check(wanted)
    if wanted.disks and most > 1:
        raise Error("several instances cannot have one disk", "omit --count, or --persistent-disk", USAGE)
    provider = drivers.provider(target)
    provider.check(wanted)
    used = {one.name for one in provider.describe()}
    config = source.record.id.config
    name = spec.name(wanted.name) if wanted.name else spec.named(config, used if most == 1 else set())
    names: tuple[str, ...] = (name,)
    if most > 1:
        names = tuple(spec.name(f"{name}-{number}") for number in range(1, most + 1))
    if there := sorted({*names} & used):
        raise NameInUseError(there[0])
    return Planned(target, source, wanted, names, least, chosen=not wanted.name and most == 1)


def start(plan: Planned) -> Started:
    """Bring the image to the provider, and start the instances; if it is interrupted, none of them is left."""
    provider = drivers.provider(plan.target)
    with signals.ending_politely():
        image = provider.publish(plan.source)
        names, taken = plan.names, set[str]()
        for _ in range(_TRIES if plan.chosen else 0):
            try:
                return provider.run(plan.spec, image, names, plan.least)
            except NameInUseError:
                taken |= {*names, *(one.name for one in provider.describe())}
                names = (spec.named(plan.source.record.id.config, taken),)
        return provider.run(plan.spec, image, names, plan.least)


def wait(provider: Provider, name: str, seconds: float, report: Callable[[], None] | None = None) -> Login:
    """Wait until an instance answers by SSH; Error, which ends nothing, if it cannot or does not in time.

    `report` is called once if there is something to wait for.
    """

    def now() -> Instance | None:
        return next(iter(provider.describe((name,))), None)

    first = now()
    if first is None:
        raise Error(f"{name} is gone", "it was terminated, or thrown away at its end")
    if first.state not in ("starting", "running"):
        why = f": {first.reason}" if first.reason else ""
        raise Error(f"{name} is {first.state}{why}", f"start it with `debian-cloud start {name}`", USAGE)
    if first.login is None and first.state == "running":
        raise _closed(name)
    if first.login and ssh.answers(first.login, 1.0):
        return first.login
    if report:
        report()
    shown = progress.Progress(1, quiet=not progress.live())
    shown.step(f"waiting for SSH of {name}")
    answered = ssh.wait(now, seconds, provider.pause, lambda: shown.tick(_last(provider, name)))
    shown.end()
    found = now()
    if found is None:
        raise Error(f"{name} is gone", "it was terminated, or thrown away at its end")
    if found.login is None and found.state == "running":
        raise _closed(name)
    if not answered or found.login is None:
        raise Error(
            _silent(provider, name, found, seconds),
            f"look at it with `debian-cloud console {name}`, or end it with `debian-cloud terminate {name}`",
        )
    return found.login


def _closed(name: str) -> Error:
    return Error(f"nobody can log in to {name} by SSH", f"use its console: debian-cloud console {name}", USAGE)


def _last(provider: Provider, name: str) -> str:
    """The last line on the console, which a guest writes."""
    lines = _lines(provider, name)
    return lines[-1] if lines else ""


def _lines(provider: Provider, name: str) -> list[str]:
    try:
        text = provider.console(name).log[-(2**14) :].decode("utf-8", "replace")
    except Error:
        return []
    return [line for line in (printable(plain(line), 200).strip() for line in text.split("\n")) if line]


def _silent(provider: Provider, name: str, found: Instance, seconds: float) -> str:
    now = (
        found.state
        if found.state not in ("starting", "running")
        else f"does not answer by SSH after {seconds:.0f} s, and still runs"
    )
    lines = _lines(provider, name)[-_LINES:]
    return "\n".join((f"{name} {now}; its console ends so:", *lines)) if lines else f"{name} {now}"
