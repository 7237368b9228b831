# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutations of small images: for any input, a reader ends within its bounds, with an Error or without.

The bounds are on what is read, not on time. `python3 -m tests.fuzz SECONDS [READER]`
runs for longer than the test does, and writes what it finds into tests/corpus,
whose files are `READER.xz`, made by Debian's tools, and `READER-WHAT.xz`, found.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import lzma
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from debian_cloud import formats, packed
from debian_cloud.disk import gpt, opened
from debian_cloud.disk.ext4.reader import Ext4
from debian_cloud.disk.fat import Fat
from debian_cloud.disk.tar import Tar
from debian_cloud.errors import Error
from debian_cloud.formats import qcow2
from debian_cloud.packages import manifest
from debian_cloud.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORPUS = Path(__file__).parent / "corpus"
DISK = 2**20
"""Bytes of the disk in the samples of formats of disks."""
# Values worth writing over a number: ends of ranges, signs, and small ones.
WORDS = [
    value.to_bytes(width, order)
    for width in (1, 2, 4, 8)
    for value in (0, 1, 2, 7, 8, 255, *(n for bits in (8, 16, 32, 64) for n in (2**bits - 1, 2 ** (bits - 1))))
    for order in ("little", "big")
    if value < 256**width
]


@dataclass
class Counter:
    """A file's bytes, and how often and how many of them were read."""

    data: bytes
    reads: int = 0
    size: int = 0

    def fetch(self, offset: int, size: int) -> bytes:
        self.reads += 1
        self.size += size
        assert self.reads <= 10_000 + len(self.data) // 16, "too many reads"
        assert self.size <= 2**20 + 8 * len(self.data), "too much is read"
        return self.data[offset : offset + size]

    def view(self) -> View:
        return View(self.fetch, 0, len(self.data), ((0, len(self.data)),))


def file_system(reader: Callable[[View], Ext4 | Fat | Tar]) -> Callable[[Counter], None]:
    def read(counter: Counter) -> None:
        found = reader(counter.view())
        paths = [entry.path for entry in found.entries() if entry.kind == "file"]
        counter.reads = counter.size = 0
        for path in paths[:50]:
            sum(len(piece) for piece in found.pieces(path))
            counter.reads = counter.size = 0
        for offset in range(0, len(counter.data), max(1, len(counter.data) // 50)):
            found.place(offset)

    return read


def partitions(counter: Counter) -> None:
    table = gpt.read(counter.view())
    for offset in range(0, len(counter.data), 1000):
        gpt.place(counter.view(), table, offset)


def outside(counter: Counter) -> None:
    header = qcow2.read("x", counter.view())
    if header.size <= opened.LARGEST:
        qcow2.allocated(counter.view(), header)


def compressed(counter: Counter) -> None:
    with tempfile.TemporaryDirectory() as folder:
        opened._write("x", packed.xz("x", counter.view()), Path(folder) / "x", 2**22)
        assert (Path(folder) / "x").stat().st_size <= 2**22


def disk_in(name: str, packer: Callable[[bytes], bytes] | None = None) -> Callable[[Counter], None]:
    """Of a format that others compress, the uncompressed content is changed: a changed checksum ends the reading."""

    def read(counter: Counter) -> None:
        format_ = formats.find(name)
        view = Counter(packer(counter.data)).view() if packer else counter.view()
        with contextlib.suppress(Error):
            format_.check("x", view, DISK)
        if format_.holds(view):
            inner = format_.inner("x", view)
            assert not isinstance(inner, formats.Converted)
            with tempfile.TemporaryDirectory() as folder:
                pieces = inner.pieces(0, inner.size) if isinstance(inner, View) else inner
                opened._write("x", iter(pieces), Path(folder) / "x", 2**22)

    return read


def package(counter: Counter) -> None:
    with tempfile.NamedTemporaryFile(suffix=".deb") as file:
        file.write(counter.data)
        file.flush()
        manifest.read(Path(file.name))


READERS: dict[str, Callable[[Counter], None]] = {
    "ext4": file_system(Ext4),
    "fat": file_system(Fat),
    "tar": file_system(Tar),
    "gpt": partitions,
    "qcow2": outside,
    "txz": compressed,
    "rawxz": disk_in("raw.xz"),
    "tgz": disk_in("tar.gz"),
    "sparse": disk_in("tar.gz", lambda data: gzip.compress(data, 1)),
    "vhd": disk_in("vhd"),
    "deb": package,
}


def samples(reader: str) -> list[Path]:
    return sorted(path for path in CORPUS.iterdir() if path.name.split(".")[0].split("-")[0] == reader)


def content(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes())


def spots(data: bytes) -> list[int]:
    """The places where a change matters: bytes that are not zero, and a few around them."""
    near = {at // 32 for at in range(0, len(data), 32) if any(data[at : at + 32])}
    return [32 * at for at in sorted(near | {at + 1 for at in near}) if 32 * at < len(data)]


def mutated(data: bytes, where: list[int], generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 8))):
        at = min(generator.choice(where) + generator.randrange(32), len(changed) - 1)
        match generator.randrange(6):
            case 0:
                changed[at] ^= 1 << generator.randrange(8)
            case 1:
                changed[at] = generator.randrange(256)
            case 2 | 3:
                word = generator.choice(WORDS)
                changed[at : at + len(word)] = word
            case 4:
                size = generator.choice((4, 8, 16, 32, 256, 512))
                other = generator.choice(where)
                changed[at : at + size] = changed[other : other + size]
            case 5 if generator.randrange(8) == 0:
                del changed[at:]
                break
    return bytes(changed) or b"\0"


def mended(reader: str, data: bytes) -> bytes:
    """The data with the checksums corrected that the reader verifies and an attacker would correct."""
    changed = bytearray(data)
    if reader == "gpt":
        for header in (512, len(data) - 512):
            if header > 0 and len(data) >= header + 92:
                table = 512 * int.from_bytes(changed[header + 72 : header + 80], "little")
                changed[header + 88 : header + 92] = crc32(changed[table : table + 2**14]).to_bytes(4, "little")
                changed[header + 16 : header + 20] = bytes(4)
                changed[header + 16 : header + 20] = crc32(changed[header : header + 92]).to_bytes(4, "little")
    if reader == "vhd" and len(data) >= 512:
        changed[-448:-444] = bytes(4)
        changed[-448:-444] = (~sum(changed[-512:]) & 0xFFFFFFFF).to_bytes(4, "big")
    if reader in ("tar", "sparse"):
        for at in range(0, len(data) - 511, 512):
            if changed[at + 257 : at + 262] == b"ustar":
                changed[at + 148 : at + 156] = b" " * 8
                changed[at + 148 : at + 155] = b"%06o\0" % sum(changed[at : at + 512])
    return bytes(changed)


def tried(reader: str, data: bytes) -> bool:
    """Whether the bytes can be read; any exception but an Error is raised."""
    try:
        READERS[reader](Counter(data))
    except Error:
        return False
    return True


def inputs(reader: str, seed: int) -> Iterator[bytes]:
    """Mutations of a reader's samples without end."""
    generator = random.Random(seed)
    known = [(data, spots(data)) for data in map(content, samples(reader))]
    for _ in itertools.count():
        data = mutated(*generator.choice(known), generator)
        yield mended(reader, data) if generator.randrange(4) else data


def main() -> None:
    seconds, chosen = int(sys.argv[1]), sys.argv[2:] or list(READERS)
    for reader in chosen:
        end, count, good, found = time.monotonic() + seconds / len(chosen), 0, 0, set[str]()
        slowest = 0.0
        for data in inputs(reader, random.randrange(2**32)):
            began = time.monotonic()
            if began > end:
                break
            count += 1
            try:
                good += tried(reader, data)
            except Exception as error:
                trace = error.__traceback__
                while trace and trace.tb_next:
                    trace = trace.tb_next
                where = f"{type(error).__name__}-{trace.tb_lineno if trace else 0}"
                if where not in found:
                    found.add(where)
                    name = f"{reader}-{hashlib.sha256(data).hexdigest()[:8]}.xz"
                    (CORPUS / name).write_bytes(lzma.compress(data, preset=9))
                    print(f"{name}: {where}: {error}")
            slowest = max(slowest, time.monotonic() - began)
        print(
            f"{reader}: {count} runs, {good} could be read, {len(found)} findings, the slowest took {slowest:.2f} s"
        )


if __name__ == "__main__":
    main()
