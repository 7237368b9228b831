# SPDX-License-Identifier: GPL-3.0-or-later
"""Of a maintainer script, what is the package's own and what debhelper has added to it."""

from __future__ import annotations

import re
from typing import Final

# debhelper marks what it adds, and will add it anew (dh_installdeb(1)).
_ADDED: Final = re.compile(r"# Automatically added by dh_.*?# End automatically added section\n", re.DOTALL)
_TOKEN: Final = "#DEBHELPER#\n"  # noqa: S105 - no password, but where debhelper puts its part
# The lines around it that do nothing: what dh_installdeb(1) writes where there is no script, and comments.
_NOTHING: Final = re.compile(r"#!/bin/(?:ba)?sh(?: -e)?|set -eu?|#(?!!).*|")


def is_own(script: str) -> bool:
    """Whether a script does anything but what debhelper marked as added; that is not looked at."""
    return not all(_NOTHING.fullmatch(line.strip()) for line in _ADDED.sub("", script).splitlines())


def own_part(script: str) -> str:
    """A script as its source has it, with debhelper's token for what debhelper adds; "" if that is all of it."""
    if not is_own(script):
        return ""
    own = _ADDED.sub("", script)
    if own != script:
        return _ADDED.sub("", _ADDED.sub(_TOKEN, script, count=1))
    # What stands behind a last exit is never reached.
    body, exit_, _ = script.rpartition("\nexit 0\n")
    return f"{(body or script).rstrip()}\n\n{_TOKEN}{exit_}"
