# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own format, compressed with zstd (QEMU 5.1 or newer reads it)."""

from __future__ import annotations

from debian_cloud.plan import Plan, Run

PUBLISHED = True


def steps(raw: str, out: str) -> Plan:
    """One step; without -W, so that clusters are written in order and the file is the same each time."""
    return (
        Run(
            "convert to qcow2",
            ("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", raw, out),
        ),
    )
