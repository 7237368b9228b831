# SPDX-License-Identifier: GPL-3.0-or-later
"""fai-diskimage, by which Debian's official cloud images are made, with a configuration of our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.mirror import Mirror
from bench.peers import DISK, installed, run

NAME = "fai-diskimage"
PACKAGE = "fai-server fai-setup-storage debootstrap dosfstools qemu-utils kpartx"
NOTE = "a minimal configuration of the bench's own, not the cloud team's: the packages, BIOS and UEFI boot by GRUB"

_CLASS = "BENCH"
_DISK = """\
disk_config disk1 disklabel:gpt-bios fstabkey:uuid align-at:1M
primary /boot/efi 124M vfat umask=0077
primary / 1G- ext4 rw,errors=remount-ro
"""
_BOOT = """\
#!/bin/sh
set -eu
$ROOTCMD grub-install --target=i386-pc "$BOOT_DEVICE"
$ROOTCMD grub-install --target=x86_64-efi --no-nvram --force-extra-removable
$ROOTCMD update-grub
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
        space / f"scripts/{_CLASS}/10-boot": _BOOT,
        space / f"debconf/{_CLASS}": "",
        settings / "fai.conf": "",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (space / f"scripts/{_CLASS}/10-boot").chmod(0o755)
    made = ("fai-diskimage", "--verbose", "--hostname", "debian", "--class", _CLASS, "--size", str(DISK))
    run([*made, "--cfdir", settings, "--cspace", f"file://{space}", "disk.raw"], workdir)
    return workdir / "disk.raw"
