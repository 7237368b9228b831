# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps that the scripts of `archive/` call to read and decide: one module each, the directory is the registry.

A step that only one verb of debian-cloud-archive calls is named after that verb. It parses its arguments, calls one
function of `archive/` or `proof/`, and prints; `step` in archive/lib/common.sh calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host.command import Verbs

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS: Final = Verbs(__name__, "python3 -m debian_cloud.archive.steps")


def run(argv: Sequence[str]) -> int:
    """Run one step and return its exit status."""
    if not argv:
        raise Error("no step given", f"give one of: {', '.join(STEPS.names())}", USAGE)
    return STEPS.run(argv)
