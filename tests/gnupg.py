# SPDX-License-Identifier: GPL-3.0-or-later
"""GnuPG homes of tests, whose agents have ended before anything else is done with the homes."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OPTIONS = ("--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "")


def gpg(home: Path, *arguments: str | Path, text: bytes = b"") -> bytes:
    """What gpg prints with a home's keys."""
    command: list[str | Path] = ["gpg", "--homedir", home, *_OPTIONS, *arguments]
    return subprocess.run(command, input=text, capture_output=True, check=True).stdout


def new_key(home: Path, owner: str, until: str = "") -> None:
    """Make a home with a signing key."""
    home.mkdir(mode=0o700, exist_ok=True)
    gpg(home, "--quick-generate-key", owner, "ed25519", "sign", *([until] if until else []))


def end(home: Path) -> None:
    """End the agent of a home, and wait until nothing can connect to it.

    An agent answers that it will end before it does: a gpg that connects in between reports "can't connect to the
    agent: End of file".
    """
    conf = ("gpgconf", "--homedir", home)
    asked = subprocess.run([*conf, "--list-dirs", "agent-socket"], capture_output=True, text=True, check=True)
    place = Path(asked.stdout.strip())
    if not _listens(place):
        return
    subprocess.run([*conf, "--kill", "all"], capture_output=True, check=True)
    until = time.monotonic() + 30
    while _listens(place):
        assert time.monotonic() < until, f"the agent of {home} does not end"
        time.sleep(0.01)


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as agent:
        try:
            agent.connect(str(place))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def remove(tree: Path) -> None:
    """Remove a directory with all that is in it, after ending the agents of all GnuPG homes there."""

    def gone(_: object, __: str, error: tuple[Any, BaseException, Any]) -> None:
        # An agent that ends may remove the last of its four sockets now.
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]

    # An agent makes this directory when it starts.
    for keys in [*tree.rglob("private-keys-v1.d")]:
        end(keys.parent)
    shutil.rmtree(tree, onerror=gone)
    assert not tree.exists()


@contextmanager
def temporary_home() -> Iterator[Path]:
    """An empty home, then removed; its name is short, as the path of an agent's socket has at most 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="gpg."))
    try:
        yield home
    finally:
        remove(home)
