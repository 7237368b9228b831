# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of images for tests that start no guest, and the disk of one that has nothing on it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from debian_cloud.image.id import ImageId
from debian_cloud.image.machine import Machine
from debian_cloud.machines.drivers.qemu import Local
from debian_cloud.machines.qemu import state
from debian_cloud.machines.qemu.state import Kept
from debian_cloud.machines.source import Source
from debian_cloud.machines.target import Target
from tests.samples import RECORD

if TYPE_CHECKING:
    from pathlib import Path

    from debian_cloud.image.index import ImageRecord

SIZE = 2**26
MACHINE = Machine(
    firmware=("bios", "uefi"), console="ttyS0", memory=2**28, user="debian", datasources=("NoCloud", "None")
)
OF_EC2 = Machine(
    firmware=("bios", "uefi"),
    boot_mode="uefi-preferred",
    root_device="/dev/xvda",
    drivers=("ena", "nvme"),
    console="ttyS0",
    imds="v2.0",
    tpm="v2.0",
    volume="gp3",
    memory=2**28,
    user="admin",
    datasources=("Ec2", "None"),
)
"""The machine of the configuration ec2."""

KEPT = Kept(
    name="try",
    id="try-1a2b",
    image="debian-13-generic-amd64-20261120.0",
    architecture="amd64",
    memory=2**30,
    cpus=2,
    boot="bios",
    code="",
    code_format="",
    way="seed",
    user="debian",
    disks=(),
    largest=2**34,
    created=1796079594,
    expires=0,
    throw_away=False,
)
"""What is kept of an instance."""


def record(config: str = "generic", architecture: str = "amd64", machine: Machine = MACHINE) -> ImageRecord:
    of = ImageId("trixie", config, architecture, "20261120.0")
    return replace(RECORD, id=of, format="raw", virtual_size=SIZE, size=SIZE, machine=machine)


def empty(folder: Path, of: ImageRecord) -> Source:
    """An image whose disk is all zeros, so its machine runs and boots nothing."""
    file = folder / of.name
    with file.open("wb") as out:
        out.truncate(SIZE)
    return Source(of, f"sha256-{hashlib.sha256(bytes(SIZE)).hexdigest()}", file=file)


def local(folder: Path, name: str = "local") -> Local:
    return Local(Target(name, "qemu"), state.root(str(folder / name)))
