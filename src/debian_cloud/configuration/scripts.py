# SPDX-License-Identifier: GPL-3.0-or-later
"""Separate what debhelper added to a maintainer script from what is the package's own."""

from __future__ import annotations

import re
from typing import Final

# debhelper marks what it adds, and will add it again (dh_installdeb(1)).
_BEGIN: Final = "# Automatically added by dh_"
_END: Final = "# End automatically added section\n"
_TOKEN: Final = "#DEBHELPER#\n"  # noqa: S105 - no password, but where debhelper puts its part
# The lines around it that do nothing: what dh_installdeb(1) writes if there is no script, and comments.
_NOTHING: Final = re.compile(r"#!/bin/(?:ba)?sh(?: -e)?|set -eu?|#(?!!).*|")


def _around(script: str) -> tuple[str, ...]:
    """Return the parts of a script before, between and after those that debhelper added."""
    parts, at = [], 0
    # A regular expression would look for each end that is missing to the end of the script.
    while (begin := script.find(_BEGIN, at)) >= 0 and (end := script.find(_END, begin)) >= 0:
        parts.append(script[at:begin])
        at = end + len(_END)
    return (*parts, script[at:])


def is_own(script: str) -> bool:
    """Return whether a script does more than what debhelper marked as added, which is not examined."""
    return not all(_NOTHING.fullmatch(line.strip()) for line in "".join(_around(script)).splitlines())


def own_part(script: str) -> str:
    """Return a script as its source has it, with debhelper's token for what debhelper adds; "" if that is all."""
    if not is_own(script):
        return ""
    first, *others = _around(script)
    if others:
        return f"{first}{_TOKEN}{''.join(others)}"
    # Code after a last exit is never reached.
    body, exit_, _ = script.rpartition("\nexit 0\n")
    return f"{(body or script).rstrip()}\n\n{_TOKEN}{exit_}"
