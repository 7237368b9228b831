# SPDX-License-Identifier: GPL-3.0-or-later
"""vmdb2, by which Debian's images for the Raspberry Pi are made."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.mirror import Mirror
from bench.peers import BOOT, DISK, installed, run, script

NAME = "vmdb2"
PACKAGE = "vmdb2 debootstrap dosfstools mtools parted"
NOTE = "partitions, BIOS and UEFI boot by GRUB; it installs eatmydata besides"

_SAID = 2000
"""Characters of a log before its first error that are shown: vmdb2 itself says only that a program failed."""


def version() -> str:
    """Of vmdb2."""
    return installed("vmdb2")


def build(workdir: Path, packages: Sequence[str], mirror: Mirror) -> Path:
    """A disk by way of a loop device of our own: vmdb2's needs the device mapper, which not every kernel has."""
    disk = workdir / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(DISK)
    attach = ("losetup", "--partscan", "--find", "--show", disk)
    device = subprocess.run(attach, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    boot = script(workdir / "boot", BOOT)
    steps = [
        {"mklabel": "gpt", "device": device},
        {"mkpart": "primary", "device": device, "start": "1MiB", "end": "2MiB", "tag": "bios"},
        {"mkpart": "primary", "device": device, "start": "2MiB", "end": "126MiB", "tag": "esp", "fs-type": "fat32"},
        {"mkpart": "primary", "device": device, "start": "126MiB", "end": "100%", "tag": "root", "fs-type": "ext4"},
        {"set_part_flag": device, "tag": "bios", "flag": "bios_grub"},
        {"set_part_flag": device, "tag": "esp", "flag": "esp"},
        {"mkfs": "vfat", "partition": "esp"},
        {"mkfs": "ext4", "partition": "root"},
        {"mount": "root", "zerofree": False},
        {
            "debootstrap": mirror.suite,
            "mirror": mirror.main,
            "target": "root",
            "variant": "minbase",
            "keyring": mirror.keyring,
        },
        {"virtual-filesystems": "root"},
        {"create-file": "/etc/apt/sources.list", "contents": "".join(f"{line}\n" for line in mirror.lines())},
        {"apt": "install", "tag": "root", "packages": list(packages), "recommends": False},
        {"fstab": "root"},
        {"shell": f'{boot} "$ROOT" {device} {device}p2', "root-fs": "root"},
    ]
    # JSON is YAML.
    (workdir / "disk.vmdb").write_text(json.dumps({"steps": steps}))
    try:
        run(["vmdb2", "--image", device, "--log", "disk.log", "disk.vmdb"], workdir)
    except subprocess.CalledProcessError:
        print((workdir / "disk.log").read_text().partition(" ERROR ")[0][-_SAID:])
        raise
    finally:
        subprocess.run(["losetup", "--detach", device], check=False)
    return disk
