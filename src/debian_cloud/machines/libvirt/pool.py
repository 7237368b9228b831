# SPDX-License-Identifier: GPL-3.0-or-later
"""The volumes of a pool: bases, the disks and seeds of instances, and disks that outlive them.

```
debian-cloud-base-DIGEST-OWNER.FORMAT          a verified image, never rewritten
debian-cloud-base-DIGEST-OWNER.FORMAT.whole    says that it was uploaded to its end
debian-cloud-instance-ID.qcow2 .seed .log      all that belongs to one instance
debian-cloud-disk-NAME.qcow2                   a disk that outlives instances
```

libvirt cannot rename a volume, and does not say whether all of one was uploaded. OWNER is a number of the user's, who
uploads under a lock: without the mark, a base of the same owner was left by a command that was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import folders, progress
from debian_cloud.machines import keys
from debian_cloud.machines.libvirt import connection
from debian_cloud.machines.qemu import bases, command, state
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from debian_cloud.machines.source import Source

OWN: Final = "debian-cloud"
"""The pool of a user."""
_BASE: Final = "debian-cloud-base-"
_INSTANCE: Final = "debian-cloud-instance-"
_DISK: Final = "debian-cloud-disk-"
_WHOLE: Final = ".whole"
_PIECE: Final = 2**20
_PRIVATE: Final = "0600"
_FOLDERS: Final = ("dir", "fs", "netfs")
"""Kinds of pools whose volumes are files, so that one can be the base of another."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool, as libvirt's object, and the directory on its machine."""

    connection: Any
    pool: Any
    folder: str

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.pool.name())

    def volume(self, name: str) -> Any:  # noqa: ANN401
        """The volume of a name, or None."""
        return connection.maybe(lambda: self.pool.storageVolLookupByName(name))

    def create(self, name: str, size: int, form: str, base: str = "") -> Any:  # noqa: ANN401
        """Make a volume; `base` is the name of the one that it is an overlay of."""
        top = ET.Element("volume")
        ET.SubElement(top, "name").text = name
        ET.SubElement(top, "capacity").text = str(size)
        ET.SubElement(top, "allocation").text = "0"
        target = ET.SubElement(top, "target")
        ET.SubElement(target, "format", type=form)
        ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = _PRIVATE
        if base:
            backing = ET.SubElement(top, "backingStore")
            ET.SubElement(backing, "path").text = self.pool.storageVolLookupByName(base).path()
            ET.SubElement(backing, "format", type=command.driver(base.rpartition(".")[2]))
        return self.pool.createXML(ET.tostring(top, encoding="unicode"), 0)

    def refresh(self) -> None:
        """See volumes that others made; not while something is uploaded to the pool."""
        with contextlib.suppress(connection.api().libvirtError):
            self.pool.refresh(0)


def find(connected: Any, name: str, own: Path | None) -> Pool:  # noqa: ANN401
    """The pool of a name; Error if there is none, unless it is the user's own, which is made in that directory."""
    found = connection.maybe(lambda: connected.storagePoolLookupByName(name))
    if found is None and own:
        found = _made(connected, name, own)
    if found is None:
        raise Error(
            f"there is no pool {printable(name, 80)}",
            "see `virsh pool-list --all`, and give the target the field Pool",
            USAGE,
        )
    if not found.isActive():
        if not own:
            raise Error(
                f"the pool {printable(name, 80)} is not active", f"run virsh pool-start {printable(name, 80)}"
            )
        try:
            found.create(0)
        except connection.api().libvirtError:
            # Another command may have been faster.
            if not found.isActive():
                raise
    top = ET.fromstring(found.XMLDesc(0))  # noqa: S314 - expat bounds entities
    if top.get("type") not in _FOLDERS:
        raise Error(
            f"the pool {printable(name, 80)} is no directory, but of type {printable(top.get('type') or '', 20)}",
            "give the target another Pool: see virsh pool-define-as",
            USAGE,
        )
    return Pool(connected, found, top.findtext("target/path") or "")


def _made(connected: Any, name: str, folder: Path) -> Any:  # noqa: ANN401
    folder.mkdir(mode=0o700, exist_ok=True)
    top = ET.Element("pool", type="dir")
    ET.SubElement(top, "name").text = name
    ET.SubElement(ET.SubElement(top, "target"), "path").text = str(folder)
    try:
        return connected.storagePoolDefineXML(ET.tostring(top, encoding="unicode"), 0)
    except connection.api().libvirtError:
        # Another command may have made it at the same time.
        if (found := connection.maybe(lambda: connected.storagePoolLookupByName(name))) is not None:
            return found
        raise


def base(pool: Pool, root: Path, source: Source) -> str:
    """The base of an image: the name of its volume, uploaded if it is not there."""
    if found := _whole(pool, source.digest):
        return found
    file = bases.of(root, source)
    owner = hashlib.sha256(keys.public(root).encode()).hexdigest()[:8]
    name = f"{_BASE}{source.digest}-{owner}{file.suffix}"
    lock = root / state.BASES / f"{source.digest}.upload"
    with folders.partial(lock, f"the upload of {source.record.stem}", wait=True):
        # Another command may have uploaded it meanwhile.
        if found := _whole(pool, source.digest):
            return found
        _remove(pool, name)
        size = file.stat().st_size
        _refuse_full(pool, size)
        try:
            upload(pool, name, file, f"uploading {source.record.stem}")
            pool.create(f"{name}{_WHOLE}", 0, "raw")
        except BaseException:
            with contextlib.suppress(connection.api().libvirtError):
                _remove(pool, name)
            raise
    return name


def _whole(pool: Pool, digest: str) -> str:
    there = {*pool.pool.listVolumes()}
    prefix = f"{_BASE}{digest}-"
    return next((name for name in sorted(there) if name.startswith(prefix) and f"{name}{_WHOLE}" in there), "")


def _refuse_full(pool: Pool, needed: int) -> None:
    free = pool.pool.info()[3]
    if free < needed:
        raise Error(
            f"pool {printable(pool.name, 80)} is full: it has {free >> 20} MiB free, but {needed >> 20} are needed",
            "remove volumes that nobody needs: see virsh vol-list",
        )


def upload(pool: Pool, name: str, file: Path, title: str) -> None:
    """Make a volume with the bytes of a file; what is empty in the file is not sent."""
    volume = pool.create(name, file.stat().st_size, "raw")
    stream = pool.connection.newStream(0)
    shown = progress.Progress(1, quiet=not progress.live())
    shown.step(title)
    volume.upload(stream, 0, file.stat().st_size, connection.api().VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
    try:
        with file.open("rb") as source:
            for sent in _sent(stream, source):
                shown.tick(f"{sent >> 20} of {file.stat().st_size >> 20} MiB")
        stream.finish()
    except BaseException:
        with contextlib.suppress(connection.api().libvirtError):
            stream.abort()
        raise
    finally:
        shown.end()


def _sent(stream: Any, source: BinaryIO) -> Iterator[int]:  # noqa: ANN401
    """Send a file, and yield how many bytes of it have been dealt with, again and again."""
    size, at = os.fstat(source.fileno()).st_size, 0
    for start, end in _data(source, size):
        if start > at:
            stream.sendHole(start - at, 0)
        source.seek(start)
        for at in range(start, end, _PIECE):
            _send(stream, source.read(min(_PIECE, end - at)))
            yield at
        at = end
    if size > at:
        stream.sendHole(size - at, 0)


def _data(source: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source.fileno(), end, os.SEEK_DATA)
        except OSError:
            # There is only a hole.
            return
        end = os.lseek(source.fileno(), start, os.SEEK_HOLE)
        yield start, end


def _send(stream: Any, piece: bytes) -> None:  # noqa: ANN401
    while piece:
        piece = piece[stream.send(piece) :]


def tail(pool: Pool, name: str, most: int) -> bytes:
    """The last bytes of a volume; none if there is no such volume."""
    if (volume := pool.volume(name)) is None:
        pool.refresh()
        if (volume := pool.volume(name)) is None:
            return b""
    size = volume.info()[1]
    stream = pool.connection.newStream(0)
    found = bytearray()
    volume.download(stream, max(0, size - most), 0, 0)
    while len(found) <= 2 * most and (piece := stream.recv(2**16)):
        found += piece
    with contextlib.suppress(connection.api().libvirtError):
        stream.abort()
    return bytes(found[-most:])


def of_instance(number: str, ending: str) -> str:
    """The name of a volume of an instance, by its id."""
    return f"{_INSTANCE}{number}.{ending}"


def remove_instance(pool: Pool, number: str) -> None:
    """Remove all volumes of an instance, by its id."""
    pool.refresh()
    for name in pool.pool.listVolumes():
        if name.startswith(of_instance(number, "")):
            _remove(pool, name)


def _remove(pool: Pool, name: str) -> None:
    # Another command may remove it at the same time.
    if (volume := pool.volume(name)) is not None:
        connection.maybe(lambda: volume.delete(0))


def disk(name: str) -> str:
    """The volume of a disk that outlives instances."""
    return f"{_DISK}{name}.qcow2"
