# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that others made: no reader blocks on them, and none of them exceeds its limit."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host import files
from debian_cloud.packages import manifest
from tests import bounds

SOURCE = Path(files.__file__).parents[1]
SMALL = 200
"""MiB that are enough for Python itself and good input."""


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def nothing(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("made", "status", "said"),
    [
        (fifo, FAILED, "is not a regular file"),
        (device, FAILED, "is not a regular file"),
        (bound, FAILED, "is not a regular file"),
        (Path.mkdir, USAGE, "cannot be read: Is a directory"),
        (nothing, USAGE, "cannot be read: No such file"),
    ],
)
def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path], None], status: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    made(Path("it"))
    readers: tuple[Callable[[Path, int], object], ...] = (files.read, files.text, files.unpacked)
    for reader in readers:
        with pytest.raises(Error, match=said) as refused:
            reader(Path("it"), 1)
        assert refused.value.status == status


def test_a_name_is_shown_as_foreign(tmp_path: Path) -> None:
    with pytest.raises(Error, match=re.escape("a\\x1b[2J")):
        files.read(tmp_path / "a\x1b[2J")
    with pytest.raises(Error, match=re.escape("a\\x00")):
        files.read(tmp_path / "a\0")


def test_a_file_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(b"12345")
    assert files.read(path, 5) == b"12345"
    with pytest.raises(Error, match="more than 4 bytes"):
        files.read(path, 4)
    path.write_bytes(b"\xff")
    with pytest.raises(Error, match="not UTF-8"):
        files.text(path)


XZ = lzma.compress(b"one\n")


@pytest.mark.parametrize(
    ("form", "packed", "held"),
    [
        (".xz", XZ, b"one\n"),
        (".xz", XZ + lzma.compress(b"two\n"), b"one\ntwo\n"),
        (".xz", XZ + b"\0" * 8 + lzma.compress(b"two\n") + b"\0" * 4, b"one\ntwo\n"),
        (".xz", lzma.compress(b""), b""),
        (".xz", lzma.compress(b"x" * 2**20, preset=9), b"x" * 2**20),
        (".gz", gzip.compress(b"one\n", mtime=0) + gzip.compress(b"two\n", mtime=0), b"one\ntwo\n"),
        (".bz2", bz2.compress(b"one\n") + bz2.compress(b"two\n"), b"one\ntwo\n"),
        ("", b"one\n", b"one\n"),
    ],
)
def test_each_form_is_unpacked(tmp_path: Path, form: str, packed: bytes, held: bytes) -> None:
    path = tmp_path / f"it{form}"
    path.write_bytes(packed)
    assert files.unpacked(path, len(held)) == held
    if held:
        with pytest.raises(Error, match=f"more than {len(held) - 1} bytes"):
            files.unpacked(path, len(held) - 1)
    if form:
        path.write_bytes(packed[:-6])
        with pytest.raises(Error, match="is damaged"):
            files.unpacked(path, len(held))
        path.write_bytes(packed[:10] + bytes([packed[10] ^ 1]) + packed[11:])
        with pytest.raises(Error, match="is damaged"):
            files.unpacked(path, len(held))


def test_a_decoder_takes_no_more_than_xz_itself_needs(tmp_path: Path) -> None:
    path = tmp_path / "it.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}]
    # The size of the dictionary is in the header; the file need not use it (the .xz file format, 5.3.1).
    path.write_bytes(lzma.compress(b"x", filters=filters))
    with pytest.raises(Error, match="is damaged"):
        files.unpacked(path, 1)


@pytest.mark.parametrize("form", ["xz", "gz", "bz2"])
def test_a_gibibyte_in_a_few_kilobytes_takes_no_memory(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"it.{form}"
    compressor = {"xz": "xz -1", "gz": "gzip -1", "bz2": "bzip2 -1"}[form]
    subprocess.run(f"head -c 256M /dev/zero | {compressor} >{path}", shell=True, check=True)
    code = "import pathlib, sys; from debian_cloud.host import files; files.unpacked(pathlib.Path(sys.argv[1]), 9)"
    done = bounds.within(SMALL, [sys.executable, "-c", code, path], PYTHONPATH=str(SOURCE.parent))
    assert b"more than 9 bytes" in done.stderr, done.stderr


def member(name: str, content: bytes) -> bytes:
    """A member of ar(5)."""
    return (
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        + content
        + b"\n" * (len(content) % 2)
    )


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w:xz", format=tarfile.GNU_FORMAT) as archive:
            for entry, content in entries:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return out.getvalue()


CONTROL = (tarfile.TarInfo("./control"), b"Package: x\nVersion: 1\nArchitecture: all\n")


def deb(control: bytes, data: bytes) -> bytes:
    parts = member("debian-binary", b"2.0\n"), member("control.tar.xz", control), member("data.tar.xz", data)
    return b"!<arch>\n" + b"".join(parts)


def test_a_package_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(deb(tar(CONTROL), tar((tarfile.TarInfo("./etc/x"), b"content"))))
    _, found = manifest.read(tmp_path / "x.deb")
    assert [entry.path for entry in found] == ["etc/x"]


def header(kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(header(tarfile.GNUTYPE_LONGNAME, 2**30), id="a name of a GiB"),
        pytest.param(header(tarfile.XHDTYPE, 2**30), id="a pax header of a GiB"),
        pytest.param(header(tarfile.XGLTYPE, 2**30), id="a global pax header of a GiB"),
    ],
)
@pytest.mark.parametrize("where", ["control", "data"])
def test_a_package_that_unpacks_to_gibibytes_is_damaged(tmp_path: Path, packed: bytes, where: str) -> None:
    compressor = lzma.LZMACompressor(preset=1)
    bomb = b"".join(
        [compressor.compress(packed), *map(compressor.compress, bounds.of(b"x", 2**28)), compressor.flush()]
    )
    content = deb(bomb, tar()) if where == "control" else deb(tar(CONTROL), bomb)
    (tmp_path / "x.deb").write_bytes(content)
    code = "import pathlib, sys; from debian_cloud.packages import manifest; manifest.read(pathlib.Path(sys.argv[1]))"
    done = bounds.within(SMALL, [sys.executable, "-c", code, tmp_path / "x.deb"], PYTHONPATH=str(SOURCE.parent))
    assert b"debian_cloud.errors.Error: x.deb is damaged" in done.stderr, done.stderr


def test_control_files_and_entries_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_MOST", (10, 2))
    for data in ([b"x" * 11], [b"", b"", b""]):
        entries = [(tarfile.TarInfo(f"./{number}"), content) for number, content in enumerate(data)]
        (tmp_path / "x.deb").write_bytes(deb(tar(CONTROL), tar(*entries)))
        with pytest.raises(Error, match="is damaged"):
            manifest.read(tmp_path / "x.deb")
    many = [(tarfile.TarInfo(f"./{number}"), b"") for number in range(200)]
    (tmp_path / "x.deb").write_bytes(deb(tar(CONTROL, *many), tar()))
    with pytest.raises(Error, match="is damaged"):
        manifest.read(tmp_path / "x.deb")
