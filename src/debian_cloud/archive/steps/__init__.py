# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scripts of `archive/` have read or decided: one step a file, the folder is the registry.

A step that one verb of debian-cloud-archive alone calls is named after that verb. It parses words, calls one
function of `archive/` or `proof/`, and prints; `step` of archive/lib/common.sh calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host.command import Verbs

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS: Final = Verbs(__name__, "python3 -m debian_cloud.archive.steps")


def run(argv: Sequence[str]) -> int:
    """Carry out one step; the exit status."""
    if not argv:
        raise Error("no step given", f"one of: {', '.join(STEPS.names())}", USAGE)
    return STEPS.run(argv)
