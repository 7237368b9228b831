# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that outlive instances: volumes with a name as their tag, in the zone of the instance that has them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host.progress import say
from debian_cloud.machines.ec2 import tags
from debian_cloud.machines.ec2.account import identifier
from debian_cloud.machines.ec2.registration import GIB
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debian_cloud.machines.ec2.account import Account
    from debian_cloud.machines.spec import Disk

_POLL: Final = 3.0
_PATIENCE: Final = 300.0
"""Seconds in which a volume can be attached."""
_LETTERS: Final = "fghijklmnop"
"""Letters of devices that are for additional volumes."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume in a zone; `id` is empty for one that is to be made, with so many GiB."""

    name: str
    zone: str
    id: str = ""
    gib: int = 0


def find(account: Account, disk: Disk, subnet: str) -> Volume:
    """The volume of a disk; Error if it is another instance's, or does not exist and has no size."""
    found = [*account.pages("describe_volumes", "Volumes", Filters=tags.where({tags.VOLUME: disk.name}))]
    if not found and not disk.size:
        raise Error(
            f"there is no disk {disk.name}", f"give its size, to make it: --persistent-disk {disk.name}:10G", USAGE
        )
    if found and found[0].get("State") != "available":
        what = printable(str(found[0].get("State")), 40)
        raise Error(f"the disk {disk.name} is {what}", "if another instance has it, terminate that one first", USAGE)
    if found:
        return Volume(disk.name, str(found[0]["AvailabilityZone"]), str(found[0]["VolumeId"]))
    return Volume(disk.name, _zone(account, subnet), gib=-(-disk.size // GIB))


def _zone(account: Account, subnet: str) -> str:
    if subnet:
        found = account.call("ec2", "describe_subnets", SubnetIds=[subnet])["Subnets"]
        return str(found[0]["AvailabilityZone"])
    # Others are of a city or a network, and have few types of instances.
    filters = [{"Name": "zone-type", "Values": ["availability-zone"]}] if not account.endpoints else []
    zones = account.call("ec2", "describe_availability_zones", Filters=filters).get("AvailabilityZones", ())
    return min(str(one["ZoneName"]) for one in zones)


def attach(account: Account, volumes: Sequence[Volume], instance: str) -> None:
    """Give an instance its volumes; those that do not exist are made."""
    for letter, volume in zip(_LETTERS, volumes, strict=False):
        found = volume.id or _made(account, volume)
        if not volume.id:
            say(f"debian-cloud: the disk {volume.name} was made, {found} in {volume.zone}, and stays\n")
        _wait(account, found)
        account.call("ec2", "attach_volume", InstanceId=instance, VolumeId=found, Device=f"/dev/sd{letter}")


def _made(account: Account, volume: Volume) -> str:
    answer = account.call(
        *("ec2", "create_volume"),
        AvailabilityZone=volume.zone,
        Size=volume.gib,
        **tags.at_creation("volume", {tags.VOLUME: volume.name, tags.SHOWN: volume.name}),
    )
    return identifier(answer["VolumeId"])


def _wait(account: Account, volume: str) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        found = account.call("ec2", "describe_volumes", VolumeIds=[volume]).get("Volumes", ())
        if found and found[0].get("State") == "available":
            return
        time.sleep(_POLL)
    raise Error(f"the disk {volume} is not available", "see it with the provider's own tools")
