# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign text made fit for a terminal, a log or a page: the one place that does it."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 400
"""Characters of one foreign value that people are shown."""


def printable(text: str | bytes, longest: int = LONGEST) -> str:
    r"""One line of a foreign text, in which nothing is left that a terminal would obey.

    Control characters (line ends, escapes, C1), direction marks and octets that are not UTF-8 become \xNN or
    \uNNNN; a backslash stays as it is. What is longer than `longest` characters is cut, and ends in "…".
    """
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogateescape")
    # Of a very long one no more than is shown is looked at.
    shown = text[: 4 * longest + 4].decode("utf-8", "backslashreplace")
    shown = shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
    return "".join(char if char.isprintable() else _escaped(char) for char in shown)


def _escaped(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
