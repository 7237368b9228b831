# SPDX-License-Identifier: GPL-3.0-or-later
"""gpg's listings and image records, as data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from debian_cloud.image import index
from debian_cloud.image.id import ImageId
from tests.samples import RECORD


def image(name: str, **fields: Any) -> index.ImageRecord:
    """A record of CONFIG/ARCH/SERIAL."""
    return replace(RECORD, id=ImageId.parse(f"{fields.pop('suite', 'trixie')}/{name}"), **fields)


MANY = tuple(
    image(f"ec2/amd64/{serial}")
    for serial in ("20260731.0", "20260830.0", "20260930.0", "20260930.1", "20261010.0", "20261101.0", "20261102.0")
)
A, B, C = "A" * 40, "B" * 40, "C" * 40


def line(kind: str, *, expires: str = "", may: str = "", tenth: str = "") -> str:
    """A line of gpg's listing (gnupg, doc/DETAILS)."""
    return f"{kind}:u:255:22:0123456789ABCDEF:1790000000:{expires}:::{tenth}::{may}:::::ed25519:::0:\n"


def key(*parts: tuple[str, str, str], owners: tuple[str, ...] = ("Somebody <a@b.example>",)) -> str:
    """The listing of a primary and its subkeys: fingerprint, capabilities, expiry of each."""
    text = ""
    for number, (fingerprint, may, expires) in enumerate(parts):
        text += line("sub" if number else "pub", expires=expires, may=may) + line("fpr", tenth=fingerprint)
        text += "" if number else "".join(line("uid", tenth=owner) for owner in owners)
    return text
