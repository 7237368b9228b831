# SPDX-License-Identifier: GPL-3.0-or-later
"""Stanzas as this program writes them, and as other programs do."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace

import pytest
from debian.deb822 import Deb822

from debian_cloud.errors import Error
from debian_cloud.image import index
from debian_cloud.text import deb822
from tests.samples import ATTESTED


def test_stanzas_are_read_alike_in_both_ways() -> None:
    text = (
        "\n"
        + index.render([ATTESTED, replace(ATTESTED, id=replace(ATTESTED.id, serial="20261121.0"))])
        + "\n\nField:\n a\n  b: c\nOther: x:y\n"
    )
    assert deb822.canonical(text) == library(text)
    assert len(deb822.canonical(text)) == 3
    assert deb822.canonical("") == ()


PIECES: tuple[str, ...] = (
    "A: b",
    "A: c: d",
    "A:",
    "Bc-d:",
    "Bc-d: 1",
    " x",
    "  y",
    " .",
    "",
    "# A: b",
    "a: b",
    "A:b",
    "A : b",
    "é: b",
)
PIECES += (
    "A: é",
    "A: b ",
    " ",
    "\t",
    "\tx",
    "A:\tb",
    "A: \x7f",
    "A: \x85",
    "A: b\r",
    "x",
    ": b",
    "A: \u2028b",
    "A: b\u3000",
    " x\u2003",
)


def library(text: str) -> tuple[deb822.Stanza, ...]:
    """The stanzas as python-debian reads them."""
    return tuple(dict(stanza) for stanza in Deb822.iter_paragraphs(text.split("\n"), use_apt_pkg=False))


def test_what_is_read_without_the_library_is_what_the_library_reads() -> None:
    """`parse` asks the library only for what `canonical` refuses."""
    alike = 0
    for lines in (
        lines for count in range(1, 5) for lines in itertools.product(PIECES[: 27 - 5 * count], repeat=count)
    ):
        text = "\n".join(lines)
        with contextlib.suppress(Error):
            assert deb822.canonical(text) == library(text), repr(text)
            alike += 1
    assert alike > 100
    for line in PIECES:
        assert deb822.parse(f"A: b\n\n{line}\nB: c") == library(f"A: b\n\n{line}\nB: c"), repr(line)


@pytest.mark.parametrize(
    "text",
    ["A: b\nA: c", "A b", " a: b", "A: b\n\n c", "A:b", "A: b ", "A: b\r", "A:  b", "A: \n", "# A: b", "A: b\n \n c"],
)
def test_what_no_program_of_ours_wrote_is_no_canonical_stanza(text: str) -> None:
    with pytest.raises(Error, match=r"line [12345] does not have the form that this program writes"):
        deb822.canonical(text)
