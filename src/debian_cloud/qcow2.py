# SPDX-License-Identifier: GPL-3.0-or-later
"""The outside of a qcow2 image: what it leads to, and what of it nothing explains (QEMU, docs/interop/qcow2.txt)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import Error
from .filesystems import Finding, View

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT: Final = "an image that debian-cloud build made is one whole file: get it again"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_SECTOR: Final = 512
_COMPRESSION: Final = 0x8
"""The incompatible feature: a type of compression other than zlib's."""
_ZLIB, _ZSTD = 0, 1
_FEATURE_NAMES: Final = 0x6803F857
_OFFSET: Final = 0x00FFFFFFFFFFFE00
_COMPRESSED: Final = 1 << 62
_COPIED: Final = 1 << 63
# What QEMU calls each bit of a header, for programs that do not know it: kind, bit, name.
_FEATURES: Final = {
    struct.pack("BB46s", kind, bit, name)
    for kind, bit, name in (
        (0, 0, b"dirty bit"),
        (0, 1, b"corrupt bit"),
        (0, 2, b"external data file"),
        (0, 3, b"compression type"),
        (0, 4, b"extended L2 entries"),
        (1, 0, b"lazy refcounts"),
        (2, 0, b"bitmaps"),
        (2, 1, b"raw external data"),
    )
}


@dataclass(frozen=True, slots=True)
class Header:
    """What such an image says of itself; `size` is the disk's, in bytes, as is `cluster`."""

    size: int
    cluster: int
    compression: int
    entries: int
    table: int
    counts: int
    count_clusters: int
    length: int


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
    return Header(size, cluster, compression, entries, table, counts, count_clusters, length)


def allocated(view: View, header: Header) -> int:
    """Bytes of the disk that the image has, at most: the rest are holes."""
    return sum(len(list(_mapped(view, header, table))) for table in _tables(view, header)) * header.cluster


def unaccounted(view: View, header: Header) -> Iterator[Finding]:
    """Bytes of the file that are neither its tables nor its disk's; Error where two things share a cluster."""
    cluster = header.cluster
    yield from _extensions(view, header)
    owned = [(0, cluster), (header.table, -(-header.entries * 8 // cluster) * cluster)]
    owned.append((header.counts, header.count_clusters * cluster))
    end = header.table + header.entries * 8
    yield from view.findings("after the first table of the qcow2", end, -end % cluster)
    packed = []
    for table in _tables(view, header):
        owned.append((table, cluster))
        for place, length in _mapped(view, header, table):
            if length:
                packed.append((place, length))
            else:
                owned.append((place, cluster))
    # The last cluster of all may be cut off at the end of the file.
    last = (view.size + cluster - 1) // cluster
    uses = [0] * last
    blocks = _words(view, header.counts, header.count_clusters * cluster // 8)
    owned += [(block, cluster) for block in blocks if block]
    for place, length in owned:
        _within(last * cluster, place, length)
        for number in range(place // cluster, (place + length - 1) // cluster + 1):
            uses[number] += 1
    if any(use > 1 for use in uses):
        raise Error("two things in the qcow2 share a cluster", _HINT)
    ranges = list(owned)
    for place, length in packed:
        _within(view.size, place, 1)
        raw = view.read(place, min(length, view.size - place))
        used = _zstd(raw) if header.compression == _ZSTD else _deflated(raw, cluster)
        ranges.append((place, used))
        if length != (place + used + _SECTOR - 1) // _SECTOR * _SECTOR - place:
            raise Error("a table of the qcow2 counts more or fewer sectors than a cluster has", _HINT)
        # What counts is the sectors that are said to be read.
        for number in range(place // cluster, (place + length - 1) // cluster + 1):
            if number < last:
                uses[number] += 1
    yield from _counted(view, header, blocks, uses)
    position = 0
    for place, length in sorted(ranges):
        if place < position:
            raise Error("two things in the qcow2 share some bytes", _HINT)
        yield from view.findings("between the clusters of the qcow2", position, place - position)
        position = min(place + length, view.size)
    yield from view.findings("after the last cluster of the qcow2", position, view.size - position)


def _extensions(view: View, header: Header) -> Iterator[Finding]:
    """What the first cluster has besides the header: QEMU's own list of its features, at most."""
    position, raw = header.length, view.read(0, header.cluster)
    yield from view.findings("the header of the qcow2", 105, header.length - 105 if header.length > 105 else 0)
    while True:
        kind, length = struct.unpack_from(">II", raw, position)
        if kind != _FEATURE_NAMES or not 0 < length <= 1024:
            break
        data = raw[position + 8 : position + 8 + length]
        for at in range(0, length, 48):
            if data[at : at + 48] not in _FEATURES:
                yield Finding("a feature's name in the qcow2", position + 8 + at, min(48, length - at))
        yield from view.findings("the header of the qcow2", position + 8 + length, -length % 8)
        position += 8 + length + -length % 8
    yield from view.findings("after the header of the qcow2", position, header.cluster - position)


def _tables(view: View, header: Header) -> Iterator[int]:
    """Where the second tables are; Error for a pointer with more in it."""
    for word in _words(view, header.table, header.entries):
        if word:
            # Each table and cluster has one user, and says so.
            if word & ~_OFFSET != _COPIED or word & _OFFSET & header.cluster - 1:
                raise Error("the first table of the qcow2 is damaged", _HINT)
            yield word & _OFFSET


def _mapped(view: View, header: Header, table: int) -> Iterator[tuple[int, int]]:
    """Where a table's clusters are, with the bytes to read of a compressed one, and 0 of another."""
    bits = 62 - (header.cluster.bit_length() - 1 - 8)
    for word in _words(view, table, header.cluster // 8):
        if not word:
            continue
        if word & _COMPRESSED and not word & _COPIED:
            place = word & (1 << bits) - 1
            sectors = ((word & _COMPRESSED - 1) >> bits) + 1
            yield place, sectors * _SECTOR - place % _SECTOR
        elif word & ~_OFFSET != _COPIED or word & _OFFSET & header.cluster - 1:
            raise Error("a table of the qcow2 is damaged", _HINT)
        else:
            yield word & _OFFSET, 0


def _counted(view: View, header: Header, blocks: list[int], uses: list[int]) -> Iterator[Finding]:
    """The counts of each cluster's users, which follow from the tables."""
    each = header.cluster // 2
    for number, block in enumerate(blocks):
        here = uses[number * each : (number + 1) * each]
        if block:
            expected = struct.pack(f">{len(here)}H", *here).ljust(header.cluster, b"\0")
            yield from view.differences("the counts of clusters of the qcow2", block, expected)
        elif any(here):
            yield Finding("the counts of clusters of the qcow2", header.counts + 8 * number, 8)


def _words(view: View, place: int, count: int) -> list[int]:
    _within(view.size, place, 8 * count)
    return list(struct.unpack(f">{count}Q", view.read(place, 8 * count)))


def _within(end: int, place: int, length: int) -> None:
    if not 0 <= place <= place + length <= end:
        raise Error("the qcow2 leads to what is not in it", _HINT)


def _zstd(raw: bytes) -> int:
    """How long a frame is (RFC 8878, 3.1.1); Error when it is none."""
    damaged = Error("a cluster of the qcow2 is damaged", _HINT)
    if raw[:4] != b"\x28\xb5\x2f\xfd" or len(raw) < 5:
        raise damaged
    descriptor = raw[4]
    single, known = descriptor >> 5 & 1, descriptor >> 6
    position = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + ((single, 2, 4, 8)[known])
    while True:
        header = raw[position : position + 3]
        if len(header) < 3:
            raise damaged
        word = int.from_bytes(header, "little")
        kind, size = word >> 1 & 3, word >> 3
        if kind == 3:
            raise damaged
        position += 3 + (1 if kind == 1 else size)
        if word & 1:
            break
    position += 4 * (descriptor >> 2 & 1)
    if position > len(raw):
        raise damaged
    return position


def _deflated(raw: bytes, cluster: int) -> int:
    """How long a deflated cluster is (RFC 1951); Error when it is none."""
    decompressor = zlib.decompressobj(-12)
    try:
        decompressor.decompress(raw, cluster + 1)
    except zlib.error:
        raise Error("a cluster of the qcow2 is damaged", _HINT) from None
    return len(raw) - len(decompressor.unused_data) - len(decompressor.unconsumed_tail)
