# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own format, compressed with zstd (QEMU 5.1 or newer reads it)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud import qcow2
from debian_cloud.errors import Error
from debian_cloud.plan import Plan, in_tree

if TYPE_CHECKING:
    from debian_cloud.filesystems import View

PUBLISHED: Final = True
SOURCE: Final = "disk"
TOOLS: Final = ("qemu-utils",)

# QEMU, docs/interop/qcow2.txt, Header.
_MAGIC: Final = b"QFI\xfb"


def steps(source: str, out: str, epoch: int) -> Plan:
    """One step; without -W, so that clusters are written in order and the file is the same each time."""
    return (
        in_tree(
            *("convert to qcow2", epoch, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"),
            *("-o", "compression_type=zstd", f"/mnt/{source}", f"/mnt/{out}"),
        ),
    )


def check(name: str, view: View, virtual_size: int) -> None:
    """Of the header and the places of the tables; what a cluster has is not read."""
    if view.read(0, min(view.size, len(_MAGIC))) != _MAGIC:
        raise Error(f"{name} is no qcow2", "upload what `debian-cloud build` has made")
    header = qcow2.read(name, view)
    if header.size != virtual_size:
        raise Error(
            f"{name} is a disk of {header.size} bytes, and its record says {virtual_size}",
            "upload what `debian-cloud build` has made",
        )
    for place, length in (
        (header.table, 8 * header.entries),
        (header.counts, header.count_clusters * header.cluster),
    ):
        # The last cluster of a file may be cut off behind what is used of it.
        if not length or place + length > -(-view.size // header.cluster) * header.cluster:
            raise Error(f"{name} is cut off: its tables are not in it", "upload all of it")
