# SPDX-License-Identifier: GPL-3.0-or-later
"""An upload is read in one way, is consistent, and takes nothing that belongs to another source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from debian_cloud.archive import reserved, upload
from debian_cloud.errors import Error

ROOT = Path(__file__).resolve().parents[2]
DEB = "debian-cloud-config-hpc_1.0_all.deb"
CHANGES = f"""\
Format: 1.8
Source: debian-cloud-config-hpc
Binary: debian-cloud-config-hpc
Architecture: all
Version: 1.0
Distribution: trixie
Maintainer: T <t@example.org>
Changes:
 debian-cloud-config-hpc (1.0) trixie; urgency=medium
 .
   * Test.
Checksums-Sha256:
 {"1" * 64} 10 {DEB}
Files:
 {"2" * 32} 10 misc optional {DEB}
"""
CONTROL = """\
Package: debian-cloud-config-hpc
Version: 1.0
Architecture: all
Maintainer: T <t@example.org>
Provides: debian-cloud-config
Conflicts: debian-cloud-config
Replaces: debian-cloud-config
Description: test
 of a package
 .
 and more
"""
DSC = f"""\
Format: 3.0 (native)
Source: debian-cloud-config-hpc
Binary: debian-cloud-config-hpc
Version: 1.0
Files:
 {"2" * 32} 10 {DEB}
"""


def binary(text: str, file: str = DEB, changes: str = CHANGES) -> None:
    upload.binary(upload.changes(changes.encode()), file, text.encode())


def test_reads_what_dpkg_writes() -> None:
    found = upload.changes(CHANGES.encode())
    assert (found.source, found.version, found.suite) == ("debian-cloud-config-hpc", "1.0", "trixie")
    assert found.files == (upload.Listed(DEB, 10, "1" * 64, "misc"),)
    # debsign ends the text with an empty line.
    assert upload.changes(f"{CHANGES}\n".encode()) == found
    binary(CONTROL)
    assert upload.listed(CHANGES.encode()) == (DEB.encode(),)


@pytest.mark.parametrize(
    ("pattern", "new"),
    [
        ("^Version: 1.0$", "Version: 1.0\nVersion: 2.0"),
        ("^Version: 1.0$", "Version: 1.0\nversion: 2.0"),
        ("^Version: 1.0$", "Version: 1.0\n 2.0"),
        ("^Version: 1.0$", "Version: 1.0 2.0"),
        ("^Version: 1.0$", "Version: 1:1:1.0"),
        ("^Version: 1.0$", ""),
        ("^Version: 1.0$", "Version: 1.0\n\nVersion: 2.0"),
        ("^Version: 1.0$", "Version: 1.0\n \nX: y"),
        ("^Version: 1.0$", "Version: 1.0\n# comment"),
        ("^Version: 1.0$", "Version: 1.0\n-----BEGIN PGP SIGNATUREX"),
        ("^Version: 1.0$", "Version: 1.0\rX: y"),
        ("^Version: 1.0$", "Version: 1.0\x85X: y"),
        ("^Version: 1.0$", "Version: 1.0\u2028X: y"),
        ("^Version: 1.0$", "Version: 1.0\u00a0"),
        ("^Version: 1.0$", "Version: 1.0\n\tX: y"),
        ("^Version: 1.0$", "Version: 1.0\nX : y"),
        ("^Source: .*$", "Source: ../x"),
        ("^Source: .*$", "Source: debian-cloud-config-hpc debian-cloud"),
        # A rebuild (1.0+b1), which has another version than its source.
        ("^Source: .*$", "Source: debian-cloud-config-hpc (0.9)"),
        ("^Distribution: .*$", "Distribution: trixie sid"),
        ("^Binary: .*$", "Binary: a/b"),
        (DEB, "../x.deb"),
        (DEB, "/x.deb"),
        (DEB, ".x.deb"),
        (DEB, "-x.deb"),
        (DEB, "x\x1b.deb"),
        (DEB, "reason"),
        (DEB, "x.changes"),
        (DEB, "x" * 300),
        (" 10 misc", " 11 misc"),
        (" 10 misc", " -1 misc"),
        (" 10 misc", " 010 misc"),
        (" 10 misc", f" {'9' * 30} misc"),
        ("^ 1{64} .*$", " " + "z" * 64 + f" 10 {DEB}"),
        ("^ 1{64} .*$", ""),
        ("^( 2{32} .*)$", r"\1\n\1"),
        ("^( 1{64} .*)$", r"\1\n\1"),
        ("^( 1{64} .*)$", rf"\1\n {'3' * 64} 1 other"),
        ("^Files:\n.*$", ""),
    ],
)
def test_refuses_a_changes_of_two_meanings(pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, CHANGES, flags=re.MULTILINE)
    assert count
    with pytest.raises(Error):
        upload.changes(text.encode())


def test_refuses_what_is_no_text() -> None:
    many = b"Changes:\n" + b" x\n" * upload.MOST_LINES
    for text in (
        b"",
        b"\n",
        b"\xff",
        b"\0" * 1000,
        CHANGES.encode("utf-16"),
        b"A: " + b"x" * 2**20,
        b"\n" * 2**20,
        many,
    ):
        with pytest.raises(Error):
            upload.changes(text)


@pytest.mark.parametrize(
    ("pattern", "new"),
    [
        ("^Version: .*$", "Version: 999"),
        ("^Version: .*$", "Version: 1:1.0"),
        ("^Version: .*$", "Version: 1.0+b1"),
        ("^Version: .*$", "Version: 1.0+b1\nSource: debian-cloud-config-hpc (1.0)"),
        ("^Version: .*$", "Version: 1.0\nSource: debian-cloud-config-hpc (0.9)"),
        ("^Version: .*$", "Version: 1.0\nSource: debian-cloud"),
        ("^Version: .*$", "Version: 1.0\nversion: 999"),
        ("^Package: .*$", "Package: debian-cloud-config-common"),
        ("^Package: .*$", "Package: x\u00a0"),
        ("^Architecture: .*$", "Architecture: amd64"),
        ("^Architecture: .*$", "Architecture: all amd64"),
        ("^Architecture: .*$", "Architecture: all\nEssential: yes"),
        ("^Architecture: .*$", "Architecture: all\nessential: YES"),
        ("^Architecture: .*$", "Architecture: all\nProtected: yes"),
        ("^Architecture: .*$", "Architecture: all\nImportant: yes"),
        ("^Architecture: .*$", "Architecture: all\nPriority: required"),
        ("^Provides: .*$", "Provides: debian-archive-keyring"),
        ("^Provides: .*$", "Provides: debian-cloud-config, debian-archive-keyring (= 2099)"),
        ("^Provides: .*$", "Provides: debian-cloud-archive-keyring"),
        ("^Provides: .*$", "Provides: openssh-server:any"),
        ("^Replaces: .*$", "Replaces: openssh-server (<< 99)"),
        ("^Conflicts: .*$", "Conflicts: debian-archive-keyring"),
        ("^Conflicts: .*$", "Conflicts: x, apt (<< 99)"),
        ("^Conflicts: .*$", "Conflicts: debian-cloud-archive-keyring"),
        ("^Conflicts: .*$", "Breaks: x | dpkg"),
        # dpkg reads these names as lower case.
        ("^Conflicts: .*$", "Conflicts: Apt"),
        ("^Conflicts: .*$", "Breaks: x | unattended-Upgrades"),
        ("^Provides: .*$", "Provides: debian-cloud-config-Common (= 9)"),
        ("^Provides: .*$", "Provides: debian-cloud-archive-Keyring"),
        ("^Version: .*$", "Version: 1.0\nsource: debian-cloud"),
        ("^Version: .*$", "version: 1.0\nSOURCE: debian-cloud-config-hpc (999)"),
        ("^Conflicts: .*$", "Breaks: debian-cloud-archive-keyring-trixie"),
    ],
)
def test_refuses_a_package_that_does_not_agree_or_demands_too_much(pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, CONTROL, flags=re.MULTILINE)
    assert count
    with pytest.raises(Error):
        binary(text)


def test_a_package_may_say_what_is_no_more_than_others() -> None:
    for new in (
        "Essential: no",
        "Priority: optional",
        "Breaks: cloud-init (<< 24), grub-cloud-amd64",
        "Multi-Arch: foreign",
    ):
        binary(CONTROL.replace("Architecture: all\n", f"Architecture: all\n{new}\n"))


def test_a_file_has_the_name_of_its_package() -> None:
    for name in ("debian-cloud-config-hpc_1.1_all.deb", "debian-cloud-config-hpc_1.0_amd64.deb", "x_1.0_all.deb"):
        with pytest.raises(Error, match="by its control file"):
            binary(CONTROL, name)
    epoch = CHANGES.replace("Version: 1.0", "Version: 2:1.0")
    binary(CONTROL.replace("Version: 1.0", "Version: 2:1.0"), changes=epoch)
    with pytest.raises(Error, match="does not list"):
        binary(CONTROL, changes=CHANGES.replace("Binary: debian-cloud-config-hpc", "Binary: debian-cloud-config-x"))


def test_fields_are_the_same_in_small_letters() -> None:
    found = upload.changes(re.sub("^[A-Z].*?:", lambda name: name[0].lower(), CHANGES, flags=re.MULTILINE).encode())
    assert found == upload.changes(CHANGES.encode())
    dsc = DSC.replace("Binary:", "binary:").encode()
    assert upload.claimed(upload.source(found, "x.dsc", dsc)) == ("debian-cloud-config-hpc",)


def test_a_source_is_that_of_the_upload() -> None:
    found = upload.changes(CHANGES.encode())
    assert upload.claimed(upload.source(found, "x.dsc", DSC.encode())) == ("debian-cloud-config-hpc",)
    for old, new in (
        ("Source: debian-cloud-config-hpc", "Source: other"),
        ("Version: 1.0", "Version: 2.0"),
        (DEB, "other.tar.xz"),
        ("Version: 1.0", "Version: 1.0\n\nVersion: 2.0"),
    ):
        with pytest.raises(Error):
            upload.source(found, "x.dsc", DSC.replace(old, new).encode())
    upload.buildinfo(found, "x.buildinfo", b"Format: 1.0\n")
    with pytest.raises(Error, match="belongs to other"):
        upload.buildinfo(found, "x.buildinfo", b"Format: 1.0\nSource: other\n")


def test_an_upload_has_files_of_known_kinds() -> None:
    found = upload.changes(CHANGES.encode())
    start = "debian-cloud-config-hpc_1.0"
    kinds = {
        f"{start}_all.deb": "deb",
        f"{start}.dsc": "dsc",
        f"{start}_amd64.buildinfo": "buildinfo",
        f"{start}.tar.xz": "tar",
        f"{start}.orig.tar.gz": "tar",
    }
    assert {name: upload.kind(found, name) for name in kinds} == kinds
    for name in (f"{start}.html", "x.tar.xz", f"{start}_all.udeb", f"{start}.tar.xz.exe"):
        with pytest.raises(Error):
            upload.kind(found, name)


def test_names_belong_to_the_source_that_brought_them() -> None:
    owners = upload.Owners({"debian-cloud-config-x": frozenset({"debian-cloud-config-x"})}, {})
    assert owners.notes("debian-cloud-config-x", ["debian-cloud-config-x", "debian-cloud-config-new"]) == ()
    with pytest.raises(Error, match="debian-cloud-config-x belongs to the source package debian-cloud-config-x"):
        owners.notes("debian-cloud", ["debian-cloud-config-x"])
    for name in reserved.NAMES:
        assert owners.notes("debian-cloud", [name]) == ()
        with pytest.raises(Error, match="belongs to the source package debian-cloud,"):
            owners.notes("debian-cloud-config-x", [name])


def test_what_was_given_away_is_given_to_one() -> None:
    given = upload.pairs("# names\ndebian-cloud-config-x debian-cloud # since 2026\n\n", "conf/overrides")
    owners = upload.Owners({"debian-cloud-config-x": frozenset({"debian-cloud-config-x"})}, given)
    (note,) = owners.notes("debian-cloud", ["debian-cloud-config-x"])
    assert note == "debian-cloud-config-x: debian-cloud may upload it, although debian-cloud-config-x did"
    with pytest.raises(Error, match="belongs to"):
        owners.notes("debian-cloud-config-x", ["debian-cloud-config-x"])
    for line in ("x", "x y z", "X y", "x ../y"):
        with pytest.raises(Error, match="conf/overrides, line 2: "):
            upload.pairs(f"\n{line}\n", "conf/overrides")


def test_the_names_of_debian_control_are_reserved() -> None:
    control = (ROOT / "debian/control").read_text("utf-8")
    assert set(re.findall("^Package: (.*)$", control, re.MULTILINE)) <= reserved.NAMES
    assert re.findall("^Source: (.*)$", control, re.MULTILINE) == [reserved.SOURCE]
