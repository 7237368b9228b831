# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk: partition table, offsets and identities, all derived from the image's name."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from typing import Final

from debian_cloud.errors import Error

SECTOR: Final = 512
"""Bytes of a sector, in which a partition table counts every offset."""
MIB: Final = 2**20
GIB: Final = 2**30
BLOCK: Final = 4096
"""Bytes of a block of the root file system."""
INODE_SIZE: Final = 256
INODE_RATIO: Final = 16384
"""Bytes of the root file system for each of its inodes."""

# Discoverable Partitions Specification (UAPI group), GUID of a root file system by architecture.
ROOT_TYPES = {
    "amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}
# UEFI specification 2.10, 5.3.3, and GRUB's manual, "BIOS installation".
ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_TYPE = "21686148-6449-6e6f-744e-656564454649"

ESP: Final = "EFI system partition: "
"""Prefix of that partition's paths in a verdict."""

# Nothing outside may depend on this value: it only makes our UUIDs different from those of others.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "debian-cloud")

_BIOS_START, _BIOS_SIZE = 1 * MIB, 3 * MIB
_ESP_START, _ESP_SIZE = 4 * MIB, 124 * MIB
_ROOT_START = 128 * MIB
_TAIL = 1 * MIB
"""Bytes kept free at the end of the disk, for the second copy of the partition table."""

# As mke2fs(8) creates it: blocks of a group, bytes of its descriptor, and blocks of the journal by the number of all
# blocks (e2fsprogs, ext2fs_default_journal_size).
_GROUP = 32768
_DESCRIPTOR = 64
_JOURNALS = (
    *((2**15, 2**10), (2**18, 2**12), (2**19, 2**13), (2**22, 2**14)),
    *((2**23, 2**15), (2**24, 2**16), (2**25, 2**17)),
)
_LARGEST_JOURNAL = 2**18


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; start and size in bytes."""

    number: int
    name: str
    start: int
    size: int
    type: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A GPT disk; size in bytes. `root_uuid` and `hash_seed` are the root file system's."""

    size: int
    uuid: str
    bios: Partition | None
    esp: Partition
    root: Partition
    root_uuid: str
    hash_seed: str
    esp_serial: str

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """All partitions, in order of their place on the disk."""
        return (*((self.bios,) if self.bios else ()), self.esp, self.root)


def layout(stem: str, size: int, architecture: str, *, bios: bool) -> Disk:
    """The disk of the image that `stem` names: the same name gives the same disk."""
    if architecture not in ROOT_TYPES:
        raise Error(f"no disk layout for architecture {architecture}", f"known: {', '.join(sorted(ROOT_TYPES))}")
    if size < _ROOT_START + 128 * MIB or size % MIB:
        raise Error(f"a disk of {size} bytes is too small, or not in MiB", "set Image-Size to 512M or more")

    def identity(part: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{stem}/{part}"))

    return Disk(
        size=size,
        uuid=identity("disk"),
        bios=Partition(14, "bios", _BIOS_START, _BIOS_SIZE, BIOS_TYPE, identity("bios")) if bios else None,
        esp=Partition(15, "esp", _ESP_START, _ESP_SIZE, ESP_TYPE, identity("esp")),
        root=Partition(
            1, "root", _ROOT_START, size - _ROOT_START - _TAIL, ROOT_TYPES[architecture], identity("root")
        ),
        root_uuid=identity("root file system"),
        hash_seed=identity("root hash seed"),
        # The serial number of a FAT volume has 32 bits.
        esp_serial=identity("esp file system")[:8],
    )


def needed(installed: int, packages: int) -> int:
    """Maximum bytes that an image of `packages` packages takes in its root file system.

    `installed` is the sum of their Installed-Size in bytes. That counts in KiB what takes complete blocks, and does
    not count what is generated when a package is installed: byte code, indexes, the initrd. The files of the shipped
    images take 1.21 to 1.25 times that sum.
    """
    # dpkg's database has about 35 KiB for each package; an initrd, GRUB's modules and udev's index have 40 to 60 MiB.
    return installed * 5 // 4 + packages * 64 * 1024 + 64 * MIB


def room(size: int) -> int:
    """Bytes of a disk that are left for files: without boot areas, ext4's own structures, and its reserved blocks."""
    blocks = max(0, size - _ROOT_START - _TAIL) // BLOCK
    groups = -(-blocks // _GROUP)
    descriptors = -(-groups * _DESCRIPTOR // BLOCK)
    # Blocks beside the descriptors are reserved for those of a file system a thousand times as large.
    copies = (descriptors + min(1024, descriptors * 1024) + 1) * _copies(groups)
    inodes = -(-blocks * BLOCK // INODE_RATIO) * INODE_SIZE // BLOCK + groups
    journal = next((journal for below, journal in _JOURNALS if blocks < below), _LARGEST_JOURNAL)
    reserve = blocks // 20
    return (blocks - copies - inodes - 2 * groups - journal - reserve) * BLOCK


def least(needed: int) -> int:
    """The smallest size of a disk, in bytes and a multiple of GiB, that has room for `needed` bytes."""
    return next(size for size in itertools.count(GIB, GIB) if room(size) >= needed)


def _copies(groups: int) -> int:
    """The number of groups with a copy of the superblock: the first two, and each of a power of 3, 5 or 7."""
    powers: set[int] = {base**power for base in (3, 5, 7) for power in range(1, groups.bit_length())}
    return min(2, groups) + sum(power < groups for power in powers)


def table(disk: Disk) -> str:
    """The partition table as input for sfdisk(8)."""
    lines = ["label: gpt", f"label-id: {disk.uuid}", "unit: sectors", f"sector-size: {SECTOR}", ""]
    lines += [
        f"{part.number} : start={part.start // SECTOR}, size={part.size // SECTOR}, "
        f'type={part.type}, uuid={part.uuid}, name="{part.name}"'
        for part in sorted(disk.partitions, key=lambda part: part.number)
    ]
    return "\n".join(lines) + "\n"
