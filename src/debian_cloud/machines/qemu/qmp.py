# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's machine protocol (QEMU, docs/interop/qmp-spec): one command after the other on a short connection."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.machines.qemu import state
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST: Final = 2**20
"""Maximum bytes of one answer."""
# The protocol, the socket, and the addresses and ports of the host and the guest.
_FORWARD: Final = re.compile(
    r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+([0-9]{1,5})\s+\S+\s+22\s", re.MULTILINE
)


class Qmp:
    """A connection on which commands have been allowed."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self._connection = connection
        self._end = end
        self._read = bytearray()

    def execute(self, command: str, **arguments: object) -> object:
        """What a command returns; Error if it fails, or QEMU does not answer in time."""
        asked: dict[str, object] = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            self._connection.sendall(json.dumps(asked).encode() + b"\n")
        except OSError as error:
            raise Error(f"QEMU does not take the command {command}: {error.strerror}") from None
        while True:
            found = self.line()
            if "error" in found:
                raise Error(f"QEMU refused {command}: {printable(str(found['error']))}")
            # Others are events.
            if "return" in found:
                return found["return"]

    def line(self) -> dict[str, object]:
        """The next message; Error if QEMU has ended, or does not send one in time."""
        while b"\n" not in self._read:
            left = self._end - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._connection.settimeout(left)
                piece = self._connection.recv(2**16)
            except TimeoutError:
                raise Error("QEMU does not answer", "try again, or end it with `debian-cloud terminate`") from None
            except OSError:
                piece = b""
            if not piece or len(self._read) > _LONGEST:
                raise Error("QEMU has ended")
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Error("QEMU sent what is not its protocol")
        return found


@contextlib.contextmanager
def opened(folder: Path, seconds: float) -> Iterator[Qmp]:
    """A connection to the QEMU of an instance for at most so many seconds; Error if there is none.

    QEMU serves one connection at a time, so it should be short.
    """
    end = time.monotonic() + seconds
    try:
        connection = state.connected(folder, state.QMP, seconds)
    except OSError:
        raise Error("QEMU has ended") from None
    with connection:
        qmp = Qmp(connection, end)
        qmp.line()
        qmp.execute("qmp_capabilities")
        yield qmp


_HALTED: Final = ("io-error", "internal-error", "paused")


def halted(qmp: Qmp) -> str:
    """QEMU's word for why the guest does not run although QEMU does; "" if it runs (QEMU, RunState)."""
    said = qmp.execute("query-status")
    status = str(said.get("status")) if isinstance(said, dict) else ""
    return status if status in _HALTED else ""


def port(qmp: Qmp) -> int:
    """The port of this machine that leads to the SSH server of the guest; 0 if there is none."""
    return forwarded(str(qmp.execute("human-monitor-command", **{"command-line": "info usernet"})))


def forwarded(usernet: str) -> int:
    """That port, in what QEMU says of its user network (`info usernet`); 0 if it has none."""
    found = _FORWARD.search(usernet)
    return int(found[1]) if found else 0
