# SPDX-License-Identifier: GPL-3.0-or-later
"""FAT32, as mformat(1) and mcopy(1) leave it (Microsoft, FAT32 File System Specification 1.03)."""

from __future__ import annotations

import hashlib
import struct
from array import array
from calendar import timegm
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.entries import DIRECTORY, FILE, Entry
from debian_cloud.errors import Error
from debian_cloud.filesystems import ENTRIES, Finding, View

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT: Final = "the image was damaged or tampered with: get it again, or build it again"
_BOOT: Final = struct.Struct("<3s8sHBHBHHBHHHIIIHHIHH12sBBBI11s8s")
_BACKUP: Final = 6
"""The sector of the boot sector's copy, and of mformat's other choices."""
# mtools, mformat.c: a program that goes on to the first hard disk.
_BOOT_CODE: Final = bytes.fromhex(
    "fa31c08ed88ec0fcb90001be007cbf0080f3a5ea72000008b80102bb007cba8000b90100cd137205ea007c0000cd19"
)
_LARGEST_FAT: Final = 2**26
_DIRECTORY: Final = 2**21
"""Bytes of a directory: 65536 entries (6.7)."""
_DOT: Final = struct.Struct("<8s3sBBBHHHHHHHI")
_READ_ONLY, _HIDDEN, _SYSTEM, _VOLUME, _FOLDER, _ARCHIVE = 1, 2, 4, 8, 16, 32
_LONG: Final = _READ_ONLY | _HIDDEN | _SYSTEM | _VOLUME
_LAST: Final = 0x0FFFFFF8


@dataclass(frozen=True, slots=True)
class Volume:
    """What mformat was told, and by which program (`maker`); sizes in bytes."""

    maker: str
    serial: str
    label: str
    size: int
    sector: int
    cluster: int
    reserved: int
    fats: int
    fat_size: int
    root: int
    hidden: int

    @property
    def data(self) -> int:
        """Where the first cluster is."""
        return self.reserved + self.fats * self.fat_size

    @property
    def clusters(self) -> int:
        """How many there are; the first one's number is 2."""
        return (self.size - self.data) // self.cluster


class Fat:
    """A FAT32 file system; Error when it is damaged, or has what is not read here.

    Entries have no owner and a mode of 0; `mtime` is the time of day that stands
    there, taken as UTC; `inode` is the first cluster.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self.volume = _volume(view)
        table = view.read(self.volume.reserved, self.volume.fat_size)
        self._table = array("I", table)
        self._used = bytearray(self.volume.clusters + 2)
        self._noted: list[Finding] = []
        self._entries: dict[str, tuple[Entry, tuple[int, ...]]] = {}
        self._walk()

    def entries(self) -> Iterator[Entry]:
        """All paths, sorted; long names as they are, short ones as Linux shows them."""
        for path in sorted(self._entries):
            entry, _ = self._entries[path]
            if entry.kind == FILE:
                digest = hashlib.sha256()
                for piece in self.pieces(path):
                    digest.update(piece)
                entry = Entry(path, FILE, 0, 0, 0, entry.mtime, entry.size, digest.hexdigest(), inode=entry.inode)
            yield entry

    def content(self, path: str) -> bytes:
        """What a file holds; Error when there is none of that path."""
        return b"".join(self.pieces(path))

    def pieces(self, path: str) -> Iterator[bytes]:
        """The same, a piece at a time."""
        entry, chain = self._entries.get(path, (None, ()))
        if entry is None or entry.kind != FILE:
            raise Error(f"the EFI system partition has no file {path}", "give its path without a leading slash")
        left = entry.size
        for start, length in self._runs(chain):
            yield from self._view.pieces(start, min(length, left))
            left -= min(length, left)

    def unaccounted(self) -> Iterator[Finding]:
        """Bytes that no file and no structure explains."""
        volume, view = self.volume, self._view
        yield from self._reserved()
        yield from self._noted
        for path, (entry, chain) in sorted(self._entries.items()):
            if entry.kind == FILE:
                position = 0
                for start, length in self._runs(chain):
                    used = min(length, max(0, entry.size - position))
                    yield from view.findings(f"slack of {path}", start + used, length - used)
                    position += length
        yield from self._allocations()
        for start, length in self._free():
            yield from view.findings("free clusters", start, length)
        end = volume.data + volume.clusters * volume.cluster
        yield from view.findings("after the last cluster", end, view.size - end)

    # Reserved sectors and the table itself.

    def _reserved(self) -> Iterator[Finding]:
        volume, view = self.volume, self._view
        boot = view.read(0, volume.sector)
        # The fields are read, and are what mformat makes of its arguments; the code is its own.
        yield from view.differences(
            "the boot sector", _BOOT.size, _BOOT_CODE.ljust(volume.sector - _BOOT.size - 2, b"\0") + b"\x55\xaa"
        )
        (
            jump, *_, per_track, heads, hidden, _, _, flags, version, root,
            _, _, reserved, drive, other, mark, _, _, kind,
        ) = _BOOT.unpack_from(boot)  # fmt: skip
        # The drive is the first hard disk, or none (mtools 4.0.32).
        if (jump, per_track, heads, flags, version, root, reserved, drive & 0x7F, other, mark, kind) != (
            b"\xeb\x58\x90", 63, 255, 0, 0, 2, bytes(12), 0, 0, 0x29, b"FAT32   ",
        ) or hidden != view.start // volume.sector:  # fmt: skip
            yield Finding("the boot sector", view.start, _BOOT.size)
        free, following = struct.unpack_from("<II", view.read(volume.sector + 488, 8))
        if free != sum(1 for value in self._table[2 : volume.clusters + 2] if not value):
            yield Finding("the number of free clusters", view.start + volume.sector + 488, 4)
        # mtools leaves the last cluster that it gave out here, and gives them out from the first on.
        if following != self._used.rfind(1):
            yield Finding("the cluster that was last given out", view.start + volume.sector + 492, 4)
        info = b"RRaA" + bytes(480) + b"rrAa" + struct.pack("<II", free, following) + bytes(14) + b"\x55\xaa"
        yield from view.differences("the sector FSInfo", volume.sector, info)
        for sector in range(2, volume.reserved // volume.sector):
            where, place = f"the reserved sector {sector}", sector * volume.sector
            if sector == _BACKUP:
                yield from view.differences("the copy of the boot sector", place, boot)
            else:
                yield from view.findings(where, place, volume.sector)

    def _allocations(self) -> Iterator[Finding]:
        """What of the table is not as the files need it."""
        volume, view = self.volume, self._view
        expected = array("I", bytes(volume.fat_size))
        # The medium's descriptor, and the end of a chain (4.1). The highest four bits are nobody's: mtools 4.0.32
        # sets them in the first, 4.0.48 in the second.
        for number, value in enumerate((0x0FFFFFF8, 0x0FFFFFFF)):
            upper = self._table[number] & 0xF0000000
            expected[number] = value | (upper if upper == 0xF0000000 else 0)
        for _, chain in self._entries.values():
            for cluster, following in zip(chain, (*chain[1:], 0x0FFFFFFF), strict=False):
                expected[cluster] = following
        for number in range(volume.fats):
            place = volume.reserved + number * volume.fat_size
            yield from view.differences(f"copy {number + 1} of the file allocation table", place, expected.tobytes())

    def _free(self) -> Iterator[tuple[int, int]]:
        """Runs of clusters that nothing has."""
        volume, position = self.volume, 2
        while (start := self._used.find(0, position)) >= 0:
            end = self._used.find(1, start)
            position = end if end >= 0 else len(self._used)
            yield volume.data + (start - 2) * volume.cluster, (position - start) * volume.cluster

    # Chains and directories.

    def _chain(self, first: int, most: int, where: str) -> tuple[int, ...]:
        """The clusters of a file; Error when it has more than `most`, or shares one."""
        chain: list[int] = []
        cluster = first
        while cluster < _LAST:
            if not 2 <= cluster < self.volume.clusters + 2 or self._used[cluster] or len(chain) >= most:
                raise Error(f"the clusters of {where} on the EFI system partition are damaged", _HINT)
            self._used[cluster] = 1
            chain.append(cluster)
            cluster = self._table[cluster]
        return tuple(chain)

    def _runs(self, chain: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """Where clusters are, those that follow each other together, as (offset, length)."""
        volume, at = self.volume, 0
        while at < len(chain):
            end = at + 1
            while end < len(chain) and chain[end] == chain[end - 1] + 1:
                end += 1
            yield volume.data + (chain[at] - 2) * volume.cluster, (end - at) * volume.cluster
            at = end

    def _walk(self) -> None:
        most = _DIRECTORY // self.volume.cluster
        chain = self._chain(self.volume.root, most, "/")
        self._entries[""] = (Entry("", DIRECTORY, 0, 0, 0, inode=self.volume.root), chain)
        queue, seen = [("", chain, 0)], set[str]()
        while queue:
            path, chain, parent = queue.pop()
            for name, raw, size, first, mtime in self._directory(path, chain, parent):
                below = f"{path}/{name}" if path else name
                # FAT tells no upper case from lower case.
                if (
                    below.upper() in {other.upper() for other in self._entries}
                    or len(self._entries) >= ENTRIES // 256
                ):
                    raise Error(f"the EFI system partition has {below} twice, or too many files", _HINT)
                seen.add(below.upper())
                if raw & _FOLDER:
                    clusters = self._chain(first, most, below)
                    queue.append((below, clusters, 0 if not path else chain[0]))
                    entry = Entry(below, DIRECTORY, 0, 0, 0, mtime, inode=first)
                else:
                    clusters = self._chain(first, self.volume.clusters, below) if first or size else ()
                    if len(clusters) != -(-size // self.volume.cluster):
                        raise Error(
                            f"{below} on the EFI system partition has more or fewer clusters than bytes", _HINT
                        )
                    entry = Entry(below, FILE, 0, 0, 0, mtime, size, inode=first)
                self._entries[below] = (entry, clusters)

    def _directory(self, path: str, chain: tuple[int, ...], parent: int) -> Iterator[tuple[str, int, int, int, int]]:
        """Name, attributes, size, first cluster and time of what a directory has."""
        where = f"the directory /{path} of the EFI system partition"
        slots = [
            (start + at, self._view.read(start + at, 32))
            for start, length in self._runs(chain)
            for at in range(0, length, 32)
        ]
        long: list[tuple[int, bytes]] = []
        dots = [(b".          ", chain[0]), (b"..         ", parent)] if path else []
        for number, (offset, slot) in enumerate(slots):
            if slot[0] == 0:
                for place, rest in slots[number:]:
                    self._note(f"after the end of {where}", place, rest)
                break
            if slot[0] == 0xE5:
                self._noted.append(Finding(f"a deleted name in {where}", self._view.start + offset, 32))
                continue
            if slot[11] & 0x3F == _LONG:
                long.append((offset, slot))
                continue
            _, _, attributes, case, tenth, created, created_on, read_on, high, time, date, low, size = _DOT.unpack(
                slot
            )
            first = high << 16 | low
            if tenth or (created, created_on, read_on) != (time, date, date):
                self._noted.append(Finding(f"times of a name in {where}", self._view.start + offset + 13, 7))
            if attributes & _VOLUME:
                if path or first or size or slot[:11] != self.volume.label.encode().ljust(11) or case:
                    self._noted.append(Finding(f"a label in {where}", self._view.start + offset, 32))
                continue
            if number < len(dots):
                if (slot[:11], first, attributes, size, case) != (*dots[number], _FOLDER, 0, 0):
                    raise Error(f"{where} is damaged", _HINT)
                continue
            if attributes not in (_FOLDER, _ARCHIVE) or case & ~0x18 or (attributes == _FOLDER and size):
                self._noted.append(Finding(f"attributes of a name in {where}", self._view.start + offset + 11, 2))
            yield self._name(slot, case, long, where), attributes, size, first, _time(date, time, where)
            long = []
        if long:
            self._noted.append(Finding(f"a part of a name in {where}", self._view.start + long[0][0], 32 * len(long)))

    def _name(self, slot: bytes, case: int, long: list[tuple[int, bytes]], where: str) -> str:
        """A long name, whose parts come before the short one, or the short one."""
        damaged = Error(f"{where} has a name that is damaged", _HINT)
        if not slot[:11].isascii() or min(slot[:11]) < 0x20:
            raise damaged
        base, extension = slot[:8].decode().rstrip(), slot[8:11].decode().rstrip()
        base, extension = base.lower() if case & 8 else base, extension.lower() if case & 0x10 else extension
        short = f"{base}.{extension}" if extension else base
        if not long:
            if "/" in short or not base:
                raise damaged
            return short
        checksum = 0
        for byte in slot[:11]:
            checksum = (checksum >> 1 | (checksum & 1) << 7) + byte & 0xFF
        units = b""
        for number, (_, part) in enumerate(reversed(long), 1):
            order = number | (0x40 if number == len(long) else 0)
            if (part[0], part[11], part[12], part[13], part[26:28]) != (order, _LONG, 0, checksum, b"\0\0"):
                raise damaged
            units += part[1:11] + part[14:26] + part[28:32]
        words = struct.unpack(f"<{len(units) // 2}H", units)
        end = (*words, 0).index(0)
        if any(word != 0xFFFF for word in words[end + 1 :]) or len(words) - end > 13:
            raise damaged
        try:
            name = units[: 2 * end].decode("utf-16-le")
        except UnicodeDecodeError:
            raise damaged from None
        if not name or "/" in name or name in (".", ".."):
            raise damaged
        return name

    def _note(self, where: str, offset: int, data: bytes) -> None:
        rest = data.lstrip(b"\0")
        if rest:
            start = self._view.start + offset + len(data) - len(rest)
            self._noted.append(Finding(where, start, len(rest.rstrip(b"\0"))))


def _time(date: int, time: int, where: str) -> int:
    """Seconds since 1970 of a date and a time of day."""
    fields = (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, 2 * (time & 31))
    if not (1 <= fields[1] <= 12 and 1 <= fields[2] <= 31 and fields[3] < 24 and fields[4] < 60 and fields[5] < 60):
        raise Error(f"{where} has a time that is none", _HINT)
    return timegm(fields)


def _volume(view: View) -> Volume:
    """The boot sector, with every number bounded; Error when it is none that is read here."""
    boot = view.read(0, 512)
    (
        _, maker, sector, per_cluster, reserved, fats, root_entries, sectors16, media, fat16, _, _, hidden, sectors,
        fat, _, _, root, info, backup, *_, serial, label, _,
    ) = _BOOT.unpack_from(boot)  # fmt: skip
    if boot[510:512] != b"\x55\xaa" or root_entries or sectors16 or fat16 or media != 0xF8:
        raise Error("the EFI system partition has no FAT32 file system", "make it as debian-cloud build does")
    damaged = Error("the boot sector of the EFI system partition is damaged", _HINT)
    if (
        sector != 512
        or per_cluster not in (1, 2, 4, 8, 16, 32, 64)
        or fats != 2
        or (info, backup) != (1, _BACKUP)
        or not 8 <= reserved <= 64
        or not 0 < fat * sector <= _LARGEST_FAT
        or sectors * sector > view.size
    ):
        raise damaged
    volume = Volume(
        maker=maker.decode("ascii", "replace").rstrip(),
        serial=f"{serial:08x}",
        label=label.decode("ascii", "replace").rstrip(),
        size=sectors * sector,
        sector=sector,
        cluster=per_cluster * sector,
        reserved=reserved * sector,
        fats=fats,
        fat_size=fat * sector,
        root=root,
        hidden=hidden,
    )
    if not 0 < volume.clusters <= fat * sector // 4 - 2:
        raise damaged
    return volume
