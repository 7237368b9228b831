# SPDX-License-Identifier: GPL-3.0-or-later
"""Each image boots: with both firmwares, with a seed to a login by key, and in a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

from debian_cloud.host import checksums
from tests.built import metadata, nspawn, qemu, terminal
from tests.command import debian_cloud
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import World

BOOT = 1200
"""Seconds until a login prompt: on an idle machine without acceleration, it takes a twentieth of this."""


class Image(Protocol):
    """What these tests need of a built image."""

    @property
    def raw(self) -> Path: ...

    @property
    def qcow2(self) -> Path: ...


def failures(journal: str) -> list[str]:
    """The messages of systemd about failed units, also about those that it started again."""
    assert "Reached target" in journal
    return re.findall(r"^.*Failed (?:to start|with result).*$", journal, re.MULTILINE)


@pytest.mark.boots
@pytest.mark.xdist_group("boot ec2")
def test_ec2_is_entered_by_bios_and_reaches_a_login_prompt_by_uefi(
    images: Mapping[str, Image], tmp_path: Path
) -> None:
    raw = images["ec2"].raw
    with (
        qemu.documented(raw, "ec2-bios", tmp_path, wanted="-smbios") as (bios, user, key),
        qemu.boot(raw, "ec2-uefi", firmware="uefi") as uefi,
    ):
        bios.wait(r"\n\S+ login: ", BOOT)
        assert bios.ssh(user, key, "id", "-un", seconds=BOOT) == "root\n"
        uefi.wait(r"\n\S+ login: ", BOOT)
        assert "EFI v2" not in bios.console()
        # Secure Boot verified shim, shim verified grub, and grub the kernel.
        assert "secureboot: Secure boot enabled" in uefi.console()


@dataclass(frozen=True, slots=True)
class Started:
    """An instance that README's commands have started."""

    name: str

    def run(self, *command: str) -> str:
        """The output of a command on the instance; AssertionError if it fails."""
        done = debian_cloud("ssh", "--timeout", str(BOOT), self.name, *command)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for instances, which are ended at the end of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DEBIAN_CLOUD_ACCEL", qemu.accelerator())
    yield tmp_path / "state/debian-cloud"
    names = [one["name"] for one in json.loads(debian_cloud("instances", "--json").stdout)]
    assert not names or debian_cloud("terminate", *names).returncode == 0


def documented(image: Path, size: str = "") -> dict[str, list[str]]:
    """The commands of README's block by their verb; IMAGE.qcow2 is this file."""
    lines = qemu.block("debian-cloud run").replace("IMAGE.qcow2", str(image)).splitlines()
    found = [shlex.split(line)[1:] for line in lines if line.startswith("debian-cloud ")]
    return {
        words[0]: [*words, *((f"--disk={size}", f"--timeout={BOOT}") if words[0] == "run" else ())] for words in found
    }


@pytest.mark.xdist_group("boot generic")
def test_generic_with_a_seed_lets_its_key_in(images: Mapping[str, Image], state: Path) -> None:
    before = images["generic"].raw.stat().st_size
    commands = documented(images["generic"].qcow2, "4G")
    assert [*commands] == ["run", "ssh", "terminate"]
    done = debian_cloud(*commands["run"])
    assert done.returncode == 0, done.stderr
    assert "no signature of" in done.stderr
    assert "debian-cloud ssh try" in done.stdout
    run = Started("try").run
    # `ssh` without a command is a shell.
    assert "debian\n" in debian_cloud(*commands["ssh"], "id", "-un").stdout
    assert re.search("^status: done$", run("cloud-init", "status", "--wait", "--long", "||", "true"), re.M)
    assert "DataSourceNoCloud" in run("cat", "/run/cloud-init/result.json")
    # cloud-init accepts what it was told, and made the host key that was known before.
    assert "Valid schema" in run("sudo", "cloud-init", "schema", "--system", "2>&1")
    (known,) = {line.split()[2] for line in (state / "instances/try/known_hosts").read_text().splitlines()}
    assert known in run("cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    assert run("hostname") == "try\n"
    assert " root=PARTUUID=" in run("cat", "/proc/cmdline")
    assert run("systemctl", "is-system-running", "--wait", "||", "systemctl", "--failed") == "running\n"
    assert failures(run("sudo", "journalctl", "--boot", "--output=cat")) == []
    assert int(run("df", "--block-size=1", "--output=size", "/").split()[-1]) > before
    # update-grub on the machine writes the same file as the builder, which runs without it.
    assert "warning" not in run("sudo", "grub-mkconfig", "--output=/tmp/grub.cfg", "2>&1")
    assert run("sudo", "diff", "/boot/grub/grub.cfg", "/tmp/grub.cfg", "||", "true") == ""
    assert debian_cloud(*commands["terminate"]).returncode == 0
    assert debian_cloud("instances").stdout == ""


@pytest.mark.boots
def test_the_same_bytes_configure_themselves_by_ec2_s_metadata(images: Mapping[str, Image], tmp_path: Path) -> None:
    """`generic`, which a seed configures above: the claim is that it is the same image everywhere."""
    raw = images["generic"].raw
    before = checksums.digest(raw, ("sha256",)).hashes
    alone = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--net")
    words: tuple[str | Path, ...] = (*alone, sys.executable, "-m", "tests.built.metadata", raw, tmp_path, str(BOOT))
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, timeout=3 * BOOT)
    console = (tmp_path / "console").read_text("utf-8", "replace")[-4000:]
    assert done.returncode == 0, f"{done.stderr}\n{console}"
    found = json.loads(done.stdout)
    assert found["user"] == "debian\n"
    assert "DataSourceEc2" in found["datasource"]
    assert found["instance"] == f"{metadata.INSTANCE}\n"
    assert re.search("^status: done$", found["status"], re.M)
    assert found["asked"] == "it was read\n"
    assert checksums.digest(raw, ("sha256",)).hashes == before


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-nspawn needs root")
def test_nocloud_asks_for_a_password_and_is_entered_by_it(images: Mapping[str, Image], tmp_path: Path) -> None:
    """Tested in a container, because the same question and login take minutes on a machine's console."""
    nspawn.extract(images["nocloud"].raw, tmp_path / "tree")
    boot = "systemd-nspawn --boot --directory=tree"
    programs = {"systemd-nspawn": nspawn.as_documented("nocloud-login", "--bind-ro=/dev/null:/etc/fstab")}
    with terminal.paste(boot, "nocloud-login", tmp_path, programs) as console:
        _answer_and_enter(console, 240)


@pytest.mark.boots
def test_nocloud_is_entered_on_its_console_as_documented(images: Mapping[str, Image], tmp_path: Path) -> None:
    """README's command for `ec2` works without -smbios."""
    (tmp_path / "IMAGE.raw").symlink_to(images["nocloud"].raw)
    block = re.sub(r" *\\\n +-smbios .*", "", qemu.block("-smbios"))
    assert "smbios" not in block
    programs = {"qemu-system-x86_64": qemu.as_documented(qemu.free_port())}
    with terminal.paste(block, "nocloud-console", tmp_path, programs) as console:
        _answer_and_enter(console, BOOT)


def _answer_and_enter(console: terminal.Terminal, seconds: float) -> None:
    console.answer("Press any key to proceed", "", seconds)
    console.answer("new root password.*: ", terminal.PASSWORD)
    console.answer("new root password again.*: ", terminal.PASSWORD)
    console.log_in("root", seconds)
    _works(console)


def _works(console: terminal.Terminal) -> None:
    assert console.run("id -un") == "root"
    assert console.run("systemctl is-system-running --wait", 120) == "running"
    assert failures(console.run("journalctl --boot --output=cat --no-pager | cat", 120)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-nspawn needs root")
def test_the_container_is_unpacked_as_documented_boots_and_is_entered(world: World, tmp_path: Path) -> None:
    (image,) = (world.folder / "images").glob("*-container-*.tar.xz")
    (tmp_path / "IMAGE.tar.xz").symlink_to(image)
    programs = {"sudo": '#!/bin/sh\nexec "$@"\n', "systemd-nspawn": nspawn.as_documented("container-login")}
    with terminal.paste(qemu.block("passwd"), "container-passwd", tmp_path, programs) as shell:
        shell.answer("New password: ", terminal.PASSWORD, 120)
        shell.answer("Retype new password: ", terminal.PASSWORD)
        assert shell.process.wait(60) == 0
    with terminal.paste(qemu.block("--boot"), "container-login", tmp_path, programs) as console:
        console.log_in("root", 240)
        _works(console)
        console.type("poweroff")
        assert console.process.wait(120) == 0
