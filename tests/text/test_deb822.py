# SPDX-License-Identifier: GPL-3.0-or-later
"""Stanzas as this program writes them, and as other programs do."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
    assert deb822.canonical(text) == deb822.parse(text)
    assert len(deb822.canonical(text)) == 3
    assert deb822.canonical("") == ()


@pytest.mark.parametrize(
    "text",
    ["A: b\nA: c", "A b", " a: b", "A: b\n\n c", "A:b", "A: b ", "A: b\r", "A:  b", "A: \n", "# A: b", "A: b\n \n c"],
)
def test_what_no_program_of_ours_wrote_is_no_canonical_stanza(text: str) -> None:
    with pytest.raises(Error, match=r"line [12345] does not have the form that this program writes"):
        deb822.canonical(text)
