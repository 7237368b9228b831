# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of images end within limits on any input, with an Error or without."""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING

import pytest

from debian_cloud.disk.ext4.reader import Ext4
from debian_cloud.disk.fat import Fat
from debian_cloud.disk.tar import Tar
from debian_cloud.errors import Error
from debian_cloud.packages import manifest
from debian_cloud.view import ENTRIES, View
from tests import fuzz
from tests.disk.made import END, ROOT, member

if TYPE_CHECKING:
    from pathlib import Path

RUNS = {"ext4": 150, "fat": 500, "tar": 150, "gpt": 1000, "qcow2": 1000, "txz": 150, "deb": 500}
RUNS |= {"rawxz": 300, "tgz": 300, "sparse": 200, "vhd": 300}


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_what_tools_made_is_read(reader: str) -> None:
    assert fuzz.tried(reader, fuzz.content(fuzz.CORPUS / f"{reader}.xz"))


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_what_was_found_once_stays_mended(reader: str) -> None:
    for sample in fuzz.samples(reader):
        fuzz.tried(reader, fuzz.content(sample))


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_mutations_end_within_bounds(reader: str) -> None:
    results = [fuzz.tried(reader, data) for data in itertools.islice(fuzz.inputs(reader, 20261128), RUNS[reader])]
    # If all results were the same, the mutations would not reach the code that they are for.
    assert set(results) == {True, False}


# Inputs that mutations do not reach.


def bounded(reader: type[Tar] | type[Fat] | type[Ext4], data: bytes, words: str) -> None:
    counter = fuzz.Counter(data)
    with pytest.raises(Error, match=words):
        list(reader(counter.view()).entries())


def test_a_tar_of_extended_headers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar that has only extended headers gives no paths, and is refused."""
    monkeypatch.setattr("debian_cloud.disk.tar.ENTRIES", 100)
    bounded(Tar, ROOT + member(b"./x", b"x") * 500 + END, "too large, or too many")


def test_a_tar_whose_headers_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("debian_cloud.disk.tar.PATHS", 10_000)
    one = b"".join(
        member(b"./x", b"x", b"118 SCHILY.xattr.user.%03d=%s\n" % (number, b"x" * 91)) + member(b"./%d" % number)
        for number in range(200)
    )
    bounded(Tar, ROOT + one + END, "too large, or too many")


def test_an_extended_header_of_many_fields_is_read_once() -> None:
    """One MiB of fields: copying the rest for each would take minutes."""
    fields = b"".join(b"11 %06x=\n" % number for number in range(2**20 // 11))
    assert len(list(Tar(View.of(ROOT + member(b"./x", b"x", fields) + member(b"./a") + END)).entries())) == 2


def test_a_directory_of_an_esp_within_itself_many_times() -> None:
    """No cluster may have two owners, so that a path cannot grow without end."""
    data = bytearray(fuzz.content(fuzz.CORPUS / "fat.xz"))
    at = data.index(b"BOOT       ")
    data[at + 20 : at + 22], data[at + 26 : at + 28] = bytes(2), struct.pack("<H", 2)
    bounded(Fat, bytes(data), "clusters of /EFI/BOOT .* are damaged")


def test_a_directory_of_ext4_whose_last_entry_has_no_room() -> None:
    """The last four bytes of a block are too few for an entry, and give a clear error."""
    data = bytearray(fuzz.content(fuzz.CORPUS / "ext4.xz"))
    # The first entry of the root directory, whose inode is 2, ends four bytes before its block does.
    at = data.index(struct.pack("<IHBB", 2, 12, 1, 2) + b".")
    size = 1024 << int.from_bytes(data[1024 + 24 : 1024 + 28], "little")
    assert at % size == 0
    data[at + 4 : at + 6] = struct.pack("<H", size - 4)
    bounded(Ext4, bytes(data), "^the directory / is damaged$")


def test_all_directories_of_an_esp_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("debian_cloud.disk.fat._DIRECTORIES", 1024)
    bounded(Fat, fuzz.content(fuzz.CORPUS / "fat.xz"), "are larger than in any image")


def test_all_directories_of_ext4_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("debian_cloud.disk.ext4.reader._DIRECTORIES", 4096)
    bounded(Ext4, fuzz.content(fuzz.CORPUS / "ext4.xz"), "are larger than in any image")


def test_all_extents_of_ext4_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("debian_cloud.disk.ext4.accounts._EXTENTS_OF_ALL", 10)
    bounded(Ext4, fuzz.content(fuzz.CORPUS / "ext4.xz"), "more blocks than the file system")


def test_paths_are_counted() -> None:
    """The limit is far above an image's number of paths, and far below what fits into memory."""
    assert 2**16 < ENTRIES <= 2**18


def deb(tmp_path: Path, change: tuple[bytes, bytes]) -> Path:
    data = fuzz.content(fuzz.CORPUS / "deb.xz")
    assert change[0] in data
    path = tmp_path / "x.deb"
    path.write_bytes(data.replace(*change))
    return path


def test_a_deb_whose_member_leads_back(tmp_path: Path) -> None:
    """After a member of a negative size, the next member would be this one, for ever."""
    path = deb(tmp_path, (b"4         `\n2.0\n", b"-60       `\n2.0\n"))
    with pytest.raises(Error, match=r"x\.deb is damaged"):
        manifest.read(path)


def test_a_deb_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_DATA", 1000)
    with pytest.raises(Error, match=r"the content of x\.deb is larger than a package can be"):
        manifest.read(deb(tmp_path, (b"", b"")))


def test_a_deb_of_headers_within_headers(tmp_path: Path) -> None:
    """Python's tarfile reads each of these headers by a nested call."""
    tar = member(b"./x", b"x") * 3000 + member(b"./a") + END
    path = tmp_path / "x.deb"
    whole = fuzz.content(fuzz.CORPUS / "deb.xz")
    head = whole[: whole.index(b"data.tar")]
    path.write_bytes(head + b"data.tar        0           0     0     100644  %-10d`\n" % len(tar) + tar)
    with pytest.raises(Error, match=r"x\.deb is damaged"):
        manifest.read(path)
