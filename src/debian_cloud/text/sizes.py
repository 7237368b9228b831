# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes as people write them: a number and M, G or T, powers of 1024. Pure."""

from __future__ import annotations

import re
from typing import Final

UNITS: Final = {"M": 2**20, "G": 2**30, "T": 2**40}
"""Letter -> bytes."""
_SIZE: Final = re.compile(r"([1-9][0-9]{0,5})([MGT])")


def read(text: str) -> int:
    """The bytes that `8G` or `512M` stands for, or 0 if it is not a size."""
    match = _SIZE.fullmatch(text)
    return int(match[1]) * UNITS[match[2]] if match else 0


def in_words(size: int) -> str:
    """A size, a multiple of MiB, as such a text in the largest unit that gives an integer."""
    unit, letter = next((UNITS[letter], letter) for letter in "TGM" if size % UNITS[letter] == 0)
    return f"{size // unit}{letter}"
