# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign text on its way to a terminal."""

from __future__ import annotations

import pytest

from debian_cloud.printable import printable


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("etc/größe", "etc/größe"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\n0 are unexplained", "a\\x0a0 are unexplained"),
        ("a\rb\x7f\x9b", "a\\x0db\\x7f\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("\udcffa", "\\xffa"),
        (b"\xff\xfea", "\\xff\\xfea"),
        ("\U000e0041", "\\U000e0041"),
        ("a b\\c", "a b\\c"),
    ],
)
def test_nothing_is_left_that_a_terminal_obeys(foreign: str | bytes, shown: str) -> None:
    assert printable(foreign) == shown


def test_what_is_shown_has_a_bound() -> None:
    assert printable("x" * 10**7, 10) == "xxxxxxxxx…"
    assert len(printable("ä" * 1000)) == 400
