# SPDX-License-Identifier: GPL-3.0-or-later
"""FAT32, as mformat(1) and mcopy(1) write it (Microsoft, FAT32 File System Specification 1.03).

Every cluster has one owner, so that the size of the file system bounds all that is read.
"""

from __future__ import annotations

import hashlib
import struct
from calendar import timegm
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.image.entries import DIRECTORY, FILE, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debian_cloud.view import View

_HINT: Final = "the image was damaged or tampered with: get it again, or build it again"
_BOOT: Final = struct.Struct("<3s8sHBHBHHBHHHIIIHHIHH12sBBBI11s8s")
_LARGEST_FAT: Final = 2**22
_DIRECTORY: Final = 2**21
"""Maximum bytes of a directory: 65536 entries (6.7)."""
_DIRECTORIES: Final = 2**24
"""Maximum bytes of all directories: no image comes near."""
_FILES: Final = 2**12
"""Maximum number of paths on such a partition: no image comes near."""
_PATH: Final = 1024
"""Maximum characters of a path."""
_VOLUME, _FOLDER = 8, 16
"""Attributes: a label, and a directory."""
_LONG: Final = 15
"""The attributes of a part of a long name."""
_PARTS: Final = 20
_CLUSTER: Final = 0x0FFFFFFF
"""The bits of a table entry that are used."""
_LAST: Final = 0x0FFFFFF8


class Fat:
    """A FAT32 file system; Error if it is damaged, or has features that are not supported.

    Entries have no owner and a mode of 0; `mtime` is the stored date and time, taken as UTC; `inode` is the first
    cluster.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        boot = view.read(0, 512)
        (
            _, _, sector, per_cluster, reserved, fats, root_entries, sectors16, _, fat16, _, _, _, sectors,
            fat, _, _, root, *_,
        ) = _BOOT.unpack_from(boot)  # fmt: skip
        if boot[510:512] != b"\x55\xaa" or root_entries or sectors16 or fat16:
            raise Error("the EFI system partition has no FAT32 file system", "use an image of debian-cloud build")
        self._cluster = per_cluster * sector
        self._table_at, self._table_size = reserved * sector, fat * sector
        self._data = self._table_at + fats * self._table_size
        if (
            sector != 512
            or per_cluster not in (1, 2, 4, 8, 16, 32, 64)
            or not 0 < self._table_size <= _LARGEST_FAT
            or not self._data + self._cluster <= sectors * sector <= view.size
        ):
            raise Error("the boot sector of the EFI system partition is damaged", _HINT)
        clusters = (sectors * sector - self._data) // self._cluster
        self._table = struct.unpack(f"<{self._table_size // 4}I", view.read(self._table_at, self._table_size))
        self._end = min(clusters + 2, len(self._table))
        self._owners: dict[int, tuple[str, int]] = {}
        self._entries: dict[str, tuple[Entry, tuple[int, ...]]] = {}
        self._listed = 0
        self._walk(root)

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
        """The content of a file; Error if no file has that path."""
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

    def place(self, offset: int) -> tuple[str, str]:
        """A description of what a byte is part of, and the path to which it belongs; "" if it belongs to none."""
        if offset < self._data:
            return ("boot sector and reserved sectors" if offset < self._table_at else "file allocation table"), ""
        cluster = 2 + (offset - self._data) // self._cluster
        if cluster not in self._owners:
            return "free clusters", ""
        path, number = self._owners[cluster]
        entry, _ = self._entries[path]
        if entry.kind == DIRECTORY:
            return f"directory /{path}", path
        within = number * self._cluster + (offset - self._data) % self._cluster
        return f"{'content' if within < entry.size else 'slack'} of /{path}", path

    # Chains and directories.

    def _chain(self, first: int, most: int, path: str) -> tuple[int, ...]:
        """The clusters of a file; Error if it has more than `most`, or shares one with another file."""
        chain: list[int] = []
        cluster = first
        while cluster < _LAST:
            if not 2 <= cluster < self._end or cluster in self._owners or len(chain) >= most:
                raise Error(f"the clusters of /{path} on the EFI system partition are damaged", _HINT)
            self._owners[cluster] = path, len(chain)
            chain.append(cluster)
            cluster = self._table[cluster] & _CLUSTER
        return tuple(chain)

    def _runs(self, chain: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """The ranges of clusters as (offset, length), with adjacent clusters as one."""
        at = 0
        while at < len(chain):
            end = at + 1
            while end < len(chain) and chain[end] == chain[end - 1] + 1:
                end += 1
            yield self._data + (chain[at] - 2) * self._cluster, (end - at) * self._cluster
            at = end

    def _walk(self, root: int) -> None:
        most = _DIRECTORY // self._cluster
        self._entries[""] = (Entry("", DIRECTORY, 0, 0, 0, inode=root), self._chain(root, most, ""))
        queue, seen = [""], set[str]()
        while queue:
            path = queue.pop()
            for name, attributes, size, first, mtime in self._directory(path):
                below = f"{path}/{name}" if path else name
                # FAT does not distinguish upper and lower case.
                if below.upper() in seen or len(seen) >= _FILES or len(below) > _PATH:
                    raise Error(
                        f"the EFI system partition has /{below[:_PATH]} twice, too many files, or too long a path",
                        _HINT,
                    )
                seen.add(below.upper())
                if attributes & _FOLDER:
                    chain = self._chain(first, most, below)
                    if not chain:
                        raise Error(f"the directory /{below} of the EFI system partition is damaged", _HINT)
                    queue.append(below)
                    entry = Entry(below, DIRECTORY, 0, 0, 0, mtime, inode=first)
                else:
                    chain = self._chain(first, self._end, below) if first or size else ()
                    if len(chain) != -(-size // self._cluster):
                        raise Error(
                            f"/{below} on the EFI system partition has more or fewer clusters than bytes", _HINT
                        )
                    entry = Entry(below, FILE, 0, 0, 0, mtime, size, inode=first)
                self._entries[below] = (entry, chain)

    def _directory(self, path: str) -> Iterator[tuple[str, int, int, int, int]]:
        """Name, attributes, size, first cluster and time of each entry of a directory."""
        where = f"the directory /{path} of the EFI system partition"
        self._listed += len(self._entries[path][1]) * self._cluster
        if self._listed > _DIRECTORIES:
            raise Error(f"the directories up to {where} are larger than in any image", _HINT)
        data = b"".join(self._view.read(*run) for run in self._runs(self._entries[path][1]))
        long: list[bytes] = []
        for at in range(0, len(data), 32):
            slot = data[at : at + 32]
            if slot[0] == 0:
                return
            if slot[0] == 0xE5 or slot[:11] in (b".          ", b"..         "):
                continue
            if slot[11] & 0x3F == _LONG:
                long.append(slot)
                # A name has 255 characters at most, 13 in each part.
                if len(long) > _PARTS:
                    raise Error(f"{where} has a name that is damaged", _HINT)
                continue
            attributes, case, time, date = slot[11], slot[12], *struct.unpack_from("<HH", slot, 22)
            first = int.from_bytes(slot[20:22], "little") << 16 | int.from_bytes(slot[26:28], "little")
            (size,) = struct.unpack_from("<I", slot, 28)
            if not attributes & _VOLUME:
                yield self._name(slot, case, long, where), attributes, size, first, _time(date, time, where)
            long = []

    def _name(self, slot: bytes, case: int, long: list[bytes], where: str) -> str:
        """The long name, whose parts precede the short one, or else the short one."""
        damaged = Error(f"{where} has a name that is damaged", _HINT)
        if not slot[:11].isascii() or min(slot[:11]) < 0x20:
            raise damaged
        base, extension = slot[:8].decode().rstrip(), slot[8:11].decode().rstrip()
        base, extension = base.lower() if case & 8 else base, extension.lower() if case & 0x10 else extension
        name = f"{base}.{extension}" if extension else base
        if long:
            units = b"".join(part[1:11] + part[14:26] + part[28:32] for part in reversed(long))
            end = next((at for at in range(0, len(units), 2) if units[at : at + 2] == b"\0\0"), len(units))
            try:
                name = units[:end].decode("utf-16-le")
            except UnicodeDecodeError:
                raise damaged from None
        if not name or "/" in name or name in (".", ".."):
            raise damaged
        return name


def _time(date: int, time: int, where: str) -> int:
    """Seconds since 1970 of a date and a time of day."""
    fields = (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, 2 * (time & 31))
    if not (1 <= fields[1] <= 12 and 1 <= fields[2] <= 31 and fields[3] < 24 and fields[4] < 60 and fields[5] < 60):
        raise Error(f"{where} has an invalid time", _HINT)
    return timegm(fields)
