# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own format, compressed with zstd (QEMU 5.1 or newer reads it)."""

from __future__ import annotations

from typing import Final

from debian_cloud.plan import Plan, in_tree

PUBLISHED: Final = True
SOURCE: Final = "disk"
TOOLS: Final = ("qemu-utils",)


def steps(source: str, out: str, epoch: int) -> Plan:
    """One step; without -W, so that clusters are written in order and the file is the same each time."""
    return (
        in_tree(
            *("convert to qcow2", epoch, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"),
            *("-o", "compression_type=zstd", f"/mnt/{source}", f"/mnt/{out}"),
        ),
    )
