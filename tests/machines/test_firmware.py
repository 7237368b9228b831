# SPDX-License-Identifier: GPL-3.0-or-later
"""Firmware is found by descriptors, which other packages and the user may have changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.machines.qemu import command, firmware

X86 = command.BOARDS["amd64"]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories for the user's descriptors, the operator's and the packages'."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(firmware, "_FOLDERS", (str(tmp_path / "etc"), str(tmp_path / "usr")))
    for name in ("home/qemu/firmware", "etc", "usr"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def put(
    path: Path, *features: str, machine: str = "pc-q35-*", architecture: str = "x86_64", **changes: object
) -> Path:
    """Write a descriptor, and the two files that it names; return the code."""
    code, variables = path.with_suffix(".code"), path.with_suffix(".vars")
    for file in (code, variables):
        file.write_bytes(b"")
    descriptor: dict[str, object] = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": str(code), "format": "raw"},
            "nvram-template": {"filename": str(variables), "format": "raw"},
        },
        "targets": [{"architecture": architecture, "machines": [machine]}],
        "features": [*features],
        **changes,
    }
    path.write_text(json.dumps(descriptor))
    return code


SECURE = ("secure-boot", "enrolled-keys", "requires-smm")


def test_the_first_that_fits(folders: Path) -> None:
    put(folders / "usr/10-arm.json", architecture="aarch64")
    put(folders / "usr/20-old.json", machine="pc-i440fx-*")
    secure = put(folders / "usr/30-ms.json", *SECURE)
    put(folders / "usr/40-memory.json", mapping={"device": "memory", "filename": "/x"})
    put(folders / "usr/50-smm.json", "secure-boot", "requires-smm")
    unarmed = put(folders / "usr/55-x.json", "secure-boot")
    assert firmware.find(X86, secure=True).code == secure
    # Without enrolled keys nothing is verified; without a protected mode it may run everywhere.
    assert firmware.find(X86, secure=False).code == unarmed
    plain = put(folders / "usr/60-y.json")
    assert firmware.find(X86, secure=False).code == plain


def test_the_user_s_hides_the_package_s_of_the_same_name(folders: Path) -> None:
    put(folders / "usr/10-x.json")
    put(folders / "usr/20-x.json")
    mine = put(folders / "home/qemu/firmware/20-x.json")
    (folders / "etc/10-x.json").write_bytes(b"")
    assert firmware.find(X86, secure=False).code == mine


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", "[" * 100000, '{"mapping": 1, "features": 2, "targets": 3}', "x" * 70000]
)
def test_what_is_no_descriptor_is_left_out(folders: Path, text: str) -> None:
    (folders / "usr/10-x.json").write_text(text)
    good = put(folders / "usr/20-x.json")
    assert firmware.find(X86, secure=False).code == good


def test_one_whose_files_are_gone_is_left_out(folders: Path) -> None:
    put(folders / "usr/10-x.json").unlink()
    with pytest.raises(Error, match="no UEFI firmware for x86_64") as error:
        firmware.find(X86, secure=False)
    assert error.value.hint == "run apt-get install ovmf"
    with pytest.raises(Error, match="with Secure Boot for aarch64") as error:
        firmware.find(command.BOARDS["arm64"], secure=True)
    assert error.value.hint == "run apt-get install qemu-efi-aarch64"


def test_debian_s_own_are_found() -> None:
    assert firmware.find(X86, secure=True).variables.name == "OVMF_VARS_4M.ms.fd"
    assert "ms" not in firmware.find(X86, secure=False).variables.name
    assert "AAVMF" in str(firmware.find(command.BOARDS["arm64"], secure=False).code)
