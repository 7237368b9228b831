# SPDX-License-Identifier: GPL-3.0-or-later
"""Connect this process's terminal to the console of an instance."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.machines.qemu import state

if TYPE_CHECKING:
    import socket

_END: Final = b"\x1d"
"""Ctrl-], as of telnet(1)."""
_PIECE: Final = 4096


def connect(path: str) -> None:
    """Pass on what is typed and what is written, until Ctrl-] is typed or the instance ends."""
    place = Path(path)
    try:
        connection = state.connected(place.parent, place.name, 5.0)
    except OSError as error:
        raise Error(f"the console cannot be reached: {error.strerror}", "the instance may have ended") from None
    before = termios.tcgetattr(sys.stdin.fileno())
    with connection:
        try:
            tty.setraw(sys.stdin.fileno())
            _pass(connection)
        finally:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


def _pass(connection: socket.socket) -> None:
    # Raw, to the descriptors: what is printed otherwise is made harmless for a terminal.
    typed, shown = sys.stdin.fileno(), sys.stdout.fileno()
    connection.settimeout(None)
    while True:
        ready, _, _ = select.select([typed, connection], [], [])
        if connection in ready:
            piece = connection.recv(_PIECE)
            if not piece:
                return
            os.write(shown, piece)
        if typed in ready:
            piece = os.read(typed, _PIECE)
            before, end, _ = piece.partition(_END)
            connection.sendall(before)
            if end or not piece:
                return
