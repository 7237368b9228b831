# SPDX-License-Identifier: GPL-3.0-or-later
"""Connect this process's terminal to the console of an instance."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import termios
import tty
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import signals
from debian_cloud.machines.qemu import state

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_END: Final = b"\x1d"
"""Ctrl-], as of telnet(1)."""
_PIECE: Final = 4096
_MOST: Final = 2**16
"""Bytes that wait for an instance that does not read them; what is typed after them is lost."""


def connect(path: str, report: Callable[[], None]) -> None:
    """Pass on what is typed and what is written, until Ctrl-] is typed or the instance ends.

    `report` is called when it is connected. Error if another terminal is: the console has one user at a time.
    """
    place = Path(path)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(place.with_name(f"{place.name}.lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Error("another terminal is connected to the console", "end that one with Ctrl-]", USAGE) from None
        try:
            connection = stack.enter_context(state.connected(place.parent, place.name, 5.0))
        except OSError as error:
            why = error.strerror or "it does not answer"
            raise Error(f"the console cannot be reached: {why}", "the instance may have ended") from None
        report()
        typed = sys.stdin.fileno()
        stack.callback(termios.tcsetattr, typed, termios.TCSADRAIN, termios.tcgetattr(typed))
        # A signal that ends this must not leave the terminal as it is set here.
        stack.enter_context(signals.ending_politely())
        tty.setraw(typed)
        connection.settimeout(0.0)
        # The instance has ended.
        with contextlib.suppress(ConnectionError):
            _pass(connection)


def _pass(connection: socket.socket) -> None:
    # Raw, to the descriptors: what is printed otherwise is made harmless for a terminal.
    typed, shown = sys.stdin.fileno(), sys.stdout.fileno()
    waiting = b""
    while True:
        ready, writable, _ = select.select([typed, connection], [connection] if waiting else [], [])
        if writable:
            waiting = waiting[connection.send(waiting) :]
        if connection in ready:
            piece = connection.recv(_PIECE)
            if not piece:
                return
            os.write(shown, piece)
        if typed in ready:
            piece = os.read(typed, _PIECE)
            before, end, _ = piece.partition(_END)
            waiting = (waiting + before)[:_MOST]
            if end or not piece:
                return
