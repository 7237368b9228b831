# SPDX-License-Identifier: GPL-3.0-or-later
"""Report the progress of a plan: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field

from debian_cloud.text.printable import beneath, printable

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
        if not self._live() and not self.quiet:
            self._say(f"[{self._number:>2}/{self.total}] {printable(title)}\n")

    def tick(self, detail: str = "") -> None:
        """Update the bar of the current step; `detail` is the last line of its tool's output."""
        if not self._live():
            return
        done = _BAR * (self._number - 1) // self.total
        bar = "#" * done + "-" * (_BAR - done)
        seconds = int(time.monotonic() - self._begun)
        text = f"[{bar}] {self._number}/{self.total} {seconds:>3} s  {self._title}"
        if detail:
            text += f": {detail}"
        width = shutil.get_terminal_size().columns - 1
        # A tool's output is untrusted text, and may be longer than the line.
        self._say(f"\r{printable(text)[:width]}\x1b[K")

    def end(self) -> None:
        """Remove the bar after the last step."""
        if self._live():
            self._say("\r\x1b[K")

    def _live(self) -> bool:
        return not self.quiet and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    @staticmethod
    def _say(text: str) -> None:
        stream = beneath(sys.stderr)
        coding = stream.encoding or "ascii"
        stream.write(text.encode(coding, "backslashreplace").decode(coding))
        stream.flush()
