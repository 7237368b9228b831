# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of every format can be opened by any user, and every byte between their parts is examined."""

from __future__ import annotations

import hashlib
import os
import random
import re
import struct
import subprocess
import tarfile
from types import SimpleNamespace
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from debian_cloud.disk import layout
from debian_cloud.disk.opened import DiskImage, TreeImage, opened, unpacked
from debian_cloud.errors import Error
from debian_cloud.image.entries import FILE
from debian_cloud.proof import verification
from debian_cloud.view import View
from tests.disk.made import append, copy, make_ext4, make_fat, make_tar, make_tree, place, plain, put, run, view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.conftest import Image

LAYOUT = layout.layout("debian-13-try-amd64-20261120.0", 512 * layout.MIB, "amd64", bios=True)
GPT_ENTRIES = 128 * 128


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one small image in each format."""
    folder = tmp_path_factory.mktemp("opened")
    make_tree(folder / "tree")
    raw = folder / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(LAYOUT.size)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", raw, stdin=layout.table(LAYOUT))
    copy(make_ext4(folder, folder / "tree"), raw, LAYOUT.root.start)
    copy(make_fat(folder, LAYOUT.esp.start // layout.SECTOR), raw, LAYOUT.esp.start)
    put(raw, 0, b"boot code")
    assert LAYOUT.bios
    put(raw, LAYOUT.bios.start, b"GRUB")
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2")
    run(*convert, "-c", "-o", "compression_type=zstd", raw, folder / "disk.qcow2")
    run(*convert, "-c", raw, folder / "zlib.qcow2")
    run(*convert, raw, folder / "plain.qcow2")
    tar = make_tar(folder, folder / "tree").rename(folder / "tree.tar")
    run("xz", "--keep", "-2", tar)
    return folder


@pytest.fixture
def image(tmp_path: Path, made: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of an image, to be changed."""
    name = getattr(request, "param", "disk.raw")
    run("cp", "--sparse=always", made / name, tmp_path / name)
    return tmp_path / name


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Assert that the test leaves the directory for temporary files empty."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    yield
    assert not list((tmp_path / "temporary").iterdir())


def places(path: Path, original: Path) -> dict[str, str]:
    """The differences of an image from another: area -> description."""
    with opened(path) as image, opened(original) as other:
        return {it.path: it.why for it in verification.beside(image, other, set())}


def read(path: Path) -> tuple[object, ...]:
    """All that can be read from an image."""
    with opened(path) as image:
        beside: tuple[object, ...] = tuple(image.entries())
        if isinstance(image, DiskImage):
            assert image.esp
            beside += (image.table, image.boot_code, image.bios, *image.esp.entries())
        return beside


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2", "zlib.qcow2", "plain.qcow2"])
def test_a_disk_is_the_same_in_every_format(made: Path, name: str) -> None:
    with opened(made / name) as image:
        assert isinstance(image, DiskImage)
        assert image.format == name.partition(".")[2]
        assert image.partitions == LAYOUT.partitions
        assert image.table.uuid == LAYOUT.uuid
        assert image.boot_code.startswith(b"boot code")
        assert len(image.boot_code) == 440
        assert image.bios is not None
        assert image.bios.rstrip(b"\0") == b"GRUB"
        assert len(image.bios) == 3 * layout.MIB
        assert image.content("d/random") == (made / "tree" / "d" / "random").read_bytes()
        assert image.esp
        assert image.esp.content("EFI/BOOT/BOOTX64.CSV") == b"x"
    assert read(made / name) == read(made / "disk.raw")


@pytest.mark.parametrize("name", ["tree.tar", "tree.tar.xz"])
def test_a_tree_is_the_same_in_every_format(made: Path, name: str) -> None:
    with opened(made / name) as image, opened(made / "disk.raw") as other:
        assert isinstance(image, TreeImage)
        assert image.format == name.partition(".")[2]
        assert image.content("d/random") == (made / "tree" / "d" / "random").read_bytes()
        ours = {entry.path: plain(entry) for entry in image.entries()}
        theirs = {entry.path: plain(entry) for entry in other.entries()}
        assert {path for path in ours.keys() & theirs.keys() if ours[path] != theirs[path]} <= {"", "a", "b"}


def table(image: Path, change: Callable[[bytearray, bytearray], object]) -> None:
    """Change both copies of a partition table (header, entries), and correct their checksums."""
    size = image.stat().st_size
    for header_at, entries_at in ((512, 1024), (size - 512, size - 512 - GPT_ENTRIES)):
        data = view(image)
        header, entries = bytearray(data.read(header_at, 92)), bytearray(data.read(entries_at, GPT_ENTRIES))
        change(header, entries)
        header[88:92] = struct.pack("<I", crc32(entries))
        header[16:20] = bytes(4)
        header[16:20] = struct.pack("<I", crc32(header))
        put(image, header_at, bytes(header))
        put(image, entries_at, bytes(entries))


def entry(number: int, offset: int, data: bytes) -> Callable[[bytearray, bytearray], None]:
    def change(_: bytearray, entries: bytearray) -> None:
        start = 128 * (number - 1) + offset
        entries[start : start + len(data)] = data

    return change


PLACES: Mapping[str, tuple[str, Callable[[Path], object], str]] = {
    "the boot loader": ("disk.raw", lambda i: put(i, 100), "boot sector"),
    "the MBR": ("disk.raw", lambda i: put(i, 442), "MBR"),
    "after the header": ("disk.raw", lambda i: put(i, 512 + 200), "partition table"),
    "after its copy": ("disk.raw", lambda i: put(i, LAYOUT.size - 100), "copy of the partition table"),
    "an unused entry": ("disk.raw", lambda i: table(i, entry(77, 40, b"hidden")), "copy of the partition table"),
    "before the first partition": ("disk.raw", lambda i: put(i, 40 * 512), "between partitions"),
    "after the last partition": ("disk.raw", lambda i: put(i, LAYOUT.size - layout.MIB), "after the last partition"),
    "GRUB's core": ("disk.raw", lambda i: put(i, 2 * layout.MIB), "BIOS boot partition"),
    "after the file system": (
        "disk.raw",
        lambda i: put(i, LAYOUT.root.start + LAYOUT.root.size - 10),
        "root file system: after the file system",
    ),
    "the EFI system partition": (
        "disk.raw",
        lambda i: put(i, LAYOUT.esp.start + 30 * layout.MIB),
        "EFI system partition: free clusters",
    ),
    "a disk that grew": ("disk.qcow2", lambda i: run("qemu-img", "resize", i, "1G"), "after the end"),
    "after a tar": ("tree.tar", lambda i: append(i, b"hidden"), "after the end"),
    "the padding of a tar": (
        "tree.tar",
        lambda i: put(i, i.read_bytes().index(b"\0hi\n") + 100),
        "padding of /a",
    ),
}


@pytest.mark.parametrize(("image", "attack"), [(PLACES[name][0], name) for name in PLACES], indirect=["image"])
def test_every_place_of_an_image_has_a_name(image: Path, made: Path, attack: str) -> None:
    name, change, where = PLACES[attack]
    change(image)
    said = places(image, made / name)
    assert where in said
    assert re.search(
        r"(\d+ bytes differ from the rebuild, the first|it differs from the rebuild) at byte \d+$", said[where]
    )


@pytest.mark.parametrize("name", ["disk.raw", "tree.tar"])
def test_an_image_does_not_differ_from_itself(made: Path, name: str) -> None:
    assert places(made / name, made / name) == {}


def test_a_place_is_told_once_and_those_of_told_paths_not(image: Path, made: Path) -> None:
    for at in (10, 100, 300):
        put(image, at)
    with opened(image) as changed, opened(made / "disk.raw") as original:
        (told,) = verification.beside(changed, original, set())
        assert (told.path, told.why) == ("boot sector", "18 bytes differ from the rebuild, the first at byte 10")
    block = LAYOUT.root.start + place(made / "ext4", "d/random")
    put(image, block + 50)
    with opened(image) as changed, opened(made / "disk.raw") as original:
        assert [it.path for it in verification.beside(changed, original, {"d/random"})] == ["boot sector"]
        where = [it.path for it in verification.beside(changed, original, set())]
        assert where == ["boot sector", "root file system: content of /d/random"]


def test_of_disks_that_differ_everywhere_not_all_is_told() -> None:
    """Only as many areas as a user would read are looked for and reported, however much differs."""
    of, other = View.of(random.Random(1).randbytes(2**24)), View.of(bytes(2**24))
    reads = 0

    def fetch(offset: int, size: int) -> bytes:
        nonlocal reads
        reads += size
        return of.fetch(offset, size)

    first = TreeImage.__new__(TreeImage)
    first.view = View(fetch, 0, of.size, of.data)
    second = TreeImage.__new__(TreeImage)
    second.view, second._end = other, 0
    told = [(it.path, it.why) for it in verification.beside(first, second, set())]
    assert len(told) == 2
    assert told[1] == ("disk", f"more bytes differ, from byte {2**23} on")
    assert reads <= 2**23 + 2**20


def snapshot(image: Path) -> None:
    run("qemu-img", "snapshot", "-c", "secret", image)


def create(*arguments: str) -> Callable[[Path], object]:
    def make(image: Path) -> None:
        image.unlink()
        run("qemu-img", "create", "-q", "-f", "qcow2", *arguments[:-1], image, arguments[-1])

    return make


def backed(image: Path) -> None:
    (image.parent / "base.raw").write_bytes(bytes(2**20))
    create("-b", str(image.parent / "base.raw"), "-F", "raw", "1M")(image)


def folder(image: Path) -> None:
    image.unlink()
    image.mkdir()


def pipe(image: Path) -> None:
    image.unlink()
    os.mkfifo(image)


def cut(size: int) -> Callable[[Path], object]:
    return lambda image: os.truncate(image, size)


WRONG: Mapping[str, tuple[str, Callable[[Path], object], str]] = {
    "the first table": ("disk.raw", lambda i: put(i, 512 + 60), "first copy .* its checksum is wrong"),
    "the last table": ("disk.raw", lambda i: put(i, LAYOUT.size - 512 + 60), "last copy .* its checksum is wrong"),
    "an entry": ("disk.raw", lambda i: put(i, 1024 + 60), "the checksum of its entries is wrong"),
    "no last table": ("disk.raw", lambda i: put(i, LAYOUT.size - 512, bytes(512)), "its last copy is missing"),
    "a disk cut off": ("disk.raw", cut(LAYOUT.size // 2), "does not fit this disk"),
    "a disk that is odd": ("disk.raw", cut(LAYOUT.size - 1), "truncated"),
    "a disk that is no more": ("disk.raw", cut(2000), "too small for a disk"),
    "partitions that overlap": (
        "disk.raw",
        lambda i: table(i, entry(15, 40, struct.pack("<Q", 300_000))),
        "partitions 15 and 1 overlap",
    ),
    "a partition outside": (
        "disk.raw",
        lambda i: table(i, entry(1, 40, struct.pack("<Q", 2**40))),
        "partition 1 is outside",
    ),
    "two roots": (
        "disk.raw",
        lambda i: table(i, lambda _, e: e.__setitem__(slice(14 * 128, 14 * 128 + 16), e[:16])),
        "two partitions of the same type",
    ),
    "no root": ("disk.raw", lambda i: table(i, entry(1, 0, bytes(128))), "no root partition"),
    "a backing file": ("disk.qcow2", backed, "has a backing file"),
    "a data file": (
        "disk.qcow2",
        lambda i: create("-o", f"data_file={i.parent}/data", "1M")(i),
        "has its data in another file",
    ),
    "encryption": ("disk.qcow2", lambda i: put(i, 32, struct.pack(">I", 2)), "is encrypted"),
    "snapshots": ("disk.qcow2", snapshot, "has snapshots"),
    "version 2": ("disk.qcow2", create("-o", "compat=0.10", "1M"), "of version 2"),
    "bitmaps": ("disk.qcow2", lambda i: run("qemu-img", "bitmap", "--add", i, "secret"), "unsupported features"),
    "clusters of no size": ("disk.qcow2", lambda i: put(i, 20, bytes(4)), "clusters of an unsupported size"),
    "a table outside": (
        "plain.qcow2",
        lambda i: put(i, 3 * 65536, struct.pack(">Q", 1 << 63 | 2**30)),
        "points to bytes",
    ),
    "a disk without end": ("disk.qcow2", create("100G"), "is too large"),
    "a qcow2 cut off": ("disk.qcow2", cut(300_000), "leads to what is not in it|points to bytes"),
    "a qcow2 that is no more": ("disk.qcow2", cut(80), "is truncated"),
    "a .xz cut off": ("tree.tar.xz", cut(5000), "cannot be decompressed"),
    "a damaged .xz": ("tree.tar.xz", lambda i: put(i, 5000), "cannot be decompressed"),
    "a tar cut off": ("tree.tar", cut(5000), "points to bytes"),
    "nothing": ("disk.raw", cut(0), "is not an image"),
    "text": ("tree.tar", lambda i: i.write_bytes(b"text" * 1000), "is not an image"),
    "another name": ("disk.raw", lambda i: i.rename(i.with_suffix(".qcow2")), "is not qcow2, but raw"),
    "no file": ("disk.raw", lambda i: i.unlink(), "cannot be read: No such file"),
    "a directory": ("disk.raw", folder, "is not a file"),
    "a pipe": ("disk.raw", pipe, "is not a file"),
}


@pytest.mark.parametrize(("image", "attack"), [(WRONG[name][0], name) for name in WRONG], indirect=["image"])
def test_a_wrong_image_is_refused_in_one_sentence(image: Path, attack: str) -> None:
    _, change, words = WRONG[attack]
    change(image)
    if attack == "another name":
        image = image.with_suffix(".qcow2")
    with pytest.raises(Error, match=words) as raised:
        read(image)
    assert "\n" not in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("name", ["disk.qcow2", "tree.tar.xz"])
def test_what_is_unpacked_is_bounded(made: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Error, match="is too large"), unpacked(made / name, 2**20):
        pass
    if name == "disk.qcow2":
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**20))
        with pytest.raises(Error, match="has no room"), unpacked(made / name):
            pass


# The images that were built.


def test_a_built_disk_is_read_as_debugfs_reads_it(images: Mapping[str, Image]) -> None:
    raw = images["ec2"].raw
    with opened(raw) as image:
        assert isinstance(image, DiskImage)
        entries = {entry.path: entry for entry in image.entries()}
        start = next(part.start for part in image.partitions if part.name == "root")
        generator = random.Random(1)
        files = [entry for entry in entries.values() if entry.kind == FILE and " " not in entry.path]
        chosen = [*generator.sample(files, 40), entries["etc/passwd"], entries["usr/bin/sudo"]]
        for one in chosen:
            said = debugfs(raw, start, f'stat "/{one.path}"')
            assert f"Inode: {one.inode} " in said
            mode = re.search(r"Mode: +(\d+)", said)
            assert mode is not None
            assert int(mode[1], 8) == one.mode
            assert re.search(rf"User: +{one.uid} +Group: +{one.gid} .*Size: {one.size}\n", said)
            content = debugfs(raw, start, f'cat "/{one.path}"').encode("latin-1")
            assert hashlib.sha256(content).hexdigest() == one.sha256
            assert image.content(one.path) == content
        for folder in ("", "etc", "usr/bin", "usr/share/man/man8"):
            listed = {line.split("/")[5] for line in debugfs(raw, start, f"ls -p /{folder}").split()} - {".", ".."}
            below = f"{folder}/" if folder else ""
            assert listed == {
                path.removeprefix(below)
                for path in entries
                if path.startswith(below) and path != folder and "/" not in path.removeprefix(below)
            }


def debugfs(raw: Path, start: int, command: str) -> str:
    return subprocess.run(
        ["debugfs", "-R", command, f"{raw}?offset={start}"], capture_output=True, check=True
    ).stdout.decode("latin-1")


def test_a_qcow2_and_its_raw_disk_are_one(images: Mapping[str, Image]) -> None:
    assert read(images["ec2"].qcow2) == read(images["ec2"].raw)


def test_a_built_tree_is_read_as_tarfile_reads_it(container: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "tree.tar"
    with unpacked.open("wb") as out:
        subprocess.run(["xz", "-dc", container], stdout=out, check=True)
    with opened(unpacked) as image:
        entries = {entry.path: entry for entry in image.entries()}
        with tarfile.open(unpacked) as tar:
            names = set()
            for member in tar:
                name = member.name.removeprefix("./").removeprefix(".")
                names.add(name)
                one = entries[name]
                assert (one.mode, one.uid, one.gid, one.mtime) == (
                    member.mode,
                    member.uid,
                    member.gid,
                    int(member.mtime),
                )
                if member.isreg():
                    file = tar.extractfile(member)
                    assert file is not None
                    assert hashlib.sha256(file.read()).hexdigest() == one.sha256
                elif member.issym():
                    assert one.target == member.linkname
        assert names == entries.keys()
