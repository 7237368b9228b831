# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance: one machine that was started from an image, as its provider describes it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["starting", "running", "paused", "stopped", "damaged"]
"""`paused`: its provider has stopped it for a reason, and it can go on; `damaged`: it can only be terminated."""
Power = Literal["start", "stop", "reboot"]

NEVER: Final = 0
"""As a time: it does not expire."""


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
