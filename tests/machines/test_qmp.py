# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's protocol, spoken with something that does not keep to it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.machines.qemu import qmp, state

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
DONE = b'{"return": {}}\r\n'


@contextmanager
def served(folder: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server at the socket of an instance for one connection."""

    def accept() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                serve(connection)
            except OSError:
                return

    with state.listening(folder, state.QMP) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield
        thread.join(10)


def answering(*lines: bytes) -> Callable[[socket.socket], None]:
    """A server that greets, and answers one command after the other with these lines."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        for line in (DONE, *lines):
            connection.recv(4096)
            connection.sendall(line)

    return serve


def usernet(text: str) -> bytes:
    return json.dumps({"return": text}).encode() + b"\n"


USERNET = """\
Hub -1 (net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]   41       10.0.2.15 45678       127.0.0.1    22     0     0
  TCP[HOST_FORWARD]  12       127.0.0.1 34461       10.0.2.15    22     0     0
"""


def test_the_port_is_that_of_the_forward(tmp_path: Path) -> None:
    with served(tmp_path, answering(usernet(USERNET))), qmp.opened(tmp_path, 5) as connection:
        assert qmp.port(connection) == 34461
    with served(tmp_path, answering(usernet("nothing"))), qmp.opened(tmp_path, 5) as connection:
        assert qmp.port(connection) == 0


def test_events_are_passed_over(tmp_path: Path) -> None:
    event = b'{"event": "RTC_CHANGE", "data": {}}\n'
    with served(tmp_path, answering(event + event + b'{"return": 5}\n')), qmp.opened(tmp_path, 5) as connection:
        assert connection.execute("x") == 5


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"error": {"class": "GenericError", "desc": "no \\u001b[2J"}}\n', r"refused x: .*no \\x1b\[2J"),
        (b"", "has ended"),
        (b"not json\n", "not its protocol"),
        (b"[" * 100000 + b"\n", "not its protocol"),
        (b"[1]\n", "not its protocol"),
        (b'{"return": "' + b"x" * 2**21, "has ended"),
    ],
)
def test_what_is_not_an_answer(tmp_path: Path, answer: bytes, said: str) -> None:
    with served(tmp_path, answering(answer)), qmp.opened(tmp_path, 5) as connection:
        with pytest.raises(Error, match=said) as error:
            connection.execute("x")
        assert "\x1b" not in error.value.message


def test_one_that_says_nothing_has_an_end(tmp_path: Path) -> None:
    begun = time.monotonic()
    with (
        served(tmp_path, lambda _: time.sleep(1)),
        pytest.raises(Error, match="does not answer"),
        qmp.opened(tmp_path, 0.3),
    ):
        pass
    assert time.monotonic() - begun < 5


def test_one_that_says_a_byte_now_and_then_has_an_end(tmp_path: Path) -> None:
    def trickle(connection: socket.socket) -> None:
        for byte in GREETING * 2:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with served(tmp_path, trickle), pytest.raises(Error, match="does not answer"), qmp.opened(tmp_path, 0.5):
        pass


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Error, match="has ended"), qmp.opened(tmp_path, 1):
        pass
    state.listening(tmp_path, state.QMP).close()
    with pytest.raises(Error, match="has ended"), qmp.opened(tmp_path, 1):
        pass


def test_a_directory_with_a_long_name_has_sockets(tmp_path: Path) -> None:
    """An address of a socket has 107 bytes (unix(7))."""
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    with served(folder, answering(usernet(USERNET))), qmp.opened(folder, 5) as connection:
        assert qmp.port(connection) == 34461
