# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a file's format before an archive accepts it."""

from __future__ import annotations

import io
import lzma
import random
import struct
import tarfile
from collections.abc import Callable

import pytest

from debian_cloud import formats
from debian_cloud.errors import Error
from debian_cloud.view import View
from tests.archive.conftest import VIRTUAL_SIZE, qcow2


def tar_xz(preset: int = 2, check: int = lzma.CHECK_CRC64, size: int = 3000) -> bytes:
    """A small tree as .tar.xz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in (".", "./etc"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        file = tarfile.TarInfo("./etc/x")
        file.size = size
        tar.addfile(file, io.BytesIO(random.Random(1).randbytes(size)))
    return lzma.compress(packed.getvalue(), check=check, preset=preset)


def check(name: str, content: bytes, size: int) -> None:
    formats.find(name).check(f"x.{name}", View.of(content), size)


def refused(name: str, content: bytes, size: int) -> str:
    with pytest.raises(Error) as error:
        check(name, content, size)
    assert error.value.hint
    assert error.value.message.startswith(f"x.{name} ")
    return error.value.message


def set_field(offset: int, kind: str, value: int) -> Callable[[bytes], bytes]:
    """Set a field of the header (QEMU, docs/interop/qcow2.txt)."""

    def change(content: bytes) -> bytes:
        packed = struct.pack(f">{kind}", value)
        return content[:offset] + packed + content[offset + len(packed) :]

    return change


QCOW2S: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "is not a qcow2"),
    "zeros": (lambda _: bytes(4096), "is not a qcow2"),
    "script": (lambda _: b"#!/bin/sh\nexit\n", "is not a qcow2"),
    "magic alone": (lambda c: c[:4], "is truncated"),
    "header alone": (lambda c: c[:512], "its tables are not in it"),
    "cut before its counts": (lambda c: c[: 1 << 17], "its tables are not in it"),
    "version 2": (set_field(4, "I", 2), "version 2"),
    "backing file": (set_field(8, "Q", 4096), "has a backing file"),
    "length of its name": (set_field(16, "I", 10), "has a backing file"),
    "clusters of 512 bytes": (set_field(20, "I", 9), "clusters of an unsupported size"),
    "clusters of 2^4000000000 bytes": (set_field(20, "I", 4 * 10**9), "clusters of an unsupported size"),
    "larger": (set_field(24, "Q", VIRTUAL_SIZE + 512), "has a table that does not fit its disk"),
    "largest": (set_field(24, "Q", 2**64 - 1), "has a table that does not fit its disk"),
    "encrypted": (set_field(32, "I", 1), "is encrypted"),
    "table far away": (set_field(40, "Q", 1 << 62), "its tables are not in it"),
    "no table": (set_field(40, "Q", 0), "tables at a wrong place"),
    "counts far away": (set_field(48, "Q", 1 << 40), "its tables are not in it"),
    "many counts": (set_field(56, "I", 2**32 - 1), "its tables are not in it"),
    "no counts": (set_field(56, "I", 0), "its tables are not in it"),
    "snapshots": (set_field(60, "I", 1), "has snapshots"),
    "external data": (set_field(72, "Q", 4), "has its data in another file"),
    "unknown feature": (set_field(72, "Q", 1 << 40), "is damaged"),
    "bitmaps": (set_field(88, "Q", 1), "has unsupported features"),
    "short header": (set_field(100, "I", 72), "has another header than QEMU writes"),
}


@pytest.mark.parametrize("attack", QCOW2S)
def test_what_is_no_qcow2_of_its_own_is_refused(attack: str) -> None:
    change, said = QCOW2S[attack]
    check("qcow2", qcow2(), VIRTUAL_SIZE)
    assert said in refused("qcow2", change(qcow2()), VIRTUAL_SIZE)


def test_a_qcow2_of_another_size_than_its_record_says_is_refused() -> None:
    assert "is a disk of 1048576 bytes" in refused("qcow2", qcow2(size=1 << 20), VIRTUAL_SIZE)


@pytest.mark.parametrize("preset", [0, 2, 9])
@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20])
def test_a_tree_is_taken_however_it_was_packed(preset: int, size: int) -> None:
    for how in (lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256):
        check("tar.xz", tar_xz(preset, how, size), 0)


def bomb(claimed: int) -> bytes:
    """A .xz whose index claims so many bytes."""
    whole = tar_xz()
    length = 4 * (struct.unpack("<I", whole[-8:-4])[0] + 1)
    packed = len(whole) - 24 - length
    number, index = packed, b"\0\1"
    for value in (number, claimed):
        while value >= 0x80:
            index += bytes([value & 0x7F | 0x80])
            value >>= 7
        index += bytes([value])
    index += bytes(-len(index) % 4) + b"\0\0\0\0"
    return whole[: 12 + packed] + index + whole[-12:-8] + struct.pack("<I", len(index) // 4 - 1) + whole[-4:]


TREES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "is not a tar.xz"),
    "zeros": (lambda _: bytes(4096), "is not a tar.xz"),
    "script": (lambda _: b"#!/bin/sh\nexit\n" + bytes(64), "is not a tar.xz"),
    "a tar": (lzma.decompress, "is not a tar.xz"),
    "both ends alone": (lambda c: c[:12] + c[-12:], "is truncated"),
    "cut": (lambda c: c[:-100], "is truncated"),
    "without its beginning": (lambda c: c[:12] + c[200:], "is not one complete .xz"),
    "two of them": (lambda c: c + c, "is not one complete .xz"),
    "padding": (lambda c: c + bytes(4), "is truncated"),
    "no block": (lambda _: lzma.compress(b""), "does not contain a tar"),
    "no tar": (lambda _: lzma.compress(b"hello" * 1000), "does not contain a tar"),
    "damaged": (lambda c: c[:40] + bytes(100) + c[140:], "cannot be unpacked"),
    "sum of a header": (
        lambda c: lzma.compress(lzma.decompress(c).replace(b"ustar", b"ustaR", 1)),
        "does not contain a tar",
    ),
    "a bomb": (lambda _: bomb(2**37), "unpacked"),
    "a number without an end": (lambda _: bomb(2**80), "is not one complete .xz"),
    "an enormous dictionary": (
        lambda c: lzma.compress(lzma.decompress(c), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**28}]),
        "cannot be unpacked",
    ),
}


@pytest.mark.parametrize("attack", TREES)
def test_what_is_no_tree_is_refused(attack: str) -> None:
    change, said = TREES[attack]
    assert said in refused("tar.xz", change(tar_xz()), 0)


def test_a_tree_has_no_disk() -> None:
    assert "is a tree without a disk" in refused("tar.xz", tar_xz(), VIRTUAL_SIZE)


def test_no_bytes_of_a_header_end_in_anything_but_a_sentence() -> None:
    """A file with a few bytes changed in the examined parts, or truncated, is refused with a sentence or accepted."""
    chance = random.Random(20261128)
    hints = []
    for name, whole, size, ends in (("qcow2", qcow2(), VIRTUAL_SIZE, 112), ("tar.xz", tar_xz(), 0, 64)):
        places = [*range(ends), *range(len(whole) - 64, len(whole))]
        for _ in range(1500):
            content = bytearray(whole)
            for place in chance.sample(places, chance.randint(1, 4)):
                content[place] = chance.randrange(256)
            if chance.random() < 0.2:
                del content[chance.randrange(len(content)) :]
            try:
                check(name, bytes(content), size)
            except Error as error:
                hints.append(error.hint)
    assert len(hints) > 1000
    assert all(hints)
