# SPDX-License-Identifier: GPL-3.0-or-later
"""A man page as a reader sees it, and its verbs and options."""

from __future__ import annotations

import re
import subprocess


def shown(roff: str) -> str:
    """The text that a reader sees, on one line; a warning of the formatter is an error."""
    done = subprocess.run(
        ["man", "--warnings", "-l", "-"],
        input=roff,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "1000"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return " ".join(done.stdout.split())


def options_by_verb(roff: str) -> dict[str, set[str]]:
    """The verbs of a page, each a subsection, with the options that begin its paragraphs."""
    text = re.sub(r"\\f.", "", roff).replace("\\-", "-")
    sections = "".join(re.findall(r"^\.SH VERBS.*?(?=^\.SH (?!VERBS))", text, re.M | re.S))
    names = re.split(r"^\.SS (\S+)\n", sections, flags=re.M)[1:]
    labels = (re.findall(r"^\.TP\n(?:\.B )?(-.*)$", part, re.M) for part in names[1::2])
    options = (
        {word for label in found for word in re.findall(r"(?:^|, )(--?[a-z][a-z-]*)", label)} for found in labels
    )
    return dict(zip(names[::2], options, strict=True))
