# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk: partition table, offsets and identities, all derived from the image's name."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from .errors import Error

SECTOR: Final = 512
"""Bytes; every offset in a partition table counts in these."""
MIB: Final = 2**20

# Discoverable Partitions Specification (UAPI group), GUID of a root file system by architecture.
ROOT_TYPES = {
    "amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}
# UEFI specification 2.10, 5.3.3, and GRUB's manual, "BIOS installation".
ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_TYPE = "21686148-6449-6e6f-744e-656564454649"

# Nothing outside may depend on this value; it only keeps our names apart from others'.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "debian-cloud")

_BIOS_START, _BIOS_SIZE = 1 * MIB, 3 * MIB
_ESP_START, _ESP_SIZE = 4 * MIB, 124 * MIB
_ROOT_START = 128 * MIB
_TAIL = 1 * MIB
"""Kept free at the end, for the second copy of the partition table."""


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
        """All partitions, by their place on the disk."""
        return (*((self.bios,) if self.bios else ()), self.esp, self.root)


def layout(stem: str, size: int, architecture: str, *, bios: bool) -> Disk:
    """The disk of the image that `stem` names: the same name gives the same disk."""
    if architecture not in ROOT_TYPES:
        raise Error(f"no disk layout for architecture {architecture}", f"known are: {', '.join(sorted(ROOT_TYPES))}")
    if size < _ROOT_START + 128 * MIB or size % MIB:
        raise Error(f"a disk of {size} bytes is too small or not whole MiB", "set Image-Size to 512M or more")

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
        # A FAT volume has 32 bits of identity.
        esp_serial=identity("esp file system")[:8],
    )


def table(disk: Disk) -> str:
    """The partition table as sfdisk(8) reads it."""
    lines = ["label: gpt", f"label-id: {disk.uuid}", "unit: sectors", f"sector-size: {SECTOR}", ""]
    lines += [
        f"{part.number} : start={part.start // SECTOR}, size={part.size // SECTOR}, "
        f'type={part.type}, uuid={part.uuid}, name="{part.name}"'
        for part in sorted(disk.partitions, key=lambda part: part.number)
    ]
    return "\n".join(lines) + "\n"
