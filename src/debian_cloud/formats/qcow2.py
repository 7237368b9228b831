# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own format, compressed with zstd (QEMU 5.1 or newer reads it)."""

from __future__ import annotations

from typing import Final

from debian_cloud.plan import Plan, Run

PUBLISHED: Final = True
SOURCE: Final = "disk"


def steps(source: str, out: str, epoch: int) -> Plan:  # noqa: ARG001 - the signature is every format's
    """One step; without -W, so that clusters are written in order and the file is the same each time."""
    return (
        Run(
            "convert to qcow2",
            ("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", source, out),
        ),
    )
