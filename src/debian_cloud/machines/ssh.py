# SPDX-License-Identifier: GPL-3.0-or-later
"""Log in to an instance: only by the host key that it was given, whatever answers at its port."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.machines.instance import is_host, is_user
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from debian_cloud.machines.instance import Instance, Login

_ANSWER: Final = 5.0
"""Seconds in which a server that listens sends its first line (RFC 4253, 4.2)."""


def argv(login: Login, command: Sequence[str] = (), *, batch: bool = False) -> tuple[str, ...]:
    """The arguments of ssh(1) for a command, or for a shell; the user's own settings are not read.

    With `batch`, nothing is asked for. Error if the host key is not known.
    """
    if not login.host_key:
        raise Error(
            f"the host key of {login.host} is not known yet", "wait until the instance has written it to its console"
        )
    options = {
        "HostKeyAlias": login.alias,
        "UserKnownHostsFile": "none",
        # No file for it: it is the provider that knows the key.
        "KnownHostsCommand": f"/bin/echo {login.alias} {login.host_key}",
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "IdentityFile": _path(login.key),
        # The user's other keys are not shown to it.
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "LogLevel": "ERROR",
        # An instance that has ended, or hangs, does not hang this.
        "ConnectTimeout": "60",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "8",
        **({"BatchMode": "yes"} if batch else {}),
    }
    # A provider's metadata names both.
    if not is_user(login.user) or not is_host(login.host):
        raise Error(
            f"{printable(login.user, 40)} at {printable(login.host, 80)} is no login",
            "the provider's metadata is wrong",
        )
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    to = ("-p", str(login.port), f"{login.user}@{login.host}")
    return ("ssh", "-F", "none", *words, *to, *(("--", *command) if command else ()))


def _path(path: str) -> str:
    """A path as a value of an option (ssh_config(5): quotes, and tokens with a percent sign)."""
    quoted = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{quoted}"'


def make_key(file: Path, comment: str) -> None:
    """Make a key without a passphrase, and `file`.pub beside it (ssh-keygen(1))."""
    run.output(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)))


def answers(login: Login, seconds: float = _ANSWER) -> bool:
    """Whether an SSH server answers whose host key is known; that the port is open says nothing.

    A provider may open the port itself.
    """
    if not login.host_key:
        return False
    with contextlib.suppress(OSError), socket.create_connection((login.host, login.port), timeout=seconds) as found:
        found.settimeout(seconds)
        return found.recv(4) == b"SSH-"
    return False


def wait(find: Callable[[], Instance | None], seconds: float, pause: float, tick: Callable[[], None]) -> bool:
    """Wait until an instance answers; False after so many seconds, or if it is gone or has ended.

    `find` returns it as it is now; that, and `tick`, are called with so many seconds of `pause` between.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = find()
        if found is None or found.state not in ("starting", "running"):
            return False
        if found.state == "running" and not found.login:
            return False
        if found.login and answers(found.login, min(_ANSWER, max(0.1, end - time.monotonic()))):
            return True
        tick()
        time.sleep(pause)
    return False
