# SPDX-License-Identifier: GPL-3.0-or-later
"""The formats of disks that clouds and clients take: made the same each time, read by others' tools and by ours."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from debian_cloud import formats
from debian_cloud.disk import opened
from debian_cloud.errors import Error
from debian_cloud.view import View
from tests.formats import disks

SIZE = {"raw.xz": 2**20, "vhd": 2**20, "tar.gz": 2**30}
"""Format -> bytes of the test's disk."""


def check(name: str, content: bytes, size: int) -> None:
    formats.find(name).check(f"x.{name}", View.of(content), size)


@pytest.fixture(params=SIZE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(name: str, tmp_path: Path) -> Path:
    return disks.raw(tmp_path / "disk", SIZE[name])


def test_the_same_disk_is_the_same_file(name: str, disk: Path, tmp_path: Path) -> None:
    first = disks.made(name, disk, tmp_path / "first").read_bytes()
    (tmp_path / "other").mkdir()
    other = tmp_path / "other/name.raw"
    # Without its holes, as another file system may keep it, and at another time.
    subprocess.run(["cp", "--sparse=never" if SIZE[name] < 2**24 else "--sparse=auto", disk, other], check=True)
    other.chmod(0o600)
    time.sleep(1.1)
    assert disks.made(name, other, tmp_path / "again").read_bytes() == first
    check(name, first, SIZE[name])


def test_the_disk_in_it_is_read_back_with_its_holes(name: str, disk: Path, tmp_path: Path) -> None:
    file = tmp_path / f"image.{name}"
    disks.made(name, disk, file)
    assert opened.format_of(file) == name
    with opened.opened(file) as image, disk.open("rb") as raw:
        assert isinstance(image, opened.DiskImage)
        assert [partition.size for partition in image.partitions] == [2**19]
        assert image.view.size == SIZE[name]
        if SIZE[name] > 2**20:
            # Holes of less than a MiB count as data.
            assert sum(end - start for start, end in image.view.data) <= 2**20
        for start in range(0, 2**20, 4096):
            raw.seek(start)
            assert image.view.read(start, 4096) == raw.read(4096)
    lies = tmp_path / "image.qcow2"
    shutil.copy(file, lies)
    with pytest.raises(Error, match=f"is not qcow2, but {name}"):
        opened.format_of(lies)


def test_azure_s_disk_is_one_for_qemu(tmp_path: Path) -> None:
    for size in (2**20, 3 * 2**29, 2**33):
        disk = disks.raw(tmp_path / f"disk{size}", size)
        vhd = disks.made("vhd", disk, tmp_path / f"{size}.vhd")
        said = subprocess.run(
            ["qemu-img", "info", "--output=json", "-f", "vpc", vhd], capture_output=True, check=True
        )
        assert json.loads(said.stdout)["virtual-size"] == size
        same: list[str | Path] = ["qemu-img", "compare", "-f", "raw", "-F", "vpc", disk, vhd]
        assert subprocess.run(same, capture_output=True, check=False).returncode == 0
        assert vhd.stat().st_blocks < 2**12


def test_the_footer_has_what_the_specification_wants(tmp_path: Path) -> None:
    disk = disks.raw(tmp_path / "disk")
    footer = disks.made("vhd", disk, tmp_path / "x.vhd").read_bytes()[-512:]
    assert footer[:8] == b"conectix"
    features, version, offset, created = struct.unpack(">IIQI", footer[8:28])
    assert (features, version, offset) == (2, 0x10000, 2**64 - 1)
    assert created == disks.EPOCH - 946684800
    original, current, cylinders, heads, sectors, kind = struct.unpack(">QQHBBI", footer[40:64])
    assert (original, current, kind) == (2**20, 2**20, 2)
    # As in the specification's appendix for 2048 sectors.
    assert (cylinders, heads, sectors) == (30, 4, 17)
    assert footer[68:84] == disk.read_bytes()[512 + 56 : 512 + 72]
    assert footer[84:] == bytes(428)


def test_compute_engine_s_disk_is_one_sparse_file_for_tar(tmp_path: Path) -> None:
    disk = disks.raw(tmp_path / "disk", 2**33)
    packed = disks.made("tar.gz", disk, tmp_path / "x.tar.gz")
    listed = subprocess.run(
        ["tar", "--list", "--verbose", "--numeric-owner", "-f", packed], capture_output=True, text=True, check=True
    )
    assert listed.stdout == "-rw-r--r-- 0/0      8589934592 2025-11-25 00:00 disk.raw\n"
    subprocess.run(["tar", "--extract", "--file", packed, "--directory", tmp_path], check=True)
    cmp: list[str | Path] = ["cmp", "--bytes=16M", disk, tmp_path / "disk.raw"]
    assert subprocess.run(cmp, check=False).returncode == 0
    assert (tmp_path / "disk.raw").stat().st_blocks < 2**12


def test_xz_unpacks_the_disk(tmp_path: Path) -> None:
    disk = disks.raw(tmp_path / "disk", 100 * 2**20)
    packed = disks.made("raw.xz", disk, tmp_path / "x.raw.xz")
    assert lzma.decompress(packed.read_bytes()) == disk.read_bytes()


def put(at: int, content: bytes) -> Callable[[bytes], bytes]:
    """Write over a part of the file; of a negative `at`, from its end."""
    return lambda data: data[:at] + content + data[len(data[:at]) + len(content) :]


def summed(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Change the footer of a vhd, and correct its checksum."""

    def changed(data: bytes) -> bytes:
        data = put(-448, bytes(4))(change(data))
        return put(-448, struct.pack(">I", ~sum(data[-512:]) & 0xFFFFFFFF))(data)

    return changed


def tarred(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Change the tar in a .tar.gz, and correct the checksum of its header."""

    def changed(data: bytes) -> bytes:
        tar = put(148, b" " * 8)(change(gzip.decompress(data)))
        return gzip.compress(put(148, b"%06o\0 " % sum(tar[:512]))(tar))

    return changed


ATTACKS: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "nothing in a vhd": ("vhd", lambda _: b"", "is not a fixed vhd"),
    "no footer": ("vhd", lambda c: c[:-512], "is not a fixed vhd"),
    "a footer alone": ("vhd", lambda c: c[-512:], "is not a fixed vhd"),
    "no disk before the footer": ("vhd", put(512, b"\0"), "is not a fixed vhd"),
    "a vhd that grows": ("vhd", summed(put(-452, struct.pack(">I", 3))), "another kind than fixed"),
    "another version": ("vhd", summed(put(-500, struct.pack(">I", 1))), "another kind than fixed"),
    "a checksum": ("vhd", put(-448, b"abcd"), "does not have its checksum"),
    "another size": ("vhd", summed(put(-464, struct.pack(">Q", 2**40))), "its footer says another size"),
    "a cut vhd": ("vhd", lambda c: c[4096:], "is not a fixed vhd"),
    "nothing in a raw.xz": ("raw.xz", lambda _: b"", "is not a raw.xz"),
    "a raw disk": ("raw.xz", lzma.decompress, "is not a raw.xz"),
    "a cut raw.xz": ("raw.xz", lambda c: c[:-64], "is truncated"),
    "the first bytes of a raw.xz": ("raw.xz", lambda c: c[:8], "is truncated"),
    "another disk's size": (
        "raw.xz",
        lambda c: lzma.compress(lzma.decompress(c) + b"x"),
        "is a disk of 1048577 bytes",
    ),
    "no disk in a raw.xz": ("raw.xz", lambda _: lzma.compress(bytes(2**20)), "does not contain a disk with GPT"),
    "nothing in a tar.gz": ("tar.gz", lambda _: b"", "is not a tar.gz"),
    "a tar that is not compressed": ("tar.gz", gzip.decompress, "is not a tar.gz"),
    "a cut tar.gz": ("tar.gz", lambda c: c[:200], "is damaged"),
    "the first bytes of a tar.gz": ("tar.gz", lambda c: c[:4], "is damaged"),
    "another member": ("tar.gz", tarred(put(0, b"evil.raw")), "does not contain disk.raw alone"),
    "a link": ("tar.gz", tarred(put(156, b"2")), "does not contain disk.raw alone"),
    "another format of tar": ("tar.gz", tarred(put(257, b"ustar\x0000")), "does not contain disk.raw alone"),
    "a header's checksum": (
        "tar.gz",
        lambda c: gzip.compress(put(148, b"0" * 6)(gzip.decompress(c))),
        "does not contain disk.raw alone",
    ),
    "a range before the disk": ("tar.gz", tarred(put(386, b"\xff" * 12)), "does not contain disk.raw alone"),
    "ranges that are one": ("tar.gz", tarred(put(410, b"00000000000\0")), "does not contain disk.raw alone"),
    "a range without a number": ("tar.gz", tarred(put(386, b"0000000000x\0")), "does not contain disk.raw alone"),
    "a larger disk": ("tar.gz", tarred(put(483, b"17777777777\0")), "is a disk of 2147483647 bytes"),
    "an endless disk": ("tar.gz", tarred(put(483, b"\x80" + b"\x7f" * 11)), "is a disk of "),
    "no disk in a tar.gz": (
        "tar.gz",
        lambda c: gzip.compress(gzip.decompress(c).replace(b"EFI PART", b"EFI PARt")),
        "does not contain a disk with GPT",
    ),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    return {
        name: disks.made(name, disks.raw(folder / f"{name}.disk", size), folder / name).read_bytes()
        for name, size in SIZE.items()
    }


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_not_that_disk_is_refused(attack: str, samples: dict[str, bytes]) -> None:
    name, change, said = ATTACKS[attack]
    changed = change(samples[name])
    assert changed != samples[name]
    with pytest.raises(Error) as error:
        check(name, changed, SIZE[name])
    assert said in error.value.message
    assert error.value.message.startswith(f"x.{name} ")
    assert error.value.hint


def test_what_follows_the_disk_is_refused_when_it_is_read(samples: dict[str, bytes], tmp_path: Path) -> None:
    """`check` reads only the beginning."""
    whole = samples["tar.gz"]
    for more in (whole + whole, whole + b"\0", gzip.compress(gzip.decompress(whole) + b"x" * 512), whole[:-9]):
        (tmp_path / "x.tar.gz").write_bytes(more)
        with (
            pytest.raises(Error, match=r"is damaged|has more in it than disk\.raw"),
            opened.opened(tmp_path / "x.tar.gz"),
        ):
            pass


def test_no_more_is_unpacked_than_is_allowed(samples: dict[str, bytes], tmp_path: Path) -> None:
    for name in ("raw.xz", "tar.gz"):
        (tmp_path / f"x.{name}").write_bytes(samples[name])
        with (
            pytest.raises(Error, match="is too large"),
            opened.unpacked(tmp_path / f"x.{name}", SIZE[name] - 1),
        ):
            pass
