# SPDX-License-Identifier: GPL-3.0-or-later
"""The outside of a qcow2 image: what it leads to, and how much it has (QEMU, docs/interop/qcow2.txt)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import Error

if TYPE_CHECKING:
    from .filesystems import View

_HINT: Final = "an image that debian-cloud build made is one whole file: get it again"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_COMPRESSION: Final = 0x8
"""The incompatible feature: a type of compression other than zlib's."""
_ZLIB, _ZSTD = 0, 1
_OFFSET: Final = 0x00FFFFFFFFFFFE00


@dataclass(frozen=True, slots=True)
class Header:
    """What such an image says of itself; `size` is the disk's, in bytes, as is `cluster`."""

    size: int
    cluster: int
    entries: int
    table: int
    counts: int
    count_clusters: int


def read(name: str, view: View) -> Header:
    """The header; Error for an image that leads to other files, or keeps another content than its disk shows."""
    raw = view.read(0, min(view.size, 512))
    if len(raw) < 112:
        raise Error(f"{name} is cut off", "get it again")
    (
        _, version, backing, named, bits, size, encryption, entries, table, counts, count_clusters, snapshots, saved,
        incompatible, compatible, automatic, order, length,
    ) = _HEADER.unpack_from(raw)  # fmt: skip
    if version != 3:
        raise Error(f"{name} is a qcow2 of version {version}, and version 3 is read", "convert it with qemu-img")
    cluster = 1 << min(max(bits, 9), 62)
    compression = raw[104] if incompatible & _COMPRESSION else _ZLIB
    for wrong, what in (
        (backing or named, "has a backing file"),
        (encryption, "is encrypted"),
        (snapshots or saved, "has snapshots, which a disk does not show"),
        (incompatible & ~_COMPRESSION, "is damaged, or has its data in another file"),
        (compatible or automatic, "has features that are not read here"),
        (not 16 <= bits <= 21, "has clusters of a size that is not read here"),
        (compression not in (_ZLIB, _ZSTD), "is compressed in a way that is not read here"),
        (order != 4 or length not in (104, 112), "has a header that is not as QEMU makes it"),
        (entries != -(-size // (cluster * (cluster // 8))), "has a table that does not fit its disk"),
        (table % cluster or counts % cluster or not table or not counts, "has tables at a wrong place"),
    ):
        if wrong:
            raise Error(f"{name} {what}", _HINT)
    return Header(size, cluster, entries, table, counts, count_clusters)


def allocated(view: View, header: Header) -> int:
    """Bytes of the disk that the image has, at most: the rest are holes."""
    tables = (word & _OFFSET for word in _words(view, header.table, header.entries))
    each = header.cluster // 8
    return sum(each - _words(view, table, each).count(0) for table in tables if table) * header.cluster


def _words(view: View, place: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f">{count}Q", view.read(place, 8 * count))
