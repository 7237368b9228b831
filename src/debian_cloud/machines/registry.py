# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that a provider keeps for others to start: registered in its regions, shared, and removed again.

Only some drivers can do that: those whose provider has the methods of `Registry`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from debian_cloud.errors import USAGE, Error
from debian_cloud.machines import drivers
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from debian_cloud.image.id import ImageId
    from debian_cloud.machines.source import Source
    from debian_cloud.machines.target import Target

_REGION: Final = re.compile(r"[a-z][a-z0-9-]{1,31}")
_ACCOUNT: Final = re.compile("[0-9]{12}")
_PARAMETERS: Final = re.compile(r"/[A-Za-z0-9_.-]{1,64}(?:/[A-Za-z0-9_.-]{1,64}){0,9}")


@dataclass(frozen=True, slots=True)
class Wish:
    """In which regions besides the target's an image is registered (`all`: in each), and who may start it there.

    `accounts` are numbers; `parameters` is the path below which the provider's parameter store says what is latest.
    """

    regions: tuple[str, ...] = ()
    public: bool = False
    accounts: tuple[str, ...] = ()
    parameters: str = ""

    def __post_init__(self) -> None:
        for words, form, what in (
            (self.regions, _REGION, "a region"),
            (self.accounts, _ACCOUNT, "the number of an account"),
            ((self.parameters,) if self.parameters else (), _PARAMETERS, "a path of parameters"),
        ):
            for word in words:
                if not form.fullmatch(word):
                    hint = {"a region": "such as eu-central-1", "a path of parameters": "such as /debian/daily"}
                    raise Error(f"{printable(word, 80)!r} is not {what}", hint.get(what, "it has 12 digits"), USAGE)


@dataclass(frozen=True, slots=True)
class Registered:
    """An image in one region, or the `reason` why it is not there; the provider's names, empty if there is none."""

    region: str
    id: str = ""
    snapshot: str = ""
    reason: str = ""


class Registry(Protocol):
    """What a provider can do that keeps images."""

    def about(self) -> str:
        """Account and region, as one line for people."""

    def allows(self, source: Source) -> None:
        """Raise Error if the image cannot be registered; nothing is made for it."""

    def register(self, source: Source, wish: Wish) -> tuple[Registered, ...]:
        """Bring an image to the provider and register it, once; Error if not even the target's own region has it."""

    def deregister(self, of: ImageId, wish: Wish, *, dry: bool = False) -> tuple[Registered, ...]:
        """Remove an image and what it consists of, or with `dry` only name it; what is gone already is no error."""

    def orphans(self, wish: Wish) -> tuple[Registered, ...]:
        """What this program made there and no image has: each with its region and snapshot."""

    def remove(self, orphan: Registered) -> None:
        """Remove one of them."""


def of(target: Target) -> Registry:
    """The registry of a target; Error if its driver has none."""
    provider = drivers.provider(target)
    if not hasattr(provider, "register"):
        raise Error(
            f"images are not registered on target {target.name}, whose driver is {target.driver}",
            "start one with `debian-cloud run`, which brings it there",
            USAGE,
        )
    return cast("Registry", provider)
