# SPDX-License-Identifier: GPL-3.0-or-later
"""debos, of Apertis; without a virtual machine around it, as there may be no KVM."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.mirror import Mirror
from bench.peers import BOOT, DISK, installed, run, script

NAME = "debos"
PACKAGE = "debos debootstrap dosfstools mtools e2fsprogs parted udev systemd-container"
NOTE = "partitions, BIOS and UEFI boot by GRUB; without its virtual machine (--disable-fakemachine), with udev"

_BOOT = """\
#!/bin/sh
set -eu
disk=$(findmnt -n -o SOURCE --mountpoint "$ROOTDIR" | sed 's/p[0-9]*$//')
exec "$RECIPEDIR/boot" "$ROOTDIR" "$disk" "${disk}p2"
"""


def version() -> str:
    """Of debos."""
    return installed("debos")


def build(workdir: Path, packages: Sequence[str], mirror: Mirror) -> Path:
    """A disk by way of a loop device."""
    sources = workdir / "overlay/etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text("".join(f"{line}\n" for line in mirror.lines()))
    script(workdir / "boot", BOOT)
    script(workdir / "boot.sh", _BOOT)
    partitions = [
        {"name": "bios", "fs": "none", "start": "1MiB", "end": "2MiB", "flags": ["bios_grub"]},
        {"name": "esp", "fs": "vfat", "start": "2MiB", "end": "126MiB", "flags": ["boot", "esp"]},
        {"name": "root", "fs": "ext4", "start": "126MiB", "end": "100%"},
    ]
    mounts = [{"mountpoint": "/", "partition": "root"}]
    actions = [
        {
            "action": "debootstrap",
            "suite": mirror.suite,
            "mirror": mirror.main,
            "variant": "minbase",
            "components": ["main"],
            "keyring-file": mirror.keyring,
        },
        {"action": "overlay", "source": "overlay"},
        {"action": "apt", "recommends": False, "packages": list(packages)},
        {
            "action": "image-partition",
            "imagename": "disk.raw",
            "imagesize": str(DISK),
            "partitiontype": "gpt",
            "mountpoints": mounts,
            "partitions": partitions,
        },
        {"action": "filesystem-deploy"},
        {"action": "run", "chroot": False, "script": "boot.sh"},
    ]
    # JSON is YAML.
    (workdir / "disk.yaml").write_text(json.dumps({"architecture": "amd64", "actions": actions}))
    # It waits for udev for ever, and gives its container a directory that udev makes. A socket alone is no udev: that
    # of the round before has ended with its namespace.
    ping = ("udevadm", "control", "--ping", "--timeout=10")
    if subprocess.run(ping, capture_output=True, check=False).returncode:
        run(["/usr/lib/systemd/systemd-udevd", "--daemon"], workdir)
    Path("/dev/disk").mkdir(exist_ok=True)
    run(["debos", "--disable-fakemachine", "--artifactdir", workdir, "disk.yaml"], workdir)
    return workdir / "disk.raw"
