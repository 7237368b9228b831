# SPDX-License-Identifier: GPL-3.0-or-later
"""Start instances of an image on a target, and wait until they can be entered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import progress, signals
from debian_cloud.machines import drivers, spec, ssh
from debian_cloud.text.printable import printable

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


@dataclass(frozen=True, slots=True)
class Planned:
    """What will be started where: at least `least` instances of these names, or none."""

    target: Target
    source: Source
    spec: MachineSpec
    names: tuple[str, ...]
    least: int


def planned(target: Target, source: Source, wanted: MachineSpec, least: int = 1, most: int = 1) -> Planned:
    """What a specification asks for on a target; Error if it cannot be had, or a name is in use.

    Without a name, the instance is called after its configuration.
    """
    spec.check(wanted)
    if wanted.disks and most > 1:
        raise Error("several instances cannot have one disk", "omit --count, or --persistent-disk", USAGE)
    used = {one.name for one in drivers.provider(target).describe()}
    name = wanted.name and spec.name(wanted.name)
    if most == 1:
        names: tuple[str, ...] = (name or spec.named(source.record.id.config, used),)
    else:
        name = name or source.record.id.config
        names = tuple(spec.name(f"{name}-{number}") for number in range(1, most + 1))
    if there := sorted({*names} & used):
        raise Error(
            f"there is an instance {there[0]} on {target.name} already",
            "choose another --name, or terminate that one",
            USAGE,
        )
    return Planned(target, source, wanted, names, least)


def start(plan: Planned) -> Started:
    """Bring the image to the provider, and start the instances; if it is interrupted, none of them is left."""
    provider = drivers.provider(plan.target)
    with signals.ending_politely():
        image = provider.publish(plan.source)
        return provider.run(plan.spec, image, plan.names, plan.least)


def wait(provider: Provider, name: str, seconds: float, report: Callable[[], None] | None = None) -> Login:
    """Wait until an instance answers by SSH; Error, which ends nothing, if it cannot or does not in time.

    `report` is called once if there is something to wait for.
    """

    def now() -> Instance:
        return next(one for one in provider.describe() if one.name == name)

    def login() -> Login | None:
        return now().login

    first = now()
    if first.state in ("stopped", "damaged"):
        raise Error(f"{name} is {first.state}", f"start it with `debian-cloud start {name}`", USAGE)
    if first.login is None and first.state == "running":
        raise Error(f"nobody can log in to {name} by SSH", f"use its console: debian-cloud console {name}", USAGE)
    if first.login and ssh.answers(first.login, 1.0):
        return first.login
    if report:
        report()
    shown = progress.Progress(1, quiet=not progress.live())
    shown.step(f"waiting for SSH of {name}")
    answered = ssh.wait(login, seconds, lambda: shown.tick(_last(provider, name)))
    shown.end()
    found = login()
    if not answered or found is None:
        raise Error(_silent(provider, name, now(), seconds), f"look at it with `debian-cloud console {name}`")
    return found


def _last(provider: Provider, name: str) -> str:
    """The last line on the console, which a guest writes."""
    lines = _lines(provider, name)
    return lines[-1] if lines else ""


def _lines(provider: Provider, name: str) -> list[str]:
    text = provider.console(name).log[-(2**14) :].decode("utf-8", "replace")
    return [line for line in (printable(spec.plain(line), 200).strip() for line in text.split("\n")) if line]


def _silent(provider: Provider, name: str, found: Instance, seconds: float) -> str:
    now = "stopped" if found.state == "stopped" else f"does not answer by SSH after {seconds:.0f} s, and still runs"
    lines = _lines(provider, name)[-_LINES:]
    return "\n".join((f"{name} {now}; its console ends so:", *lines)) if lines else f"{name} {now}"
