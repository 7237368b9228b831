# SPDX-License-Identifier: GPL-3.0-or-later
"""A .deb from any tool is read as dpkg would unpack it, or refused."""

from __future__ import annotations

import gzip
import io
import subprocess
from typing import TYPE_CHECKING

import pytest

from debian_cloud.archive import debfile
from debian_cloud.errors import Error
from tests.archive.debs import BROKEN_MEMBERS, CONTROL, CONTROLS, DATA, DATAS, END, PLAIN, VERSION, deb, entry, member

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, content: bytes) -> bytes:
    path = folder / "demo_1_all.deb"
    path.write_bytes(content)
    return debfile.control(path)


def test_reads_what_dpkg_deb_makes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_bytes(CONTROL)
    (root / "DEBIAN/postinst").write_text("#!/bin/sh\n")
    (root / "DEBIAN/postinst").chmod(0o755)
    deep = root / ("usr/share/" + "/".join(["d" * 60] * 4))
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (deep / "link").symlink_to("y" * 150)
    (deep / "hard").hardlink_to(deep / "file")
    for compression in ("none", "gzip", "xz", "zstd"):
        path = tmp_path / f"{compression}.deb"
        command = ["dpkg-deb", f"-Z{compression}", "--uniform-compression", "--build", str(root), str(path)]
        subprocess.run(command, check=True, capture_output=True)
        assert debfile.control(path) == CONTROL, compression


def test_reads_members_as_binutils_name_them(tmp_path: Path) -> None:
    names = ("debian-binary/", b"2.0\n"), ("control.tar/", PLAIN), ("data.tar/", DATA)
    assert read(tmp_path, deb(*(member(*one) for one in names))) == CONTROL


@pytest.mark.parametrize("trick", BROKEN_MEMBERS)
def test_refuses_what_is_no_deb(tmp_path: Path, trick: str) -> None:
    with pytest.raises(Error):
        read(tmp_path, BROKEN_MEMBERS[trick])


@pytest.mark.parametrize("trick", CONTROLS)
def test_control_is_one_regular_file_and_the_only_one(tmp_path: Path, trick: str) -> None:
    with pytest.raises(Error):
        read(tmp_path, deb(VERSION, member("control.tar", CONTROLS[trick]), member("data.tar", DATA)))


@pytest.mark.parametrize("trick", DATAS)
def test_refuses_data_that_dpkg_does_not_unpack(tmp_path: Path, trick: str) -> None:
    with pytest.raises(Error):
        read(tmp_path, deb(VERSION, member("control.tar", PLAIN), member("data.tar", DATAS[trick])))


def test_what_is_unpacked_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as file:
        file.write(entry("./control", CONTROL) + entry("./md5sums", size=2**28))
        for _ in range(256):
            file.write(bytes(2**20))
    with pytest.raises(Error, match="larger than any package"):
        read(tmp_path, deb(VERSION, member("control.tar.gz", bomb.getvalue()), member("data.tar", DATA)))
    # Also zeros after the end of an archive.
    zeros = member("control.tar.gz", gzip.compress(PLAIN + bytes(2**25), 1))
    with pytest.raises(Error):
        read(tmp_path, deb(VERSION, zeros, member("data.tar", DATA)))
    monkeypatch.setattr(debfile, "LARGEST_DATA", 2**20)
    with pytest.raises(Error, match="larger than any package"):
        read(
            tmp_path,
            deb(
                VERSION,
                member("control.tar", PLAIN),
                member("data.tar.gz", gzip.compress(entry("./a", bytes(2**21)) + END)),
            ),
        )
    monkeypatch.setattr(debfile, "MOST_ENTRIES", 10)
    many = b"".join(entry(f"./{number}") for number in range(11)) + END
    with pytest.raises(Error, match="more than 10 entries"):
        read(tmp_path, deb(VERSION, member("control.tar", PLAIN), member("data.tar", many)))
