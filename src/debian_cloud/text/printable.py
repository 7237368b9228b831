# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign text made fit for a terminal, a log or a page: the one place that does it.

A value that others gave is made so where a sentence is formatted (`printable`),
since a line end in it would begin a line of its own. All that the command writes
goes through `Printed` besides, whatever a verb forgot.

Only the progress bar and a plan that goes into a shell are written directly. The scripts of archive/ have
`one_line`; debian-cloud-mirror shows ASCII alone.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from typing import TextIO

LONGEST: Final = 400
"""Characters of one foreign value that people are shown."""
_MOST: Final = (200, 1000)
"""Lines of what an error says, with a tool's own words in it, and characters of each."""
_OCTETS: Final = range(0xDC80, 0xDD00)
"""What Python makes of octets that are not UTF-8 (PEP 383)."""


def printable(text: str | bytes, longest: int = LONGEST) -> str:
    r"""One line of a foreign text, in which nothing is left that a terminal would obey.

    Control characters (line ends, escapes, C1), direction marks and octets that are not UTF-8 become \xNN or
    \uNNNN; a backslash stays as it is. What is longer than `longest` characters is cut, and ends in "…".
    """
    # Of a very long one no more than is shown is looked at.
    octets = _octets(text[: 4 * longest + 4]) if isinstance(text, str) else text[: 4 * longest + 4]
    shown = octets.decode("utf-8", "backslashreplace")
    return _escaped(shown if len(shown) <= longest else f"{shown[: longest - 1]}…")


def paragraph(text: str) -> str:
    """What an error says: the lines after the first are set in, so that none of them passes for one of ours."""
    first, *others = text.rstrip("\n").split("\n", _MOST[0])
    if len(others) == _MOST[0]:
        others[-1] = "…"
    shown = [printable(_short(line), 8 * _MOST[1]).rstrip() for line in (first, *others)]
    return "\n".join((shown[0], *(line if line.startswith("  ") else f"  {line}".rstrip() for line in shown[1:])))


def _short(line: str) -> str:
    """A line of which a long value in the middle is cut, and not the sentence that comes after it."""
    line = line if len(line) <= _MOST[1] else f"{line[: _MOST[1] // 2]}…{line[-_MOST[1] // 2 :]}"
    return line.expandtabs()


class Printed(io.TextIOBase):
    """A stream on which only lines of printable text are written, and nothing that its encoding has not.

    What verbs print passes as it is, JSON and tabs too; `beneath` leads to the stream itself.
    """

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath

    def write(self, text: str) -> int:
        """Write a text, or a part of one."""
        shown = _escaped(text, "\n\t")
        coding = self.beneath.encoding or "ascii"
        self.beneath.write(shown if shown.isascii() else shown.encode(coding, "backslashreplace").decode(coding))
        return len(text)

    def flush(self) -> None:
        """Let nothing of it wait."""
        self.beneath.flush()

    def fileno(self) -> int:
        """The descriptor, for other programs' own words."""
        return self.beneath.fileno()

    def isatty(self) -> bool:
        """Whether people look at it."""
        return self.beneath.isatty()

    def writable(self) -> bool:
        """It is there for nothing else."""
        return True


def printed(stream: TextIO) -> TextIO:
    """The stream on which only printable text is written, whatever a verb prints."""
    return cast("TextIO", Printed(stream))


def beneath(stream: TextIO) -> TextIO:
    """The stream itself: for what moves the cursor, and for a file that somebody redirected it to."""
    return cast("TextIO", getattr(stream, "beneath", stream))


def _octets(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _escaped(text: str, kept: str = "") -> str:
    plain = text
    for char in kept:
        plain = plain.replace(char, "")
    # Most text is so, and is looked at by one call.
    if plain.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else _escape(ord(char)) for char in text)


def _escape(number: int) -> str:
    number -= 0xDC00 if number in _OCTETS else 0
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
