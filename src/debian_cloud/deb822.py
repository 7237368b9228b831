# SPDX-License-Identifier: GPL-3.0-or-later
"""Stanzas in Debian's format (deb822(5)), and the order of versions; the only importer of python-debian."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from debian.debian_support import NativeVersion

from debian import deb822

from .errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable

Stanza = dict[str, str]
"""Field -> value, in the order of the text."""

_FIELD: Final = re.compile("[A-Za-z][A-Za-z0-9-]*")
_LONGEST: Final = 255
"""Characters of a version."""


def parse(text: str) -> tuple[Stanza, ...]:
    """The stanzas of a text; Error when a line is of OpenPGP's, whose text is read elsewhere (`openpgp.inner`)."""
    # Lines end as in every other reader: Python's own splitlines() finds ends of them within values.
    lines = text.split("\n")
    # The library would pass over such lines, and over what is around them.
    if any(line.startswith("-----") for line in lines):
        raise Error("a stanza begins with dashes, as signed texts do", "give the text without its signature")
    # apt_pkg's parser is for files; python-debian's own needs no temporary one.
    return tuple(dict(stanza) for stanza in deb822.Deb822.iter_paragraphs(lines, use_apt_pkg=False))


def canonical(text: str) -> tuple[Stanza, ...]:
    """The stanzas of a text as `render` writes it, many times faster; values are as `parse` gives them.

    Error at the first line that is written otherwise: a comment, a field without a value or given twice, a
    value that begins or ends with a blank, a carriage return.
    """
    found: list[Stanza] = []
    stanza: Stanza = {}
    field = ""
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith(" ") and field:
            stanza[field] += f"\n{line}"
        elif not line:
            if stanza:
                found.append(stanza)
                stanza, field = {}, ""
            continue
        else:
            field, colon, value = line.partition(":")
            # An empty value is one of several lines, the first of which is empty.
            value, plain = value[1:], value[:1] in ("", " ")
            if not colon or not plain or field in stanza or not _FIELD.fullmatch(field) or value[:1].isspace():
                raise _odd(number, line)
            stanza[field] = value
        if line[-1].isspace():
            raise _odd(number, line)
    return (*found, stanza) if stanza else tuple(found)


def _odd(number: int, line: str) -> Error:
    return Error(f"line {number} is not as this program writes it: {line[:60]!r}", "it was edited or damaged")


def render(fields: Iterable[tuple[str, str]]) -> str:
    """One stanza as text, without the empty line after it; continuation lines are given in the value."""
    return "".join(f"{name}:{value if value.startswith(chr(10)) else ' ' + value}\n" for name, value in fields)


def version(text: str) -> NativeVersion:
    """A version, to be compared as dpkg does (deb-version(7)); ValueError when it is none."""
    # Longer ones are nobody's, and their numbers more than Python takes.
    if len(text) > _LONGEST:
        raise ValueError(text)
    return NativeVersion(text)
