# SPDX-License-Identifier: GPL-3.0-or-later
"""The contents of a binary package, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAINTAINER_SCRIPTS: Final = ("preinst", "postinst", "prerm", "postrm")
QUESTIONS: Final = ("config", "templates")
"""Control files by which a package asks questions when it is installed (debconf-devel(7))."""

ENTRY: Final = re.compile(r"(?P<source>\S+) \((?P<version>\S+)\) (?P<suite>[^\s;]+)[^;\n]*;")
"""The first line of a changelog's entry (deb-changelog(5)), with the first of its suites."""


@dataclass(frozen=True, slots=True)
class File:
    """One file or link that a package installs, under its absolute path; `mode` is its permission bits."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    link: str = ""


@dataclass(frozen=True, slots=True)
class Binary:
    """Fields, control files (postinst, triggers, … -> text) and installed files of one binary package."""

    fields: Mapping[str, str]
    control: Mapping[str, str]
    files: tuple[File, ...]

    @property
    def name(self) -> str:
        """The package's name."""
        return self.fields["Package"]

    @property
    def version(self) -> str:
        """The package's version; "" if a source tree does not state it."""
        return self.fields.get("Version", "")


def relations(field: str) -> tuple[str, ...]:
    """The items of a field like Depends, in their order, each with its alternatives and versions."""
    return tuple(item for part in field.split(",") if (item := " ".join(part.split())))
