# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that users see."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FAILED = 1
"""Exit status: verification or policy failed."""
USAGE = 2
"""Exit status: the command was called the wrong way."""
_LONG = 12
"""Length in characters from which a word may have two typing errors and still be recognized."""


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
    return f"known: {', '.join(known)}" if known else "none is known"


def slip(word: str, known: Iterable[str]) -> str:
    """The nearest known word within one typing error of this one, or two if it is long; "" if there is none."""
    allowed = 1 if len(word) < _LONG else 2
    near = {other for other in known if abs(len(other) - len(word)) <= allowed}
    close = difflib.get_close_matches(word, near, n=64, cutoff=0.6)
    least = min(((_slips(word, other), other) for other in close), default=(allowed + 1, ""))
    return least[1] if least[0] <= allowed else ""


def _slips(a: str, b: str) -> int:
    """The number of characters left out, added, replaced, or swapped with the next (Damerau-Levenshtein distance)."""
    before, row = list[int](), list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, above, row = row, before, [i]
        for j, other in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[j] = min(row[j], above[j - 2] + 1)
    return row[-1]
