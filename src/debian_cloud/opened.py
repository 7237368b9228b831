# SPDX-License-Identifier: GPL-3.0-or-later
"""A finished image, opened for reading: no root, no mount, and nothing of it is executed."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import disk, gpt, qcow2, run
from .errors import USAGE, Error
from .filesystems import PIECE, View
from .filesystems.ext4 import Ext4
from .filesystems.fat import Fat
from .filesystems.tar import Tar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .entries import Entry
    from .filesystems import Finding

RAW: Final = "raw"
QCOW2: Final = "qcow2"
TAR: Final = "tar"
TAR_XZ: Final = "tar.xz"

LARGEST: Final = 2**36
"""Bytes of a disk, or of a tree, that are read at most: 64 GiB."""

# The first bytes of each format, and where they are (QEMU, docs/interop/qcow2.txt; the .xz file format, 2.1.1.1;
# POSIX, pax; UEFI 5.3.2).
_MAGIC: Final = ((QCOW2, 0, b"QFI\xfb"), (TAR_XZ, 0, b"\xfd7zXZ\0"), (TAR, 257, b"ustar"), (RAW, 512, b"EFI PART"))


class DiskImage:
    """A disk: its partitions, what is in them, and what is beside them."""

    def __init__(self, name: str, kind: str, view: View, beside: tuple[Finding, ...] = ()) -> None:
        self.name = name
        self.format = kind
        self._beside = beside
        self.view = view
        self.table = gpt.read(view)

    @property
    def partitions(self) -> tuple[disk.Partition, ...]:
        """By their place on the disk."""
        return self.table.partitions

    @cached_property
    def root(self) -> Ext4:
        """The root file system; Error when there is none, or more than one."""
        found = self._of_type(*disk.ROOT_TYPES.values())
        if found is None:
            raise Error(f"{self.name} has no root partition", "give a disk image that debian-cloud build made")
        return Ext4(self._view(found))

    @cached_property
    def esp(self) -> Fat | None:
        """The EFI system partition, if there is one."""
        found = self._of_type(disk.ESP_TYPE)
        return Fat(self._view(found)) if found else None

    @cached_property
    def boot_code(self) -> bytes:
        """The boot loader's part of the first sector, 440 bytes."""
        return self.view.read(0, 440)

    @cached_property
    def bios(self) -> bytes | None:
        """What the BIOS boot partition holds, if there is one."""
        found = self._of_type(disk.BIOS_TYPE)
        if found is None:
            return None
        if found.size > 64 * disk.MIB:
            raise Error(f"the BIOS boot partition of {self.name} is too large", "one has a few MiB")
        return self._view(found).read(0, found.size)

    def entries(self) -> Iterator[Entry]:
        """The paths of the root file system, sorted."""
        return self.root.entries()

    def content(self, path: str) -> bytes:
        """What a file of the root file system holds; Error when there is none of that path."""
        return self.root.content(path)

    def pieces(self, path: str) -> Iterator[bytes]:
        """The same, a piece at a time."""
        return self.root.pieces(path)

    def gaps(self) -> Iterator[Finding]:
        """What is outside the partitions, and in partitions that no reader knows."""
        yield from gpt.gaps(self.view, self.table)
        for partition in self.partitions:
            if partition.type not in (*disk.ROOT_TYPES.values(), disk.ESP_TYPE, disk.BIOS_TYPE):
                yield from self.view.findings(
                    f"partition {partition.number} of an unknown type", partition.start, partition.size
                )

    def unaccounted(self) -> Iterator[Finding]:
        """All bytes that nothing explains, wherever they are; `boot_code` and `bios` are for others to compare."""
        yield from self._beside
        yield from self.gaps()
        if self.esp:
            yield from self.esp.unaccounted()
        yield from self.root.unaccounted()

    def _of_type(self, *types: str) -> disk.Partition | None:
        found = [partition for partition in self.partitions if partition.type in types]
        if len(found) > 1:
            raise Error(f"{self.name} has two partitions of the same type", "an image has one of each")
        return found[0] if found else None

    def _view(self, partition: disk.Partition) -> View:
        return self.view.part(partition.start, partition.size)


class TreeImage(Tar):
    """A root file system without a disk, from a tar archive."""

    def __init__(self, name: str, kind: str, view: View, beside: tuple[Finding, ...] = ()) -> None:
        self.name = name
        self.format = kind
        self._beside = beside
        super().__init__(view)

    def unaccounted(self) -> Iterator[Finding]:
        """All bytes that nothing explains."""
        yield from self._beside
        yield from super().unaccounted()


@contextmanager
def opened(path: Path) -> Iterator[DiskImage | TreeImage]:
    """An image of any format, for as long as it is needed; Error when it is none."""
    with _file(path) as view:
        kind = _format(path, view)
        if kind == RAW:
            yield DiskImage(path.name, kind, view)
        elif kind == TAR:
            yield TreeImage(path.name, kind, view)
        else:
            with tempfile.TemporaryDirectory(prefix="debian-cloud-") as folder:
                inner = Path(folder) / "image"
                if kind == TAR_XZ:
                    beside = tuple(_decompress(path.name, view, inner))
                    with _file(inner) as inside:
                        yield TreeImage(path.name, kind, inside, beside)
                else:
                    header = qcow2.read(path.name, view)
                    if header.size > LARGEST or qcow2.allocated(view, header) > shutil.disk_usage(folder).free:
                        raise Error(
                            f"{path.name} is a disk of {header.size} bytes, for which there is no room in {folder}",
                            f"free some space, or set TMPDIR; at most {LARGEST} bytes are read",
                        )
                    beside = tuple(qcow2.unaccounted(view, header))
                    # A path that begins with a slash is never taken for a protocol or an option.
                    run.output(("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path.resolve()), str(inner)))
                    with _file(inner) as inside:
                        yield DiskImage(path.name, kind, inside, beside)


@contextmanager
def _file(path: Path) -> Iterator[View]:
    """A file as a view, without its holes; Error when it cannot be read."""
    try:
        # A FIFO would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Error(f"{path} cannot be read: {os.strerror(error.errno or 0)}", "give an image", USAGE) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Error(f"{path} is no file", "give an image: a .raw, .qcow2 or .tar.xz", USAGE)
        size = os.fstat(descriptor).st_size
        if size > LARGEST:
            raise Error(f"{path} is larger than an image can be", f"at most {LARGEST} bytes are read")

        def fetch(offset: int, length: int) -> bytes:
            try:
                return os.pread(descriptor, length, offset)
            except OSError as error:
                raise Error(f"{path} cannot be read: {os.strerror(error.errno or 0)}", "is the disk whole?") from None

        yield View(fetch, 0, size, tuple(_data(descriptor, size)))
    finally:
        os.close(descriptor)


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """What of a file is no hole (lseek(2), SEEK_DATA)."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position


def kind(path: Path) -> str:
    """The format of an image by its first bytes, or "" for none; nothing else of it is read."""
    with _file(path) as view:
        return _by_magic(view)


def _by_magic(view: View) -> str:
    head = view.read(0, min(view.size, 1024))
    return next((kind for kind, at, magic in _MAGIC if head[at : at + len(magic)] == magic), "")


def _format(path: Path, view: View) -> str:
    """The format of an image, by its content; Error when its name says another."""
    found = _by_magic(view)
    if not found:
        raise Error(
            f"{path} is no image: neither a disk with GPT (raw or qcow2) nor a tar", "was it fetched to its end?"
        )
    for kind in (RAW, QCOW2, TAR, TAR_XZ):
        if path.name.endswith(f".{kind}") and kind != found:
            raise Error(f"{path} is no {kind}, but {found}", f"rename it to end in .{found}, if you trust it")
    return found


def _decompress(name: str, view: View, out: Path) -> Iterator[Finding]:
    """Write what a .xz file holds; gives what is after it. Zeros become holes."""
    damaged = Error(f"{name} is damaged: it cannot be decompressed", "get it again")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2**29)
    position, size = 0, 0
    with out.open("wb") as file:
        try:
            while not decompressor.eof:
                piece = b""
                if decompressor.needs_input:
                    piece = view.read(position, min(PIECE, view.size - position))
                    if not piece:
                        raise damaged
                    position += len(piece)
                data = decompressor.decompress(piece, PIECE)
                size += len(data)
                if size > LARGEST:
                    raise Error(f"{name} is larger than an image can be", f"at most {LARGEST} bytes are read")
                if data.count(0) == len(data):
                    file.seek(len(data), os.SEEK_CUR)
                else:
                    file.write(data)
        except lzma.LZMAError:
            raise damaged from None
        file.truncate(size)
    end = position - len(decompressor.unused_data)
    yield from view.findings("after the end of the compressed tar archive", end, view.size - end)
