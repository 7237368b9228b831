# SPDX-License-Identifier: GPL-3.0-or-later
"""Split the packages of an image into stages, which follow the packages of configuration.

The essential packages come first, then what every Debian system has, then each layer that the configuration is built
on with what it needs, then kernel and boot loaders, then what else the configuration needs, then the configuration
itself, then what the user added. Two images that share their first packages share their first stages.

Within a stage, packages are unpacked in rounds: before one is unpacked, what it Pre-Depends on must be configured
(Debian Policy 7.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.image.resolution import Needs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from debian_cloud.image.resolution import Resolution

ESSENTIAL: Final = "essential"
"""Name of the first stage, of the packages without which dpkg need not work."""
BASE: Final = "base"
"""Name of the second stage, of the other packages that every Debian system has."""
BOOT: Final = "boot"
"""Name of the stage of kernel and boot loaders, which images for different clouds share."""
NEEDS: Final = "needs"
"""Name of the stage of what else the configuration needs, which changes less often than the configuration."""
ADDED: Final = "added"
"""Name of the stage of packages that the user added."""

_NOTHING: Final = Needs()
_BOOTS: Final = ("linux-image-", "grub-", "shim-")
"""Prefixes of the names of kernels and boot loaders."""


@dataclass(frozen=True, slots=True)
class Round:
    """Packages to unpack together, and those to configure after that; none means all that are unpacked."""

    unpack: tuple[str, ...]
    configure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """A name, and the rounds in which its packages are installed; the last round configures all."""

    name: str
    rounds: tuple[Round, ...]

    @property
    def packages(self) -> tuple[str, ...]:
        """The names of its packages."""
        return tuple(name for one in self.rounds for name in one.unpack)


def stages(resolution: Resolution) -> tuple[Stage, ...]:
    """Return the stages of an image, each with at least one package; together they have all of its packages."""
    needs = resolution.needs
    layers = [name for name in _after(resolution.config.name, needs) if name.startswith(names.PACKAGE_PREFIX)]
    mine = (resolution.config.name, *resolution.recommended, names.KEYRING_PACKAGE)
    needed = _closure(mine, needs, ())
    own = _users(resolution.config.name, needed, needs)
    wanted: list[tuple[str, Iterable[str]]] = [
        (ESSENTIAL, resolution.essential),
        (BASE, resolution.required),
        *((names.config(name), (name,)) for name in layers if name != resolution.config.name),
        (BOOT, (name for name in needed - own if name.startswith(_BOOTS))),
        (NEEDS, needed - own),
        (names.config(resolution.config.name), mine),
        (ADDED, tuple(package.name for package in resolution.packages)),
    ]
    names_of = {package.name for package in resolution.packages}
    there: set[str] = set()
    found = []
    for name, asked in wanted:
        members = _closure((package for package in asked if package in names_of), needs, there)
        rounds = (Round(tuple(sorted(members))),) if name == ESSENTIAL else tuple(_rounds(members, needs, there))
        there |= members
        if members:
            found.append(Stage(name, rounds))
    return tuple(found)


def with_dependencies(asked: Iterable[str], resolution: Resolution) -> set[str]:
    """Return packages of an image and all that they need."""
    return _closure(asked, resolution.needs, ())


def _after(name: str, needs: Mapping[str, Needs]) -> list[str]:
    """Return a package and all that it needs, each after what it needs itself, in the order of its fields."""
    found: dict[str, None] = {}
    seen = {name}
    # Not a recursion: a chain of dependencies may be longer than Python's stack.
    waiting = [(name, iter(_next(name, needs, ())))]
    while waiting:
        last, rest = waiting[-1]
        following = next((one for one in rest if one not in seen), None)
        if following is None:
            found[last] = None
            waiting.pop()
        else:
            seen.add(following)
            waiting.append((following, iter(_next(following, needs, ()))))
    return [*found]


def _next(name: str, needs: Mapping[str, Needs], there: Collection[str]) -> Iterator[str]:
    """Yield what a package needs and `there` does not have, of each group the first."""
    own = needs.get(name, _NOTHING)
    for group in (*own.pre_depends, *own.depends):
        if group and not any(one in there for one in group):
            yield group[0]


def _closure(asked: Iterable[str], needs: Mapping[str, Needs], there: Collection[str]) -> set[str]:
    """Return packages and all that they need, without what `there` has."""
    waiting = sorted({*asked}.difference(there))
    found = {*waiting}
    while waiting:
        for one in _next(waiting.pop(), needs, there):
            if one not in found:
                found.add(one)
                waiting.append(one)
    return found


def _users(name: str, members: Collection[str], needs: Mapping[str, Needs]) -> set[str]:
    """Return a package and those of `members` that need it, directly or not."""
    users: dict[str, list[str]] = {}
    for member in members:
        for one in _next(member, needs, ()):
            users.setdefault(one, []).append(member)
    found, waiting = {name}, [name]
    while waiting:
        for user in users.get(waiting.pop(), ()):
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found


def _rounds(members: Collection[str], needs: Mapping[str, Needs], there: Collection[str]) -> Iterator[Round]:
    """Yield the rounds in which packages are installed on a system that has `there`."""
    configured, unpacked, left = {*there}, set[str](), {*members}
    while left:
        ready = {
            name
            for name in left
            if all(
                not group or any(one in configured for one in group)
                for group in needs.get(name, _NOTHING).pre_depends
            )
        }
        if ready == left or not ready:
            # In a circle of Pre-Depends there is no order, and dpkg says so.
            yield Round(tuple(sorted(left)))
            return
        left -= ready
        unpacked |= ready
        needed = {
            name
            for later in left
            for group in needs.get(later, _NOTHING).pre_depends
            if group and not any(one in configured for one in group)
            for name in group[:1]
        }
        # What cannot be configured yet, as something that it needs is not unpacked, waits for another round.
        able = [found for name in sorted(needed) if (found := _closure((name,), needs, configured)) <= unpacked]
        now = set[str]().union(*able)
        if not now:
            # In a circle of Pre-Depends there is no order, and dpkg says so.
            yield Round(tuple(sorted(ready | left)))
            return
        yield Round(tuple(sorted(ready)), tuple(sorted(now)))
        configured |= now
        unpacked -= now
