# SPDX-License-Identifier: GPL-3.0-or-later
"""Untrusted text made safe for a terminal, a log or a page; no other module does that.

An untrusted value is escaped where a message is formatted (`printable`), because a line end in it would begin a new
line. All that the command writes also goes through `Printed`, in case a verb forgot.

Only the progress bar, and a plan that goes to a shell, are written directly. The scripts of archive/ have `one_line`.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from typing import TextIO

LONGEST: Final = 400
"""Maximum characters of one untrusted value that are shown."""
_MOST: Final = (200, 1000)
"""Maximum lines of an error, including a tool's output, and characters of each."""
_SEQUENCES: Final = re.compile(r"\x1b(?:\[[0-9;?=!]*[A-Za-z]|[()][A-Z0-9]|[=>])|\r")
"""Colours, places of the cursor and sets of characters (console_codes(4))."""
_OCTETS: Final = range(0xDC80, 0xDD00)
"""Surrogates that Python makes of octets that are not UTF-8 (PEP 383)."""


def printable(text: str | bytes, longest: int = LONGEST) -> str:
    r"""An untrusted text as one line, without anything that a terminal would obey.

    Control characters (line ends, escapes, C1), direction marks and octets that are not UTF-8 become \xNN or \uNNNN;
    a backslash stays as it is. A text longer than `longest` characters is cut, and ends in "…".
    """
    # Only as much of a very long text is read as is shown.
    octets = _octets(text[: 4 * longest + 4]) if isinstance(text, str) else text[: 4 * longest + 4]
    shown = octets.decode("utf-8", "backslashreplace")
    return _escaped(shown if len(shown) <= longest else f"{shown[: longest - 1]}…")


def paragraph(text: str) -> str:
    """The text of an error: lines after the first are indented, so that none looks like a message of this program."""
    first, *others = text.rstrip("\n").split("\n", _MOST[0])
    if len(others) == _MOST[0]:
        others[-1] = "…"
    shown = [printable(_short(line), 8 * _MOST[1]).rstrip() for line in (first, *others)]
    return "\n".join((shown[0], *(line if line.startswith("  ") else f"  {line}".rstrip() for line in shown[1:])))


def _short(line: str) -> str:
    """A line with a long value cut in its middle, but not the sentence after the value."""
    line = line if len(line) <= _MOST[1] else f"{line[: _MOST[1] // 2]}…{line[-_MOST[1] // 2 :]}"
    return line.expandtabs()


def plain(text: str) -> str:
    """A text from a console without the usual sequences for a terminal; what else it has is not made harmless."""
    return _SEQUENCES.sub("", text)


class Printed(io.TextIOBase):
    """A stream that writes only lines of printable text, and only characters that its encoding has.

    The output of verbs passes unchanged, JSON and tabs too; `beneath` is the underlying stream.
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
        """Flush the underlying stream."""
        self.beneath.flush()

    def fileno(self) -> int:
        """The descriptor, for the output of other programs."""
        return self.beneath.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.beneath.isatty()

    def writable(self) -> bool:
        """Always true."""
        return True


def printed(stream: TextIO) -> TextIO:
    """A stream that writes only printable text to the given one, whatever a verb prints."""
    return cast("TextIO", Printed(stream))


def beneath(stream: TextIO) -> TextIO:
    """The underlying stream: to move the cursor, and for a file to which the stream was redirected."""
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
    # Most text is printable, and is checked by one call.
    if plain.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else _escape(ord(char)) for char in text)


def _escape(number: int) -> str:
    number -= 0xDC00 if number in _OCTETS else 0
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
