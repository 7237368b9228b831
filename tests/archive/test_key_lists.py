# SPDX-License-Identifier: GPL-3.0-or-later
"""conf/keys and gpg's listings, read as data."""

from __future__ import annotations

import pytest

from debian_cloud.archive import keys
from tests.archive.listings import A, B, C, key


@pytest.mark.parametrize(
    ("text", "until"),
    [
        (key((A, "scSC", "")), None),
        (key((A, "scSC", "1800000000")), 1800000000),
        # A signing subkey is good no longer than its primary; other subkeys do not count.
        (key((A, "cSC", "1800000000"), (B, "s", "")), 1800000000),
        (key((A, "cSC", ""), (B, "s", "1800000000"), (C, "e", "")), 1800000000),
        (key((A, "scSC", "1800000000"), (B, "s", "1700000000")), 1800000000),
        (key((A, "scSC", ""), (B, "s", "1700000000")), None),
        (key((A, "cEC", "1800000000"), (B, "e", "1700000000")), None),
    ],
)
def test_until_when_a_key_signs(text: str, until: int | None) -> None:
    (found,) = keys.listed(f"tru::1:1790000000:0:3:1:5\n{text}")
    assert (found.fingerprint, found.owner, found.until) == (A, "Somebody <a@b.example>", until)


def test_each_key_has_its_first_owner() -> None:
    first = key((A, "scSC", ""), owners=("Ö\\x3a\u2028x", "other"))
    found = keys.listed(first + key((B, "scSC", ""), owners=()) + key((C, "scSC", "")))
    assert [(one.fingerprint, one.owner) for one in found] == [
        (A, "Ö:\u2028x"),
        (B, ""),
        (C, "Somebody <a@b.example>"),
    ]
    assert keys.listed("") == ()


def test_states_are_those_of_conf_keys() -> None:
    text = f"# {A} active\n{A.lower()} active since=2026-11-20T00:00:00Z x\u2028{C} revoked\n\n{B}  retired\n{C}\n"
    assert keys.states(text) == {A: "active", B: "retired"}
