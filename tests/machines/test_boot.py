# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances that boot: told by a seed or by the firmware, entered by their key, stopped, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.built import qemu
from tests.command import debian_cloud

if TYPE_CHECKING:
    from tests.conftest import World

BOOT = 1200
"""Seconds until an answer: on an idle machine without acceleration, it takes a tenth of this."""
USER_DATA = "#cloud-config\nwrite_files: [{path: /etc/told, content: it was told}]\n"


@pytest.fixture
def state(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for instances of a user who has an archive of his own; they are ended at the end of the test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(world.folder / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DEBIAN_CLOUD_ACCEL", qemu.accelerator())
    yield tmp_path / "state/debian-cloud"
    if names := [one["name"] for one in instances()]:
        done("terminate", *names)


def instances() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(debian_cloud("instances", "--json").stdout)
    return found


def states() -> dict[str, str]:
    return {one["name"]: one["state"] for one in instances()}


def done(*words: str | Path) -> str:
    """The output of a command; AssertionError with all that it said if it fails."""
    found = debian_cloud(*words)
    assert found.returncode == 0, f"{words}: {found.returncode}\n{found.stdout}{found.stderr}"
    return found.stdout


def on(name: str, *command: str) -> str:
    return done("ssh", "--timeout", str(BOOT), name, *command)


def until(name: str, wanted: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (now := states()[name]) != wanted:
        assert time.monotonic() < end, f"{name} is {now}, and not {wanted}"
        time.sleep(1)


@pytest.mark.boots
@pytest.mark.xdist_group("boot instances")
def test_two_instances_from_their_start_to_their_end(state: Path, tmp_path: Path) -> None:
    (tmp_path / "told").write_text(USER_DATA)
    done(
        "run", "generic", "--name=a", f"--user-data={tmp_path / 'told'}", "--persistent-disk=data:64M", "--expires=8h"
    )
    done("run", "generic", "--name=b", "--boot=secure", "--disk=4G")
    known = {name: (state / "instances" / name / "known_hosts").read_text() for name in "ab"}
    assert on("a", "cat", "/etc/told") == "it was told"
    assert on("a", "systemctl", "show", "--value", "--property=NextElapseUSecRealtime", "debian-cloud-expiry.timer")
    on("a", "sudo", "mkfs.ext4", "-q", "-L", "kept", "/dev/disk/by-id/virtio-data")
    assert "Secure boot enabled" in on("b", "sudo", "journalctl", "--boot", "--output=cat", "--grep=ecure.boot")
    boots = {name: on(name, "cat", "/proc/sys/kernel/random/boot_id") for name in "ab"}
    # One is asked to power off, the other one's QEMU is killed.
    done("stop", "a", "--timeout", "300")
    os.kill(int((state / "instances/b/pid").read_text()), signal.SIGKILL)
    until("b", "stopped", 10)
    assert states() == {"a": "stopped", "b": "stopped"}
    done("start", "a", "b")
    for name in "ab":
        assert on(name, "cat", "/proc/sys/kernel/random/boot_id") != boots[name]
        assert (state / "instances" / name / "known_hosts").read_text() == known[name]
    assert "powers itself off at" in done("extend", "a", "1m")
    until("a", "stopped", 300)
    assert done("terminate", "--expired") == "a is terminated\n"
    # The disk is another instance's now.
    done("stop", "b", "--timeout", "300")
    done("run", "generic", "--name=c", "--persistent-disk=data", "--throw-away")
    assert on("c", "sudo", "blkid", "-s", "LABEL", "-o", "value", "/dev/disk/by-id/virtio-data") == "kept\n"
    done("stop", "c", "--timeout", "300")
    assert states() == {"b": "stopped"}


@pytest.mark.boots
@pytest.mark.xdist_group("boot instances")
def test_an_image_of_a_cloud_lets_root_in_by_the_firmware(state: Path) -> None:
    done("run", "ec2", "--name=e")
    assert on("e", "id", "-un") == "root\n"
    assert on("e", "systemctl", "is-system-running", "--wait", "||", "systemctl", "--failed") == "running\n"
    assert done("terminate", "e") == "e is terminated\n"
