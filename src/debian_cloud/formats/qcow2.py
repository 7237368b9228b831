# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own format, compressed with zstd (QEMU 5.1 or newer reads it)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.formats import SHA256, Converted
from debian_cloud.plan import Plan, in_tree

if TYPE_CHECKING:
    from debian_cloud.view import View

PUBLISHED: Final = True
SOURCE: Final = "disk"
DIGEST: Final = SHA256
TOOLS: Final = ("qemu-utils",)
UNIT: Final = 1

# QEMU, docs/interop/qcow2.txt, Header.
_MAGIC: Final = b"QFI\xfb"

_HINT: Final = "get it again: debian-cloud build makes an image as one complete file"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_COMPRESSION: Final = 0x8
"""Incompatible feature: a compression type other than zlib."""
_ZLIB, _ZSTD = 0, 1
_OFFSET: Final = 0x00FFFFFFFFFFFE00


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a qcow2 image; `size` is the disk's, in bytes, and `cluster` is in bytes."""

    size: int
    cluster: int
    entries: int
    table: int
    counts: int
    count_clusters: int


def steps(source: str, out: str, epoch: int) -> Plan:
    """One step; without -W, so that clusters are written in order and the file is the same each time."""
    return (
        in_tree(
            *("convert to qcow2", epoch, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"),
            *("-o", "compression_type=zstd", f"/mnt/{source}", f"/mnt/{out}"),
        ),
    )


def check(name: str, view: View, virtual_size: int) -> None:
    """Check the header and the places of the tables; the content of clusters is not read."""
    if not holds(view):
        raise Error(f"{name} is not a qcow2", "upload the file that `debian-cloud build` made")
    header = read(name, view)
    if header.size != virtual_size:
        raise Error(
            f"{name} is a disk of {header.size} bytes, but its record says {virtual_size}",
            "upload the file that `debian-cloud build` made",
        )
    for place, length in (
        (header.table, 8 * header.entries),
        (header.counts, header.count_clusters * header.cluster),
    ):
        # The file may end within its last cluster, after the part that is used.
        if not length or place + length > -(-view.size // header.cluster) * header.cluster:
            raise Error(f"{name} is truncated: its tables are not in it", "upload the complete file")


def read(name: str, view: View) -> Header:
    """The header; Error if the image refers to other files, or has other content than its disk shows."""
    raw = view.read(0, min(view.size, 512))
    if len(raw) < 112:
        raise Error(f"{name} is truncated", "get it again")
    (
        _, version, backing, named, bits, size, encryption, entries, table, counts, count_clusters, snapshots, saved,
        incompatible, compatible, automatic, order, length,
    ) = _HEADER.unpack_from(raw)  # fmt: skip
    if version != 3:
        raise Error(f"{name} is a qcow2 of version {version}, but only version 3 is read", "convert it with qemu-img")
    cluster = 1 << min(max(bits, 9), 62)
    compression = raw[104] if incompatible & _COMPRESSION else _ZLIB
    for wrong, what in (
        (backing or named, "has a backing file"),
        (encryption, "is encrypted"),
        (snapshots or saved, "has snapshots, which a disk does not show"),
        (incompatible & ~_COMPRESSION, "is damaged, or has its data in another file"),
        (compatible or automatic, "has unsupported features"),
        (not 16 <= bits <= 21, "has clusters of an unsupported size"),
        (compression not in (_ZLIB, _ZSTD), "has an unsupported compression"),
        (order != 4 or length not in (104, 112), "has another header than QEMU writes"),
        (entries != -(-size // (cluster * (cluster // 8))), "has a table that does not fit its disk"),
        (table % cluster or counts % cluster or not table or not counts, "has tables at a wrong place"),
    ):
        if wrong:
            raise Error(f"{name} {what}", _HINT)
    return Header(size, cluster, entries, table, counts, count_clusters)


def holds(view: View) -> bool:
    """By the first bytes."""
    return view.size >= len(_MAGIC) and view.read(0, len(_MAGIC)) == _MAGIC


def inner(name: str, view: View) -> Converted:
    """The disk, by QEMU: the header says that it needs no other file."""
    header = read(name, view)
    return Converted(
        ("qemu-img", "convert", "-f", "qcow2", "-O", "raw"), header.size, lambda: allocated(view, header)
    )


def allocated(view: View, header: Header) -> int:
    """Maximum bytes of the disk that the image has: the rest are holes."""
    tables = (word & _OFFSET for word in _words(view, header.table, header.entries))
    each = header.cluster // 8
    return sum(each - _words(view, table, each).count(0) for table in tables if table) * header.cluster


def _words(view: View, place: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f">{count}Q", view.read(place, 8 * count))
