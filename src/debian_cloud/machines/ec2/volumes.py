# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that outlive instances: volumes with a name as their tag, in the zone of the instance that has them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host.progress import say
from debian_cloud.machines.ec2 import tags
from debian_cloud.machines.ec2.account import POLL, identifier
from debian_cloud.machines.ec2.registration import GIB
from debian_cloud.machines.spec import no_disk
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debian_cloud.machines.ec2.account import Account
    from debian_cloud.machines.spec import Disk

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


def find(account: Account, disks: Sequence[Disk], subnet: str) -> tuple[Volume, ...]:
    """The volumes of disks, all in one zone: that of the subnet, or of those that exist.

    Error if one is another instance's, is in another zone, or does not exist and has no size.
    """
    if len(disks) > len(_LETTERS):
        raise Error(f"{len(disks)} disks are too many", f"an instance has at most {len(_LETTERS)} others", USAGE)
    there = {disk.name: volume for disk in disks if (volume := _there(account, disk))}
    zone = _zone_of(account, subnet) if subnet else next((volume.zone for volume in there.values()), "")
    for volume in there.values():
        if volume.zone != zone:
            raise Error(
                f"the disk {volume.name} is in {volume.zone}, but the instance would be in {zone}",
                "an instance has disks of its own zone: omit it, or name a Subnet of that zone",
                USAGE,
            )
    zone = zone or (_usual_zone(account) if disks else "")
    return tuple(there.get(disk.name) or Volume(disk.name, zone, gib=-(-disk.size // GIB)) for disk in disks)


def _there(account: Account, disk: Disk) -> Volume | None:
    found = [*account.pages("describe_volumes", "Volumes", Filters=tags.where({tags.VOLUME: disk.name}))]
    if not found and not disk.size:
        raise no_disk(disk)
    if len(found) > 1:
        raise Error(f"{len(found)} disks have the name {disk.name}", "change the tag of all but one")
    if found and found[0].get("State") != "available":
        what = printable(str(found[0].get("State")), 40)
        raise Error(f"the disk {disk.name} is {what}", "if another instance has it, terminate that one first", USAGE)
    return Volume(disk.name, str(found[0]["AvailabilityZone"]), identifier(found[0]["VolumeId"])) if found else None


def _zone_of(account: Account, subnet: str) -> str:
    found = account.call("ec2", "describe_subnets", SubnetIds=[subnet])["Subnets"]
    return str(found[0]["AvailabilityZone"])


def _usual_zone(account: Account) -> str:
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
        time.sleep(POLL)
    raise Error(f"the disk {volume} is not available", "see it with the provider's own tools")
