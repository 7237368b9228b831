# SPDX-License-Identifier: GPL-3.0-or-later
"""vmdb2, by which Debian's images for the Raspberry Pi are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bench.mirror import Mirror
from bench.peers import DISK, installed, run

NAME = "vmdb2"
PACKAGE = "vmdb2 debootstrap dosfstools qemu-utils kpartx parted"
NOTE = "partitions, BIOS and UEFI boot by GRUB; it installs eatmydata besides"

_BOOT = """\
disk=/dev/$(basename "$(findmnt -n -o SOURCE --target "$ROOT")" | sed 's/p[0-9]*$//')
chroot "$ROOT" grub-install --target=i386-pc "$disk"
chroot "$ROOT" grub-install --target=x86_64-efi --no-nvram --force-extra-removable
chroot "$ROOT" update-grub
"""


def version() -> str:
    """Of vmdb2."""
    return installed("vmdb2")


def build(workdir: Path, packages: Sequence[str], mirror: Mirror) -> Path:
    """A disk by way of a loop device."""
    disk = "{{ output }}"
    sources = {
        "create-file": "/etc/apt/sources.list",
        "contents": "".join(f"{line}\n" for line in mirror.lines()),
    }
    steps = [
        {"mkimg": disk, "size": str(DISK)},
        {"mklabel": "gpt", "device": disk},
        {"mkpart": "primary", "device": disk, "start": "1MiB", "end": "2MiB", "tag": "bios"},
        {"mkpart": "primary", "device": disk, "start": "2MiB", "end": "126MiB", "tag": "esp", "fs-type": "fat32"},
        {"mkpart": "primary", "device": disk, "start": "126MiB", "end": "100%", "tag": "root", "fs-type": "ext4"},
        {"set_part_flag": disk, "tag": "bios", "flag": "bios_grub"},
        {"set_part_flag": disk, "tag": "esp", "flag": "esp"},
        {"kpartx": disk},
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
        {"mount": "esp", "mount-on": "root", "dirname": "/boot/efi"},
        {"virtual-filesystems": "root"},
        sources,
        {"apt": "install", "tag": "root", "packages": list(packages), "recommends": False},
        {"fstab": "root"},
        {"shell": _BOOT, "root-fs": "root"},
    ]
    # JSON is YAML.
    (workdir / "disk.vmdb").write_text(json.dumps({"steps": steps}))
    run(["vmdb2", "--output", "disk.raw", "--log", "stderr", "disk.vmdb"], workdir)
    return workdir / "disk.raw"
