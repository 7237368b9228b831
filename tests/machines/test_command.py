# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's command line: what it must have, and what must not be in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from debian_cloud.errors import Error
from debian_cloud.machines.qemu import command
from debian_cloud.machines.qemu.state import Kept
from tests.machines.records import KEPT


def words(kept: Kept, accelerator: command.Accelerator = "tcg") -> list[str]:
    return [*command.argv(kept, accelerator, 7, 8)]


def values(kept: Kept, option: str) -> list[str]:
    found = words(kept)
    return [found[at + 1] for at, word in enumerate(found) if word == option]


def test_a_machine_has_only_what_is_named() -> None:
    found = words(KEPT)
    assert found[:3] == ["qemu-system-x86_64", "-machine", "q35"]
    assert {"-nodefaults", "-no-user-config", "-sandbox"} <= {*found}
    assert "-daemonize" not in found
    assert values(KEPT, "-netdev") == ["user,id=net,hostfwd=tcp:127.0.0.1:0-:22"]
    assert values(KEPT, "-device")[0] == "virtio-blk-pci,drive=root,bootindex=0"


def test_a_processor_that_is_emulated_lacks_what_fails() -> None:
    assert values(KEPT, "-cpu") == ["qemu64,-cx16"]
    assert words(KEPT, "kvm")[words(KEPT, "kvm").index("-accel") :][:4] == ["-accel", "kvm", "-cpu", "host"]


def test_secure_boot_has_variables_that_only_the_firmware_writes() -> None:
    secure = replace(KEPT, boot="secure", code="/usr/share/a,b/code.fd", code_format="raw")
    assert values(secure, "-machine") == ["q35,pflash0=code,pflash1=variables,smm=on"]
    assert values(secure, "-global") == ["driver=cfi.pflash01,property=secure,value=on"]
    # A comma in a value is doubled (qemu(1)).
    assert "driver=file,node-name=code-file,filename=/usr/share/a,,b/code.fd,read-only=on" in values(
        secure, "-blockdev"
    )


def test_arm64_boots_by_uefi() -> None:
    arm = replace(KEPT, architecture="arm64", boot="uefi", code="/code.fd", code_format="raw")
    assert words(arm)[:3] == ["qemu-system-aarch64", "-machine", "virt,pflash0=code,pflash1=variables"]
    assert values(arm, "-cpu") == ["cortex-a57"]


def test_secrets_are_in_files() -> None:
    """Every user of the machine can read arguments."""
    assert "-smbios" not in words(KEPT)
    assert values(replace(KEPT, way="credentials"), "-smbios") == [
        "type=11,path=credential.0",
        "type=11,path=credential.1",
    ]
    assert not any("seed" in word for word in words(replace(KEPT, way="none")))


def test_a_persistent_disk_is_known_by_its_name() -> None:
    found = replace(KEPT, disks=("data",))
    assert "driver=file,node-name=disk-data-file,filename=../../disks/data.qcow2,discard=unmap" in values(
        found, "-blockdev"
    )
    assert "virtio-blk-pci,drive=disk-data,serial=data" in values(found, "-device")


def test_an_architecture_that_is_not_known() -> None:
    with pytest.raises(Error, match="not used here for mips") as error:
        command.board("mips")
    assert error.value.hint == "known architectures: amd64, arm64"
