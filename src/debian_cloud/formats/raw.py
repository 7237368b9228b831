# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk itself, a sparse file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from debian_cloud.plan import Plan

# Its holes do not survive most transports: a mirror would carry gigabytes of nothing.
PUBLISHED: Final = False
SOURCE: Final = "disk"
TOOLS: Final = ("e2fsprogs", "fdisk", "mtools")


def steps(source: str, out: str, epoch: int) -> Plan:  # noqa: ARG001 - the signature is every format's
    """No steps: a build makes the raw disk first, and keeps it when it is asked for."""
    return ()
