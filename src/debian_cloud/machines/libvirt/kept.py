# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of an instance in the metadata of its domain, where other programs can change it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from debian_cloud.errors import Error
from debian_cloud.machines import domain
from debian_cloud.machines.instance import is_user
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST: Final = 2**16
"""Maximum characters of all tags."""
_TIME: Final = re.compile(r"[0-9]{1,12}")
# An instance's name, of at most 48 characters, and a number of its own: volumes are found by it.
_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,47}-[0-9a-f]{8}")
_WORD: Final = re.compile(r"[!-~]{0,200}")
_HOST_KEY: Final = re.compile(r"|[a-z0-9-]{1,40} [A-Za-z0-9+/]{1,400}={0,3}")
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{0,200}")
_VERSION: Final = "1"

Phase = Literal["making", "whole", "rebooting"]
"""`making`: not complete; `rebooting`: from its end until it is started again by the same command."""


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is kept besides what libvirt describes; times are in seconds since 1970.

    `owner` is who started it, for people who share a libvirt; `user` is whom to log in as, empty if nobody can;
    `host_key` is as known_hosts (sshd(8)) has it; `pool` has its volumes.
    """

    id: str
    image: str
    architecture: str
    owner: str
    user: str
    host_key: str
    pool: str
    created: int
    expires: int
    throw_away: bool
    phase: Phase = "making"

    def tags(self) -> Mapping[str, str]:
        """The same as tags."""
        return {
            "version": _VERSION,
            "id": self.id,
            "image": self.image,
            "architecture": self.architecture,
            "owner": self.owner,
            "user": self.user,
            "host-key": self.host_key,
            "pool": self.pool,
            "created": str(self.created),
            "expires": str(self.expires),
            "throw-away": "yes" if self.throw_away else "no",
            "phase": self.phase,
        }


def read(text: str) -> Kept:
    """What the element of a domain's metadata says; Error if it is not as this program writes it."""
    try:
        if len(text) > _LARGEST:
            raise ValueError("it is too large")
        return _read(domain.tags(text))
    except (ValueError, KeyError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise Error(f"its metadata cannot be read: {printable(why, 200)}", "terminate the instance") from None


def _user(text: str) -> str:
    if text and not is_user(text):
        raise ValueError(f"its user is {text!r}")
    return text


def _read(tags: Mapping[str, str]) -> Kept:
    if tags["version"] != _VERSION:
        raise ValueError("it is of another version of this program")

    def tag(name: str, pattern: re.Pattern[str] = _WORD) -> str:
        if not pattern.fullmatch(tags[name]):
            raise ValueError(f"its {name} is {tags[name]!r}")
        return tags[name]

    return Kept(
        id=tag("id", _ID),
        image=tag("image"),
        architecture=tag("architecture"),
        owner=tag("owner", _PRINTABLE),
        user=_user(tag("user")),
        host_key=tag("host-key", _HOST_KEY),
        pool=tag("pool", _PRINTABLE),
        created=int(tag("created", _TIME)),
        expires=int(tag("expires", _TIME)),
        throw_away=tag("throw-away") == "yes",
        phase=_phase(tag("phase")),
    )


def _phase(text: str) -> Phase:
    if text not in get_args(Phase):
        raise ValueError(f"its phase is {text!r}")
    return cast("Phase", text)
