# SPDX-License-Identifier: GPL-3.0-or-later
"""A user at a terminal: runs commands on a pseudo-terminal, reads their output, and types answers."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.built.qemu import TERMINAL_CONTROL, logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PASSWORD: Final = "of-no-use-elsewhere-7"


@dataclass(slots=True)
class Terminal:
    """A terminal with running commands; its output is also in `log`."""

    process: subprocess.Popen[bytes]
    descriptor: int
    log: Path
    _unread: str = field(default="")

    def wait(self, pattern: str, seconds: float) -> str:
        """Read until `pattern` is shown, and return the text up to its end; raise AssertionError otherwise."""
        end = time.monotonic() + seconds
        while True:
            if match := re.search(pattern, self._unread):
                seen, self._unread = self._unread[: match.end()], self._unread[match.end() :]
                return seen
            last = "\n".join(self._unread.splitlines()[-30:])
            assert time.monotonic() < end, f"no {pattern!r} in {seconds} s: {self.log}\n{last}"
            if not select.select([self.descriptor], [], [], 1)[0]:
                continue
            try:
                read = os.read(self.descriptor, 2**16)
            except OSError:  # the other side is closed
                read = b""
            assert read, f"ended before {pattern!r}: {self.log}\n{last}"
            with self.log.open("ab") as log:
                log.write(read)
            self._unread += TERMINAL_CONTROL.sub("", read.decode("utf-8", "replace"))

    def type(self, line: str) -> None:
        """Type a line, and Enter."""
        os.write(self.descriptor, f"{line}\r".encode())

    def answer(self, question: str, line: str, seconds: float = 60) -> None:
        """Type a line at a prompt that does not echo it."""
        self.wait(question, seconds)
        # The prompt discards input from before it has switched the echo off.
        time.sleep(1)
        self.type(line)

    def log_in(self, user: str, seconds: float) -> None:
        """Wait for the login prompt, and log in with `PASSWORD`."""
        self.wait(r"\n\S+ login: ", seconds)
        self.type(user)
        self.answer("Password: ", PASSWORD)
        self.wait(r"[#$] $", 60)

    def run(self, command: str, seconds: float = 60) -> str:
        """The output of a command in a waiting shell."""
        self.type(f"echo :$((40 + 2)); {command}; echo :$((80 + 4)):")
        self.wait(r":42\s*\n", 60)
        return self.wait(r"\n?:84:", seconds).removesuffix(":84:").strip()


@contextmanager
def paste(block: str, name: str, folder: Path, programs: Mapping[str, str]) -> Iterator[Terminal]:
    """Paste commands into a shell on a terminal, in a directory, for the duration of the block.

    `programs` are scripts that are found before the machine's own programs.
    """
    found = folder / "bin"
    found.mkdir(exist_ok=True)
    for program, script in programs.items():
        (found / program).write_text(script, "utf-8")
        (found / program).chmod(0o755)
    log = logs() / f"{name}.log"
    log.write_bytes(b"")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "sh", "-euc", block],
        cwd=folder,
        env={
            "HOME": str(folder),
            "PATH": f"{found}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "TERM": "dumb",
            "TMPDIR": str(folder),
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours, log)
    finally:
        # Closing the terminal sends SIGHUP to what runs there; SIGKILL follows if that is not enough.
        os.close(ours)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
