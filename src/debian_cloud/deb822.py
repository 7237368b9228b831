# SPDX-License-Identifier: GPL-3.0-or-later
"""Stanzas in Debian's format (deb822(5)), and the order of versions; the only importer of python-debian."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian.debian_support import NativeVersion

from debian import deb822

if TYPE_CHECKING:
    from collections.abc import Iterable

Stanza = dict[str, str]
"""Field -> value, in the order of the text."""

_LONGEST: Final = 255
"""Characters of a version."""


def parse(text: str) -> tuple[Stanza, ...]:
    """The stanzas of a text, without a clear signature around them."""
    # apt_pkg's parser is for files; python-debian's own needs no temporary one.
    return tuple(dict(stanza) for stanza in deb822.Deb822.iter_paragraphs(text, use_apt_pkg=False))


def render(fields: Iterable[tuple[str, str]]) -> str:
    """One stanza as text, without the empty line after it; continuation lines are given in the value."""
    return "".join(f"{name}:{value if value.startswith(chr(10)) else ' ' + value}\n" for name, value in fields)


def version(text: str) -> NativeVersion:
    """A version, to be compared as dpkg does (deb-version(7)); ValueError when it is none."""
    # Longer ones are nobody's, and their numbers more than Python takes.
    if len(text) > _LONGEST:
        raise ValueError(text)
    return NativeVersion(text)
