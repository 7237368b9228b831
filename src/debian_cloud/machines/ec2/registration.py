# SPDX-License-Identifier: GPL-3.0-or-later
"""How an image is registered with EC2: from its signed record alone. Pure.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error

if TYPE_CHECKING:
    from debian_cloud.image.index import ImageRecord

DATASOURCE: Final = "Ec2"
"""The datasource of cloud-init that reads EC2's metadata."""
GIB: Final = 2**30
ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "arm64"}
"""Debian architecture -> EC2's."""
_BOOT_MODES: Final = ("legacy-bios", "uefi", "uefi-preferred")
_VOLUMES: Final = ("gp2", "gp3", "io1", "io2", "st1", "sc1", "standard")
_NAME: Final = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")


def check(record: ImageRecord) -> None:
    """Raise Error if EC2 cannot have the image; its record says what it needs."""
    machine = record.machine
    if not record.virtual_size or record.id.architecture not in ARCHITECTURES:
        raise Error(
            f"{record.stem} is not a disk for a machine of EC2",
            f"EC2 has {' and '.join(sorted(ARCHITECTURES))}",
            USAGE,
        )
    if DATASOURCE not in machine.datasources:
        raise Error(
            f"{record.stem} does not read EC2's metadata, so nobody could log in to it",
            "use the configuration ec2",
            USAGE,
        )
    for value, known in ((machine.boot_mode, _BOOT_MODES), (machine.volume, ("", *_VOLUMES))):
        if value not in known:
            raise Error(
                f"{record.stem} has {value or 'nothing'}, but EC2 knows {', '.join(filter(None, known))}",
                "use a newer image, or install a newer debian-cloud",
            )
    if not machine.root_device:
        raise Error(f"the record of {record.stem} names no root device", "use a newer image")
    if not _NAME.fullmatch(record.stem):
        raise Error(f"{record.stem} cannot be the name of an image in EC2", "at most 128 characters")


def size(record: ImageRecord) -> int:
    """The GiB of a volume that the disk fits in."""
    return -(-record.virtual_size // GIB)


def parameters(record: ImageRecord, snapshot: str) -> dict[str, object]:
    """The parameters of RegisterImage for a snapshot of the image's disk, without tags.

    The architecture and the kind of virtualization have old defaults, so they are given.
    """
    machine = record.machine
    ebs: dict[str, object] = {"SnapshotId": snapshot, "VolumeSize": size(record), "DeleteOnTermination": True}
    if machine.volume:
        ebs["VolumeType"] = machine.volume
    found: dict[str, object] = {
        "Name": record.stem,
        "Description": f"Debian {record.id.suite}, {record.id.config}, {record.id.serial}",
        "Architecture": ARCHITECTURES[record.id.architecture],
        "VirtualizationType": "hvm",
        "BootMode": machine.boot_mode,
        "RootDeviceName": machine.root_device,
        "BlockDeviceMappings": [{"DeviceName": machine.root_device, "Ebs": ebs}],
        "EnaSupport": "ena" in machine.drivers,
        "SriovNetSupport": "simple",
    }
    if machine.imds:
        found["ImdsSupport"] = machine.imds
    # EC2 has a TPM only for images that boot by UEFI always.
    if machine.tpm and machine.boot_mode == "uefi":
        found["TpmSupport"] = machine.tpm
    return found
