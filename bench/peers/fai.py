# SPDX-License-Identifier: GPL-3.0-or-later
"""fai-diskimage, by which Debian's official cloud images are made, with a configuration of our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.mirror import Mirror
from bench.peers import BOOT, DISK, installed, run, script

NAME = "fai-diskimage"
PACKAGE = "fai-server fai-setup-storage debootstrap dosfstools mtools qemu-utils udev"
NOTE = "a minimal configuration of the bench's own, not the cloud team's: the packages, BIOS and UEFI boot by GRUB"

_CLASS = "BENCH"
_DISK = """\
disk_config disk1 disklabel:gpt-bios bootable:1 fstabkey:uuid align-at:1M
primary - 124M vfat -
primary / 1G- ext4 rw,errors=remount-ro
"""
_BOOT = """\
#!/bin/sh
set -eu
exec "$FAI/boot" "${FAI_ROOT%/}" "$BOOT_DEVICE" "${BOOT_DEVICE}p1"
"""


def version() -> str:
    """Of FAI."""
    return installed("fai-server")


def build(workdir: Path, packages: Sequence[str], mirror: Mirror) -> Path:
    """A disk by way of a loop device."""
    space, settings = workdir / "space", workdir / "settings"
    variables = {
        # All packages in one run of apt: FAI would make runs of 99.
        "MAXPACKAGES": "9999",
        "FAI_DEBOOTSTRAP": f'"{mirror.suite} {mirror.main}"',
        "FAI_DEBOOTSTRAP_OPTS": f'"--variant=minbase --keyring={mirror.keyring}"',
    }
    files = {
        space / f"class/{_CLASS}.var": "".join(f"{name}={value}\n" for name, value in variables.items()),
        space / f"disk_config/{_CLASS}": _DISK,
        space / f"package_config/{_CLASS}": f"PACKAGES install-norec\n{' '.join(packages)}\n",
        space / f"files/etc/apt/sources.list/{_CLASS}": "".join(f"{line}\n" for line in mirror.lines()),
        space / f"debconf/{_CLASS}": "",
        settings / "fai.conf": "",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    script(space / f"scripts/{_CLASS}/10-boot", _BOOT)
    script(space / "boot", BOOT)
    made = ("fai-diskimage", "--verbose", "--hostname", "debian", "--class", _CLASS, "--size", str(DISK))
    run([*made, "--cfdir", settings, "--cspace", f"file://{space}", "disk.raw"], workdir)
    return workdir / "disk.raw"
