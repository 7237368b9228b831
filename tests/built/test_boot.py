# SPDX-License-Identifier: GPL-3.0-or-later
"""Each image boots: by both firmwares, with a seed to a login by key, and in a container."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.built import nspawn, qemu

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import World

BOOT = 600
"""Seconds to a login prompt: a tenth of it without acceleration, on a machine that does nothing else."""

# A machine without acceleration uses one processor, for minutes.
pytestmark = pytest.mark.beside


class Image(Protocol):
    """What these tests need of a built image."""

    @property
    def raw(self) -> Path: ...


def failures(journal: str) -> list[str]:
    """What systemd says of units that failed, also of those that it started again afterwards."""
    assert "Reached target" in journal
    return re.findall(r"^.*Failed (?:to start|with result).*$", journal, re.MULTILINE)


def test_ec2_is_entered_by_bios_and_reaches_a_login_prompt_by_uefi(
    images: Mapping[str, Image], tmp_path: Path
) -> None:
    raw = images["ec2"].raw
    with (
        qemu.documented(raw, "ec2-bios", tmp_path, wanted="-smbios") as (bios, user, key),
        qemu.boot(raw, "ec2-uefi", firmware="uefi") as uefi,
    ):
        bios.wait(r"\n\S+ login: ", BOOT)
        assert bios.ssh(user, key, "id", "-un", seconds=240) == "root\n"
        uefi.wait(r"\n\S+ login: ", BOOT)
        assert "EFI v2" not in bios.console()
        # The firmware trusted shim, shim grub, and grub the kernel.
        assert "secureboot: Secure boot enabled" in uefi.console()


def test_generic_with_a_seed_lets_its_key_in(images: Mapping[str, Image], tmp_path: Path) -> None:
    raw = images["generic"].raw
    before = raw.stat().st_size
    with qemu.documented(raw, "generic-seed", tmp_path, wanted="CIDATA") as (machine, user, key):
        machine.wait(r"Cloud-init v\. \S+ finished at .* Datasource DataSourceNoCloud", BOOT)
        assert "EFI v2" not in machine.console()

        def run(*command: str, seconds: float = 240) -> str:
            return machine.ssh(user, key, *command, seconds=seconds)

        run("true")
        assert run("hostname") == "try\n"
        assert " root=PARTUUID=" in run("cat", "/proc/cmdline")
        assert run("systemctl", "is-system-running", "--wait", "||", "systemctl", "--failed") == "running\n"
        assert failures(run("sudo", "journalctl", "--boot", "--output=cat")) == []
        assert int(run("df", "--block-size=1", "--output=size", "/").split()[-1]) > before
        # What update-grub writes on the machine is what the builder wrote without one.
        assert "warning" not in run("sudo", "grub-mkconfig", "--output=/tmp/grub.cfg", "2>&1")
        assert run("sudo", "diff", "/boot/grub/grub.cfg", "/tmp/grub.cfg", "||", "true") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-nspawn needs root")
def test_nocloud_reaches_multi_user_in_a_container(images: Mapping[str, Image], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    nspawn.extract(images["nocloud"].raw, tree)
    # Its first boot asks for root's password; this is the answer.
    answer = {"passwd.plaintext-password.root": "a secret"}
    with nspawn.boot(tree, "nocloud-nspawn", credentials=answer) as container:
        container.wait("multi-user.target", 240)
        assert re.search(r"^root:\$", (tree / "etc/shadow").read_text("ascii"), re.MULTILINE)
        assert container.run("systemctl", "is-system-running", "--wait").stdout == "running\n"
        assert failures(container.run("journalctl", "--boot", "--output=cat").stdout) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-nspawn needs root")
def test_the_container_is_unpacked_as_documented_and_boots(world: World, tmp_path: Path) -> None:
    (image,) = (world.folder / "images").glob("*-container-*.tar.xz")
    (tmp_path / "IMAGE.tar.xz").symlink_to(image)
    (tmp_path / "bin").mkdir()
    for name, script in (("sudo", 'exec "$@"'), ("systemd-nspawn", 'echo "$@" >>nspawn')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(["sh", "-eu"], input=qemu.block("nspawn"), text=True, cwd=tmp_path, env=environment, check=True)
    # Here there is no systemd to register it with, and it has no network.
    assert (tmp_path / "nspawn").read_text() == "--boot --directory=tree\n"
    with nspawn.boot(tmp_path / "tree", "container-nspawn") as container:
        container.wait("multi-user.target", 240)
        assert container.run("systemctl", "is-system-running", "--wait").stdout == "running\n"
        assert failures(container.run("journalctl", "--boot", "--output=cat").stdout) == []
