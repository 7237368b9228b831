# SPDX-License-Identifier: GPL-3.0-or-later
"""A finished image, opened for reading without root and without a mount; nothing in it is executed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import formats
from debian_cloud.disk import gpt, layout
from debian_cloud.disk.ext4.reader import Ext4
from debian_cloud.disk.fat import Fat
from debian_cloud.disk.layout import ESP
from debian_cloud.disk.tar import Tar
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.view import PIECE, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debian_cloud.image.entries import Entry

RAW: Final = "raw"
QCOW2: Final = "qcow2"
TAR: Final = "tar"
"""A tree as a tar that is not compressed, which no build makes."""

DISKS: Final = tuple(name for name in formats.names() if formats.find(name).SOURCE == "disk")
"""Formats of disks; the others are formats of trees."""

LARGEST: Final = 2**36
"""Maximum bytes of a disk or of a tree that are read: 64 GiB."""

# POSIX, pax.
_USTAR: Final = slice(257, 262)


class DiskImage:
    """A disk: its partitions and their contents, each read when first used."""

    def __init__(self, name: str, kind: str, view: View, table: gpt.Table | None = None) -> None:
        """If a `table` is given, the disk's own is not read."""
        self.name = name
        self.format = kind
        self.view = view
        self._table = table

    @property
    def table(self) -> gpt.Table:
        """The partition table."""
        if self._table is None:
            self._table = gpt.read(self.view)
        return self._table

    @property
    def has_table(self) -> bool:
        """Whether the partition table can be read."""
        try:
            return bool(self.table)
        except Error:
            return False

    @property
    def partitions(self) -> tuple[layout.Partition, ...]:
        """The partitions, in order of their place on the disk."""
        return self.table.partitions

    @cached_property
    def root(self) -> Ext4:
        """The root file system; Error if there is none, or more than one."""
        found = self._of_type(*layout.ROOT_TYPES.values())
        if found is None:
            raise Error(f"{self.name} has no root partition", "give a disk image that debian-cloud build made")
        return Ext4(self._view(found))

    @cached_property
    def esp(self) -> Fat | None:
        """The EFI system partition, if there is one."""
        found = self._of_type(layout.ESP_TYPE)
        return Fat(self._view(found)) if found else None

    @cached_property
    def boot_code(self) -> bytes:
        """The boot loader's part of the first sector."""
        return self.view.read(0, gpt.BOOT_CODE)

    @cached_property
    def bios(self) -> bytes | None:
        """The content of the BIOS boot partition, if there is one."""
        found = self._of_type(layout.BIOS_TYPE)
        if found is None:
            return None
        if found.size > 64 * layout.MIB:
            raise Error(f"the BIOS boot partition of {self.name} is too large", "at most 64 MiB are read")
        return self._view(found).read(0, found.size)

    def entries(self) -> Iterator[Entry]:
        """The paths of the root file system, sorted."""
        return self.root.entries()

    def content(self, path: str) -> bytes:
        """The content of a file of the root file system; Error if no file has that path."""
        return self.root.content(path)

    def pieces(self, path: str) -> Iterator[bytes]:
        """The same, a piece at a time."""
        return self.root.pieces(path)

    def place(self, offset: int) -> tuple[str, str]:
        """A description of what a byte is part of, and the path to which it belongs; "" if it belongs to none."""
        for partition in self.partitions:
            if partition.start <= offset < partition.start + partition.size:
                within = offset - partition.start
                if partition.type == layout.BIOS_TYPE:
                    return "BIOS boot partition", ""
                if partition.type == layout.ESP_TYPE and self.esp:
                    where, path = self.esp.place(within)
                    return f"{ESP}{where}", path and f"{ESP}{path}"
                if partition.type in layout.ROOT_TYPES.values():
                    where, path = self.root.place(within)
                    return f"root file system: {where}", path
                return f"partition {partition.number}", ""
        return gpt.place(self.view, self.table, offset), ""

    def _of_type(self, *types: str) -> layout.Partition | None:
        found = [partition for partition in self.partitions if partition.type in types]
        if len(found) > 1:
            raise Error(f"{self.name} has two partitions of the same type", "an image has one of each type")
        return found[0] if found else None

    def _view(self, partition: layout.Partition) -> View:
        return self.view.part(partition.start, partition.size)


class TreeImage(Tar):
    """A root file system without a disk, from a tar archive; `view` is the uncompressed archive."""

    def __init__(self, name: str, kind: str, view: View) -> None:
        self.name = name
        self.format = kind
        self.view = view
        super().__init__(view)


@contextmanager
def opened(path: Path, largest: int = LARGEST) -> Iterator[DiskImage | TreeImage]:
    """Open an image of any format while the context lasts; Error if it is not an image.

    At most `largest` bytes are unpacked from it.
    """
    with unpacked(path, largest) as (kind, view):
        yield (DiskImage if kind in DISKS else TreeImage)(path.name, kind, view)


@contextmanager
def unpacked(path: Path, largest: int = LARGEST, folder: Path | None = None) -> Iterator[tuple[str, View]]:
    """The format of an image, and the bytes of the disk or tar archive in it, which are not checked.

    What must be unpacked is below `folder` meanwhile, or where temporary files are.
    """
    with bytes_of(path) as view:
        kind = _format(path, view)
        inner = view if kind == TAR else formats.find(kind).inner(path.name, view)
        if isinstance(inner, View):
            yield kind, inner
            return
        with tempfile.TemporaryDirectory(prefix="debian-cloud-", dir=folder) as place:
            file = Path(place) / "image"
            if isinstance(inner, formats.Converted):
                _convert(path, inner, file, largest)
            else:
                _write(path.name, inner, file, largest)
            with bytes_of(file) as inside:
                yield kind, inside


def format_of(path: Path) -> str:
    """The format of an image, from its first bytes; Error if they are of none, or its name says another."""
    with bytes_of(path) as view:
        return _format(path, view)


@contextmanager
def bytes_of(path: Path) -> Iterator[View]:
    """A file as a view with its ranges of data; Error if it cannot be read."""
    try:
        # Without O_NONBLOCK, opening a FIFO would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Error(f"{path} cannot be read: {os.strerror(error.errno or 0)}", "give an image", USAGE) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Error(f"{path} is not a file", f"give an image: {known()}", USAGE)
        size = os.fstat(descriptor).st_size
        if size > LARGEST:
            raise Error(f"{path} is too large for an image", f"at most {LARGEST} bytes are read")

        def fetch(offset: int, length: int) -> bytes:
            try:
                return os.pread(descriptor, length, offset)
            except OSError as error:
                raise Error(
                    f"{path} cannot be read: {os.strerror(error.errno or 0)}", "check that the file is complete"
                ) from None

        yield View(fetch, 0, size, tuple(_data(descriptor, size)))
    finally:
        os.close(descriptor)


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that are not holes (lseek(2), SEEK_DATA); holes shorter than PIECE count as data."""
    begin = end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        if start - end >= PIECE and end > begin:
            yield begin, end
            begin = start
        begin = begin if end else start
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
    if end > begin:
        yield begin, end


def known() -> str:
    """The formats of images, for a message."""
    return ", ".join((*formats.names(), TAR))


def kind(path: Path) -> str:
    """The format of an image from its first bytes, or "" for none; nothing else of it is read."""
    with bytes_of(path) as view:
        return _by_magic(view)


def _by_magic(view: View) -> str:
    tar = view.read(0, min(view.size, 512))[_USTAR] == b"ustar"
    return TAR if tar else formats.of(view)


def _format(path: Path, view: View) -> str:
    """The format of an image, from its content; Error if it is of none, or its name says another."""
    found = _by_magic(view)
    if not found:
        raise Error(
            f"{path} is not an image: neither a disk with GPT nor a tar",
            "check that the download is complete",
        )
    for kind in (TAR, *formats.names()):
        if path.name.endswith(f".{kind}") and kind != found:
            raise Error(f"{path} is not {kind}, but {found}", f"rename it to end in .{found}, if you trust it")
    return found


def _convert(path: Path, inner: formats.Converted, out: Path, largest: int) -> None:
    """Have a tool write the disk in a file, if there is room."""
    if inner.size > largest:
        raise _too_large(path.name, largest)
    if inner.allocated() > shutil.disk_usage(out.parent).free:
        raise Error(
            f"{path.name} is a disk of {inner.size} bytes, for which {out.parent} has no room",
            "free some space, or set TMPDIR",
        )
    # A path that begins with a slash is never taken for a protocol or an option.
    run.output((*inner.argv, str(path.resolve()), str(out)))


def _write(name: str, pieces: Iterator[bytes], out: Path, largest: int) -> None:
    """Write what is unpacked from a file, with zeros as holes."""
    size = 0
    with out.open("wb") as target:
        for data in pieces:
            size += len(data)
            if size > largest:
                raise _too_large(name, largest)
            if data.count(0) == len(data):
                target.seek(len(data), os.SEEK_CUR)
            else:
                target.write(data)
        target.truncate(size)


def _too_large(name: str, largest: int) -> Error:
    return Error(f"the content of {name} is too large", f"at most {largest} bytes are read")
