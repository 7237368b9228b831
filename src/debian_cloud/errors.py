# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that users see."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FAILED = 1
"""Exit status: verification or policy said no."""
USAGE = 2
"""Exit status: the command was called the wrong way."""


class Error(Exception):
    """A sentence that says what went wrong, and a hint that says what to do.

    `status` is the exit status: FAILED (1) or USAGE (2).
    """

    def __init__(self, message: str, hint: str = "", status: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint for a word that is not among the known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known are: {', '.join(known)}" if known else "none is known"
