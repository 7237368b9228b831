# SPDX-License-Identifier: GPL-3.0-or-later
"""Report the progress of a plan, or of several at once: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from debian_cloud.text.printable import beneath, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    Begin = Callable[[int], "Progress"]

_BAR = 24


@dataclass(slots=True)
class Progress:
    """Progress of `total` steps on standard error; with `quiet`, nothing is written."""

    total: int
    quiet: bool = False
    _number: int = 0
    _title: str = ""
    _begun: float = field(default_factory=time.monotonic)

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._number += 1
        self._title = title
        if not self.quiet and not live():
            say(f"[{self._number:>2}/{self.total}] {printable(title)}\n")

    def tick(self, detail: str = "") -> None:
        """Update the bar of the current step; `detail` is the last line of its tool's output."""
        if self.quiet or not live():
            return
        seconds = int(time.monotonic() - self._begun)
        text = f"{self._number}/{self.total} {seconds:>3} s  {self._title}"
        _draw((self._number - 1) / self.total, f"{text}: {detail}" if detail else text)

    def end(self) -> None:
        """Remove the bar after the last step."""
        if not self.quiet and live():
            say(_GONE)


def shown(*, quiet: bool) -> Begin:
    """Return what begins the progress of one plan on standard error."""
    return partial(Progress, quiet=quiet)


@dataclass(slots=True)
class Relayed(Progress):
    """Progress that is not shown here: `send` gets the number of each step, their total, and the step's title."""

    send: Callable[[tuple[int, int, str]], None] = field(kw_only=True)

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._number += 1
        self.send((self._number, self.total, title))

    def tick(self, detail: str = "") -> None:
        """Only steps are sent."""

    def end(self) -> None:
        """Nothing was shown."""


@dataclass(slots=True)
class Board:
    """Progress of several plans, which have names; with `quiet`, nothing is written."""

    names: tuple[str, ...]
    quiet: bool = False
    _running: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    _ended: int = 0
    _begun: float = field(default_factory=time.monotonic)

    def step(self, name: str, number: int, total: int, title: str) -> None:
        """Begin the next step of one plan."""
        self._running[name] = number, total, title
        if self.quiet:
            return
        if live():
            self._show()
        else:
            say(f"{name}: [{number:>2}/{total}] {printable(title)}\n")

    def ended(self, name: str) -> None:
        """End one plan."""
        self._running.pop(name, None)
        self._ended += 1
        if not self.quiet and live():
            self._show()

    def line(self, name: str, text: str) -> None:
        """Write a line that is about one plan."""
        say(f"{_GONE if not self.quiet and live() else ''}{name}: {printable(text)}\n")

    def end(self) -> None:
        """Remove the bar after the last plan."""
        if not self.quiet and live():
            say(_GONE)

    def _show(self) -> None:
        parts = [(number - 1) / total for number, total, _ in self._running.values()]
        seconds = int(time.monotonic() - self._begun)
        running = "; ".join(f"{name}: {title}" for name, (_, _, title) in self._running.items())
        text = f"{self._ended}/{len(self.names)} {seconds:>3} s  {running}"
        _draw((self._ended + sum(parts)) / len(self.names), text)


_GONE = "\r\x1b[K"


def live() -> bool:
    """Return whether standard error is a terminal that can draw a line anew."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def say(text: str) -> None:
    """Write to standard error what has no foreign text but printable one."""
    stream = beneath(sys.stderr)
    coding = stream.encoding or "ascii"
    stream.write(text.encode(coding, "backslashreplace").decode(coding))
    stream.flush()


def _draw(part: float, text: str) -> None:
    """Draw a bar with `part` of it done, from 0 to 1, and a text."""
    done = int(_BAR * part)
    width = shutil.get_terminal_size().columns - 1
    # A tool's output is untrusted text, and may be longer than the line.
    line = printable(f"[{'#' * done}{'-' * (_BAR - done)}] {text}")
    say(f"\r{line[:width]}\x1b[K")
