# SPDX-License-Identifier: GPL-3.0-or-later
"""Stanzas in Debian's format (deb822(5)), and the order of versions; the only importer of python-debian.

python-debian is imported when it is needed: that takes longer than many a command.
"""

from __future__ import annotations

import io
import re
from typing import IO, TYPE_CHECKING, Final

from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debian.debian_support import NativeVersion

Stanza = dict[str, str]
"""Field -> value, in the order of the text."""

LARGEST: Final = 2**26
"""Maximum bytes of an index of images, which has room for about 40,000 files."""
MOST_LINES_OF_ALL: Final = 2**21
"""Maximum lines of an index."""
LARGEST_STANZA: Final = 2**20
"""Maximum bytes of one stanza in it."""
MOST_LINES: Final = 2**12
"""Maximum lines of one stanza, which has many if many packages have updates."""
LONGEST_LINE: Final = 2**13
"""Maximum bytes of one line."""
_LINE: Final = LARGEST_STANZA // MOST_LINES
"""Bytes that a line of a stanza counts for at least."""
_DAMAGED: Final = "it was edited or damaged: restore the original"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FIELD: Final = re.compile("[A-Za-z][A-Za-z0-9-]*")
_LONGEST: Final = 255
"""Maximum characters of a version."""


def parse(text: str) -> tuple[Stanza, ...]:
    """The stanzas of a text; Error if a line is OpenPGP's, because `openpgp.inner` reads signed text."""
    # Lines end as in every other reader: Python's splitlines() would also split within values.
    lines = text.split("\n")
    # The library would ignore such lines, and what is around them.
    if any(line.startswith("-----") for line in lines):
        raise Error("a stanza begins with dashes, as signed texts do", "give the text without its signature")
    try:
        return canonical(text)
    except Error:
        from debian import deb822

    # apt_pkg's parser needs a file; python-debian's own does not.
    return tuple(dict(stanza) for stanza in deb822.Deb822.iter_paragraphs(lines, use_apt_pkg=False))


def canonical(text: str) -> tuple[Stanza, ...]:
    """The stanzas of a text as `render` writes it, with the values that `parse` gives, many times faster.

    Error at the first line that is written otherwise: a comment, a field without a value or a field given twice (in
    any case), a value that begins or ends with a blank, a control character.
    """
    return tuple(stanzas(io.BytesIO(text.encode("utf-8", "surrogatepass"))))


def stanzas(file: IO[bytes]) -> Iterator[Stanza]:
    """The same of a file, one after another as it is read; Error also at the first line that exceeds a bound."""
    stanza: dict[str, list[str]] = {}
    # Without regard to case; an index has the same few names in each stanza.
    seen: set[str] = set()
    names: dict[str, str] = {}
    field: list[str] = []
    number, left, of_stanza = 0, LARGEST, 0
    while octets := file.readline(LONGEST_LINE + 2):
        number += 1
        left -= len(octets)
        if left < 0 or number > MOST_LINES_OF_ALL:
            raise Error(f"it has more than {LARGEST} bytes or {MOST_LINES_OF_ALL} lines", _DAMAGED)
        octets = octets.removesuffix(b"\n")
        if not octets:
            if stanza:
                yield _joined(stanza)
                stanza, seen, of_stanza = {}, set(), 0
            continue
        size = len(octets)
        of_stanza += size if size > _LINE else _LINE
        if size > LONGEST_LINE or of_stanza > LARGEST_STANZA:
            raise Error(f"line {number} or its stanza is too long", _DAMAGED)
        try:
            line = octets.decode("utf-8")
        except UnicodeDecodeError:
            raise Error(f"line {number} is not UTF-8 text", _DAMAGED) from None
        # Unicode's blanks, too: python-debian removes them.
        if line[-1].isspace() or (not line.isprintable() and _CONTROL.search(line)):
            raise _odd(number, line)
        if line[0] == " " and stanza:
            field.append(line)
            continue
        name, colon, value = line.partition(":")
        # An empty value is a multi-line value, whose first line is empty.
        value, plain = value[1:], value[:1] in ("", " ")
        if (folded := names.get(name)) is None and _FIELD.fullmatch(name):
            folded = name.lower()
            if len(names) < MOST_LINES:
                names[name] = folded
        if not colon or not plain or folded is None or folded in seen or value[:1].isspace():
            raise _odd(number, line)
        seen.add(folded)
        stanza[name] = field = [value]
    if stanza:
        yield _joined(stanza)


def _joined(stanza: dict[str, list[str]]) -> Stanza:
    return {name: "\n".join(lines) for name, lines in stanza.items()}


def _odd(number: int, line: str) -> Error:
    return Error(f"line {number} does not have the form that this program writes: {line[:60]!r}", _DAMAGED)


def render(fields: Iterable[tuple[str, str]]) -> str:
    """One stanza as text, without the empty line after it; continuation lines are given in the value."""
    return "".join(f"{name}:{value if value.startswith(chr(10)) else ' ' + value}\n" for name, value in fields)


def version(text: str) -> NativeVersion:
    """A version that compares as in dpkg (deb-version(7)); ValueError if it is not one."""
    # Longer ones are not used, and their numbers may be longer than Python accepts.
    if len(text) > _LONGEST:
        raise ValueError(text)
    from debian.debian_support import NativeVersion

    return NativeVersion(text)
