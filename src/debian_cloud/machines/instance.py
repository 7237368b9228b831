# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance: one machine that was started from an image, as its provider describes it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["starting", "running", "paused", "stopping", "stopped", "damaged"]
"""`paused`: its provider has stopped it for a reason, and it can go on; `damaged`: it can only be terminated."""
Power = Literal["start", "stop", "reboot"]

_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HOST: Final = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}")

NEVER: Final = 0
"""As a time: it does not expire."""


def is_user(text: str) -> bool:
    """Whether a text can be the name of a user; none begins with a dash, as an option of ssh(1) does."""
    return bool(_USER.fullmatch(text))


def is_host(text: str) -> bool:
    """Whether a text can be an address or a name of a machine; none begins with a dash."""
    return bool(_HOST.fullmatch(text))


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in by SSH: the host key is known before the first login, under the name `alias`.

    `host_key` is its kind and the key, as known_hosts (sshd(8)) has them, empty until the provider tells it; `key` is
    the path of the private key that is let in.
    """

    user: str
    host: str
    port: int
    alias: str
    host_key: str
    key: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance; `id` is the provider's name for it, `image` the stem of its image.

    `created` and `expires` are in seconds since 1970. `login` is there while it runs, if it can be entered by SSH.
    `reason` says why it is in its state, where the provider knows.
    """

    name: str
    id: str
    target: str
    image: str
    architecture: str
    state: State
    created: int = 0
    expires: int = NEVER
    login: Login | None = None
    throw_away: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Console:
    """What an instance wrote to its console, and how to connect to it, if that can be: a socket or a command."""

    log: bytes
    socket: str = ""
    command: tuple[str, ...] = ()
