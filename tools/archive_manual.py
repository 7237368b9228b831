# SPDX-License-Identifier: GPL-3.0-or-later
"""Make debian-cloud-archive(1) from the headers of archive/verbs and archive/debian-cloud-archive.1.in.

`python3 -m tools.archive_manual` prints roff (man(7)); the package's build calls it. A header is
what `debian-cloud-archive VERB --help` prints: `VERB ARGUMENTS: SUMMARY`, then paragraphs, and
options with two blanks before them.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import VERSION
from tools import manual

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_ARCHIVE: Final = Path(__file__).resolve().parents[1] / "archive"
# A line of 80 columns, less man's indent.
_WRAPPER: Final = textwrap.TextWrapper(72, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False)
_OPTION: Final = re.compile(r"^  (--[a-z-]+)(?: ([A-Z/]+))?(?:  +(.*))?$")
# Literal text: in backquotes, a verb, an option; and placeholders, such as DIR/conf.
_TYPED: Final = re.compile(r"`([^`]+)`|^(debian-cloud-archive \S+)|(?<![\w-])(--[a-z][a-z-]*)")
_FOR_ANOTHER: Final = re.compile(r"(?<![\w/-])([A-Z]{2,})(?:/(?:[\w./-]*\w)?)?(?!\w)")


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a verb: `--suite`, the name of its value or nothing, and what it means."""

    name: str
    value: str
    meaning: str

    @property
    def label(self) -> str:
        """`--suite SUITE`."""
        return f"{self.name} {self.value}".rstrip()


@dataclass(frozen=True, slots=True)
class Verb:
    """The header of a script: the words after its name, a summary, paragraphs, options."""

    name: str
    arguments: str
    summary: str
    paragraphs: tuple[str, ...]
    options: tuple[Option, ...]

    @property
    def usage(self) -> str:
        """How the verb is called, with each of its options."""
        each = (f"[{option.label}]{'…' * ('may be repeated' in option.meaning)}" for option in self.options)
        return f"{self.name} {self.arguments}".replace("[OPTION…]", " ".join(each))

    @property
    def placeholders(self) -> frozenset[str]:
        """The placeholders, such as DIR."""
        return frozenset(re.findall(r"[A-Z]{2,}", " ".join((self.usage, *(option.label for option in self.options)))))


def verbs() -> tuple[Verb, ...]:
    """All verbs, by name."""
    return tuple(verb(path.name, path.read_text("utf-8")) for path in sorted((_ARCHIVE / "verbs").iterdir()))


def verb(name: str, script: str) -> Verb:
    """Parse a script's header, its comment from the third line on; ValueError if it is malformed."""
    comment = re.match(r"#!/bin/sh\n# SPDX.*\n((?:#.*\n)+)\n", script)
    lines = [line.removeprefix("#").removeprefix(" ") for line in comment[1].splitlines()] if comment else [""]
    first = re.fullmatch(rf"{re.escape(name)} (DIR\b[^:]*): (.+)", lines[0])
    if not first:
        raise ValueError(f"archive/verbs/{name}: the header does not begin with '{name} DIR…: SUMMARY'")
    blocks = [block.splitlines() for block in re.split(r"\n\n+", "\n".join(lines[1:]).strip("\n")) if block]
    prose = (" ".join(block) for block in blocks if not block[0].startswith(" "))
    options = [option for block in blocks if block[0].startswith(" ") for option in _options(name, block)]
    return Verb(name, first[1], first[2], tuple(prose), tuple(options))


def _options(name: str, block: list[str]) -> Iterator[Option]:
    """The options of a block; a line that is indented further continues the one before."""
    found: list[tuple[str, str, list[str]]] = []
    for line in block:
        if match := _OPTION.match(line):
            found.append((match[1], match[2] or "", [match[3] or ""]))
        elif found and line.startswith("   "):
            found[-1][2].append(line.strip())
        else:
            raise ValueError(f"archive/verbs/{name}: not an option: {line.strip()}")
    for option, value, meaning in found:
        yield Option(option, value, " ".join(meaning).strip())


def synopsis(known: tuple[Verb, ...]) -> str:
    """A call of each verb; `[--suite SUITE]` is not broken."""
    words = frozenset[str]().union(*(each.placeholders for each in known))
    lines: list[str] = []
    for usage in (*(each.usage for each in known), "--version"):
        whole = re.sub(r"\[[^]]*\]+", lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), usage)
        wrapped = _WRAPPER.wrap(f"debian-cloud-archive {whole}")
        lines += (marked(line.replace("\N{NO-BREAK SPACE}", " "), words) for line in wrapped)
    return "\n".join(lines)


def section(each: Verb) -> str:
    """One verb: how it is called, what it does, what its options mean."""
    lines = [f".SS {manual.escape(each.name)}", marked(f"debian-cloud-archive {each.usage}", each.placeholders)]
    for paragraph in (each.summary, *each.paragraphs):
        lines += [".PP", marked(_sentence(paragraph), each.placeholders)]
    for option in each.options:
        lines += [".TP", marked(option.label, each.placeholders)]
        lines.append(marked(_sentence(option.meaning), each.placeholders))
    return "\n".join(lines)


def page() -> str:
    """The complete page."""
    known = verbs()
    made = {
        "SYNOPSIS": synopsis(known),
        "VERBS": "\n".join(map(section, known)),
        "VERSION": VERSION,
    }
    template = (_ARCHIVE / "debian-cloud-archive.1.in").read_text("utf-8")
    return re.sub(r"@([A-Z]+)@", lambda match: made[match[1]], template)


def marked(text: str, placeholders: Container[str]) -> str:
    """A line of text as roff: literal text in bold, placeholders in italics."""
    typed = ((match.span(), "B", next(filter(None, match.groups()))) for match in _TYPED.finditer(text))
    others = ((match.span(), "I", match[0]) for match in _FOR_ANOTHER.finditer(text) if match[1] in placeholders)
    roff, done = "", 0
    for (start, end), face, words in sorted((*typed, *others)):
        if start >= done:
            roff += f"{manual.escape(text[done:start])}\\f{face}{manual.escape(words)}\\fR"
            done = end
    return manual.plain(roff + manual.escape(text[done:]))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


if __name__ == "__main__":
    sys.stdout.write(page())
