# SPDX-License-Identifier: GPL-3.0-or-later
"""What Debian's kernels support, measured: the options of /boot/config-* behind the words of `Image-*`.

Read from the packages linux-image-* of 6.1.0-56 (bookworm) and 6.12.117+deb13 (trixie), and linux-base-* of
7.2.12+deb14 (forky), of both flavours and architectures. linux-config-6.1, -6.12 and -7.2, of 2 MB each, agree.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "virtio": ("VIRTIO_BLK", "VIRTIO_NET", "SCSI_VIRTIO"),
    "nvme": ("BLK_DEV_NVME",),
    "xen": ("XEN_BLKDEV_FRONTEND", "XEN_NETDEV_FRONTEND"),
    "hyperv": ("HYPERV_STORAGE", "HYPERV_NET"),
    "sdhci": ("MMC_SDHCI", "MMC_BLOCK"),
    "ena": ("ENA_ETHERNET",),
    "gve": ("GVE",),
}
"""Word of Image-Drivers -> the options that it requires, of disk and network."""

_DISC = ("BLK_DEV_SR", "ISO9660_FS")
CDROM: Final[Mapping[str, tuple[str, ...]]] = {
    "ide": ("ATA_PIIX", *_DISC),
    "sata": ("SATA_AHCI", *_DISC),
    "usb": ("USB_STORAGE", *_DISC),
    "virtio-scsi": ("SCSI_VIRTIO", *_DISC),
}
"""Word of Image-Cdrom -> the options that it requires."""

CONSOLE: Final[Mapping[str, tuple[str, ...]]] = {
    "ttyS": ("SERIAL_8250_CONSOLE",),
    "ttyAMA": ("SERIAL_AMBA_PL011_CONSOLE",),
}
"""Image-Console without its number -> the options that it requires, built in: a module is too late for a console."""

NO_MACHINE: Final = {("ide", "arm64")}
"""(word, architecture) for which a kernel has a driver, but no machine exists."""

OPTIONS: Final = {option for words in (DRIVERS, CDROM, CONSOLE) for needed in words.values() for option in needed}

_SMALL = {"MMC_SDHCI", "MMC_BLOCK", "USB_STORAGE"}
_X86 = {"SERIAL_AMBA_PL011_CONSOLE"}
LACKING: Final[Mapping[tuple[str, str, str], set[str]]] = {
    ("bookworm", "cloud", "amd64"): _SMALL | _X86 | {"SATA_AHCI"},
    ("bookworm", "cloud", "arm64"): _SMALL | {"SATA_AHCI"},
    ("trixie", "cloud", "amd64"): _SMALL | _X86,
    ("trixie", "cloud", "arm64"): _SMALL,
    ("forky", "cloud", "amd64"): _SMALL | _X86,
    ("forky", "cloud", "arm64"): _SMALL,
    ("bookworm", "any", "amd64"): _X86,
    ("bookworm", "any", "arm64"): set(),
    ("trixie", "any", "amd64"): _X86,
    ("trixie", "any", "arm64"): set(),
    ("forky", "any", "amd64"): _X86,
    ("forky", "any", "arm64"): set(),
}
"""(suite, flavour, architecture) -> the OPTIONS that the kernel lacks."""


def lacking(config: str) -> set[str]:
    """The OPTIONS that the text of a /boot/config-* does not set or, for a console, does not build in."""
    late = {option for needed in CONSOLE.values() for option in needed}
    found = dict(re.findall(r"(?m)^CONFIG_(\w+)=([ym])$", config))
    return {option for option in OPTIONS if found.get(option) not in (("y",) if option in late else ("y", "m"))}


def words(known: Mapping[str, tuple[str, ...]], suite: str, flavour: str, architecture: str) -> set[str]:
    """The words of a table above that a kernel supports."""
    return {
        word
        for word, needed in known.items()
        if not LACKING[suite, flavour, architecture] & set(needed) and (word, architecture) not in NO_MACHINE
    }
