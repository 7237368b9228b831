# SPDX-License-Identifier: GPL-3.0-or-later
"""A cloud that speaks as EC2, EBS direct, SSM and STS do, on loopback, and refuses what those refuse.

A stand-in, because no account can be used in tests. It keeps bytes of blocks, compares every checksum, and is late
where the real ones are: snapshots, images and instances are pending for some answers, and a new snapshot may be
unknown. `faults` has, for the name of an action, what its next calls meet instead.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT = "123456789012"
BLOCK = 2**19
TYPES = {
    "t3.micro": ("x86_64", 2, 1024), "t3.small": ("x86_64", 2, 2048), "t4g.micro": ("arm64", 2, 1024),
    "m6i.4xlarge": ("x86_64", 16, 65536),
}  # fmt: skip


class Refused(Exception):  # noqa: N818 - an answer
    """An error answer."""

    def __init__(self, code: str, message: str = "it is refused", status: int = 400) -> None:
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


class Lost(Exception):  # noqa: N818 - an answer
    """The action is done, and its answer is lost."""


@dataclass
class Snapshot:
    """A snapshot, and the blocks that were put."""

    id: str
    gib: int
    tags: dict[str, str]
    region: str
    blocks: dict[int, bytes] = field(default_factory=dict)
    completed: bool = False
    pending: int = 0
    shared: list[Any] = field(default_factory=list)
    begun: float = field(default_factory=time.time)


@dataclass
class Cloud:
    """All regions of one account."""

    late: int = 1
    """How many times something is pending before it is complete."""
    capacity: int = 1000
    dying: dict[int, str] = field(default_factory=dict)
    """Number of an instance that ends instead of running -> why."""
    console: str = ""
    faults: dict[str, list[Exception | None]] = field(default_factory=lambda: defaultdict(list))
    done: Callable[[str], None] = lambda _: None
    """Called with each action after it was done, before its answer is sent."""
    calls: list[str] = field(default_factory=list)
    registrations: list[dict[str, str]] = field(default_factory=list)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    parameters: dict[tuple[str, str], str] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    public: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    _number: int = 0

    def new(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number:017x}"

    def count(self, action: str) -> int:
        return self.calls.count(action)

    def met(self, action: str) -> Exception | None:
        """Count a call, and return what it meets, if anything; a lost answer is the caller's to lose."""
        with self.lock:
            self.calls.append(action)
            found = self.faults[action].pop(0) if self.faults[action] else None
        if found and not isinstance(found, Lost):
            raise found
        return found

    # EBS direct

    def start_snapshot(self, region: str, asked: dict[str, Any]) -> dict[str, Any]:
        if not 10 <= asked.get("Timeout", 60) <= 4320 or not 1 <= asked["VolumeSize"] <= 65536:
            raise Refused("ValidationException")
        tags = {one["Key"]: one["Value"] for one in asked.get("Tags", ())}
        wanted = (region, json.dumps(asked, sort_keys=True))
        token = asked["ClientToken"]
        if token in self.tokens:
            before, snapshot = self.tokens[token]
            if before != wanted:
                raise Refused("ConflictException", "another request had the token")
            return {"SnapshotId": snapshot, "BlockSize": BLOCK, "Status": "pending"}
        made = Snapshot(self.new("snap"), asked["VolumeSize"], tags, region)
        self.snapshots[made.id] = made
        self.tokens[token] = (wanted, made.id)
        return {"SnapshotId": made.id, "BlockSize": BLOCK, "Status": "pending"}

    def put(self, snapshot: str, index: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        found = self._open(snapshot)
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if len(body) != BLOCK or headers.get("x-amz-data-length") != str(BLOCK):
            raise Refused("ValidationException", "the length is wrong")
        if headers.get("x-amz-checksum") != digest or headers.get("x-amz-checksum-algorithm") != "SHA256":
            raise Refused("ValidationException", "the checksum is wrong")
        if not 0 <= index * BLOCK < found.gib * 2**30:
            raise Refused("ValidationException", "the block is beyond the end")
        with self.lock:
            found.blocks[index] = body
        return {"Checksum": digest, "ChecksumAlgorithm": "SHA256"}

    def complete(self, snapshot: str, headers: dict[str, str]) -> dict[str, Any]:
        found = self._open(snapshot)
        digests = b"".join(hashlib.sha256(found.blocks[index]).digest() for index in sorted(found.blocks))
        if headers.get("x-amz-changedblockscount") != str(len(found.blocks)):
            raise Refused("ValidationException", "the count is wrong")
        if headers.get("x-amz-checksum") != base64.b64encode(hashlib.sha256(digests).digest()).decode():
            raise Refused("ValidationException", "the aggregate is wrong")
        found.completed, found.pending = True, self.late
        return {"Status": "pending"}

    def _open(self, snapshot: str) -> Snapshot:
        found = self.snapshots.get(snapshot)
        if found is None:
            raise Refused("ResourceNotFoundException", "the snapshot does not exist", 404)
        if found.completed:
            raise Refused("ConflictException", "the snapshot is not pending")
        return found

    # SSM and STS

    def put_parameter(self, region: str, asked: dict[str, Any]) -> dict[str, Any]:
        name = (region, asked["Name"])
        if name in self.parameters and not asked.get("Overwrite"):
            raise Refused("ParameterAlreadyExists")
        if asked.get("DataType") == "aws:ec2:image" and asked["Value"] not in self.images:
            raise Refused("ValidationException", "no such image")
        self.parameters[name] = asked["Value"]
        return {"Version": 1}

    def get_parameter(self, region: str, asked: dict[str, Any]) -> dict[str, Any]:
        if (region, asked["Name"]) not in self.parameters:
            raise Refused("ParameterNotFound")
        return {"Parameter": {"Name": asked["Name"], "Value": self.parameters[region, asked["Name"]]}}

    def delete_parameter(self, region: str, asked: dict[str, Any]) -> dict[str, Any]:
        if self.parameters.pop((region, asked["Name"]), None) is None:
            raise Refused("ParameterNotFound")
        return {}

    # EC2

    def ec2(self, region: str, asked: dict[str, str]) -> Any:
        action = asked.pop("Action")
        asked.pop("Version", None)
        name = re.sub("(?<!^)([A-Z])", r"_\1", action).lower()
        do = getattr(self, f"_{name}", None)
        if do is None:
            raise Refused("InvalidAction", f"{action} is not known here")
        return do(region, asked)

    def _dry(self, asked: dict[str, str]) -> None:
        if asked.get("DryRun") == "true":
            raise Refused("DryRunOperation", "it would have succeeded", 412)

    def _get_caller_identity(self, _region: str, _asked: dict[str, str]) -> Any:
        return {
            "GetCallerIdentityResult": {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/me", "UserId": "A"}
        }

    def _describe_regions(self, _region: str, _asked: dict[str, str]) -> Any:
        return {"regionInfo": [{"regionName": one} for one in ("eu-one-1", "eu-two-1", "us-three-1")]}

    def _describe_availability_zones(self, region: str, _asked: dict[str, str]) -> Any:
        return {"availabilityZoneInfo": [{"zoneName": f"{region}{letter}"} for letter in "ba"]}

    def _describe_subnets(self, region: str, asked: dict[str, str]) -> Any:
        if asked["SubnetId.1"] != "subnet-1":
            raise Refused("InvalidSubnetID.NotFound")
        return {
            "subnetSet": [
                {"subnetId": "subnet-1", "vpcId": "vpc-00000000000000001", "availabilityZone": f"{region}b"}
            ]
        }

    def _describe_vpcs(self, _region: str, asked: dict[str, str]) -> Any:
        assert asked["Filter.1.Name"] == "is-default"
        return {"vpcSet": [{"vpcId": "vpc-000000000000000d0"}]}

    def _describe_instance_types(self, _region: str, asked: dict[str, str]) -> Any:
        kind = asked["InstanceType.1"]
        if kind not in TYPES:
            raise Refused("InvalidInstanceType", f"{kind} does not exist")
        architecture, cpus, memory = TYPES[kind]
        return {
            "instanceTypeSet": [
                {
                    "instanceType": kind,
                    "processorInfo": {"supportedArchitectures": [architecture]},
                    "vCpuInfo": {"defaultVCpus": cpus},
                    "memoryInfo": {"sizeInMiB": memory},
                }
            ]
        }

    def _describe_snapshots(self, region: str, asked: dict[str, str]) -> Any:
        wanted = listed(asked, "SnapshotId")
        found = [one for one in self.snapshots.values() if one.region == region]
        for one in wanted:
            if one not in {snapshot.id for snapshot in found}:
                raise Refused("InvalidSnapshot.NotFound", f"{one} does not exist")
        rows = [one for one in found if (not wanted or one.id in wanted) and matches(asked, one.tags, {})]
        return {"snapshotSet": [self._snapshot(one) for one in rows]}

    def _snapshot(self, one: Snapshot) -> dict[str, Any]:
        state = "completed" if one.completed and one.pending <= 0 else "pending"
        if one.completed:
            one.pending -= 1
        began = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(one.begun))
        return {"snapshotId": one.id, "status": state, "startTime": began, "tagSet": tag_set(one.tags)}

    def _delete_snapshot(self, _region: str, asked: dict[str, str]) -> Any:
        if any(image["snapshot"] == asked["SnapshotId"] for image in self.images.values()):
            raise Refused("InvalidSnapshot.InUse")
        if self.snapshots.pop(asked["SnapshotId"], None) is None:
            raise Refused("InvalidSnapshot.NotFound")
        return {"return": "true"}

    def _copy_snapshot(self, region: str, asked: dict[str, str]) -> Any:
        source = self.snapshots.get(asked["SourceSnapshotId"])
        if source is None or source.region != asked["SourceRegion"] or not source.completed or source.pending > 0:
            raise Refused("InvalidSnapshot.NotFound", "the source is not there, or not complete")
        copy = Snapshot(self.new("snap"), source.gib, specified(asked), region, source.blocks, completed=True)
        copy.pending = self.late
        self.snapshots[copy.id] = copy
        return {"snapshotId": copy.id}

    def _register_image(self, region: str, asked: dict[str, str]) -> Any:
        if not re.fullmatch(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}", asked["Name"]):
            raise Refused("InvalidAMIName.Malformed")
        self._dry(asked)
        self.registrations.append(dict(asked))
        if any(one["name"] == asked["Name"] and one["region"] == region for one in self.images.values()):
            raise Refused("InvalidAMIName.Duplicate")
        snapshot = self.snapshots.get(asked["BlockDeviceMapping.1.Ebs.SnapshotId"])
        if snapshot is None or snapshot.region != region:
            raise Refused("InvalidSnapshot.NotFound")
        if not snapshot.completed or snapshot.pending > 0:
            raise Refused("IncorrectState", "the snapshot is pending")
        if int(asked["BlockDeviceMapping.1.Ebs.VolumeSize"]) < snapshot.gib:
            raise Refused("InvalidBlockDeviceMapping", "the volume is smaller than the snapshot")
        if asked.get("VirtualizationType") != "hvm" or asked.get("Architecture") not in ("x86_64", "arm64"):
            raise Refused("InvalidParameterValue", "paravirtual, or an architecture of long ago")
        if asked["Architecture"] == "arm64" and asked.get("BootMode") != "uefi":
            raise Refused("InvalidParameterCombination", "arm64 boots by uefi")
        if asked.get("TpmSupport") and asked.get("BootMode") != "uefi":
            raise Refused("InvalidParameterCombination", "a TPM needs uefi")
        image = self.new("ami")
        self.images[image] = {
            "name": asked["Name"], "region": region, "snapshot": snapshot.id, "root": asked["RootDeviceName"],
            "architecture": asked["Architecture"], "tags": specified(asked), "pending": self.late, "shared": [],
        }  # fmt: skip
        return {"imageId": image}

    def _describe_images(self, region: str, asked: dict[str, str]) -> Any:
        wanted = listed(asked, "ImageId")
        for one in wanted:
            if one not in self.images:
                raise Refused("InvalidAMIID.NotFound")
        rows = []
        for image, found in self.images.items():
            if found["region"] != region or (wanted and image not in wanted):
                continue
            if not matches(asked, found["tags"], {"name": found["name"]}):
                continue
            state = "pending" if found["pending"] > 0 else "available"
            found["pending"] -= 1
            rows.append(
                {
                    "imageId": image,
                    "name": found["name"],
                    "imageState": state,
                    "rootDeviceName": found["root"],
                    "blockDeviceMapping": [{"deviceName": found["root"], "ebs": {"snapshotId": found["snapshot"]}}],
                    "tagSet": tag_set(found["tags"]),
                }
            )
        return {"imagesSet": rows}

    def _deregister_image(self, _region: str, asked: dict[str, str]) -> Any:
        if self.images.pop(asked["ImageId"], None) is None:
            raise Refused("InvalidAMIID.NotFound")
        return {"return": "true"}

    def _modify_image_attribute(self, _region: str, asked: dict[str, str]) -> Any:
        if asked.get("LaunchPermission.Add.1.Group") == "all" and not self.public:
            raise Refused("OperationNotPermitted", "the region blocks public images")
        self.images[asked["ImageId"]]["shared"] += shared(asked, "LaunchPermission.Add")
        return {"return": "true"}

    def _modify_snapshot_attribute(self, _region: str, asked: dict[str, str]) -> Any:
        self.snapshots[asked["SnapshotId"]].shared += shared(asked, "CreateVolumePermission.Add")
        return {"return": "true"}

    def _disable_image_block_public_access(self, _region: str, _asked: dict[str, str]) -> Any:
        self.public = True
        return {"imageBlockPublicAccessState": "unblocked"}

    def _get_image_block_public_access_state(self, _region: str, _asked: dict[str, str]) -> Any:
        return {"imageBlockPublicAccessState": "unblocked" if self.public else "block-new-sharing"}

    def _create_tags(self, _region: str, asked: dict[str, str]) -> Any:
        given = {asked[f"Tag.{n}.Key"]: asked[f"Tag.{n}.Value"] for n in numbers(asked, "Tag")}
        for one in listed(asked, "ResourceId"):
            holder = self._tagged(one)
            if holder is None:
                raise Refused("InvalidID.NotFound", f"{one} does not exist")
            holder.update(given)
        return {"return": "true"}

    def _tagged(self, one: str) -> dict[str, str] | None:
        if one in self.snapshots:
            return self.snapshots[one].tags
        found = {**self.images, **self.instances, **self.volumes}.get(one)
        return None if found is None else found["tags"]

    def _import_key_pair(self, _region: str, asked: dict[str, str]) -> Any:
        if asked["KeyName"] in self.keys:
            raise Refused("InvalidKeyPair.Duplicate")
        self.keys[asked["KeyName"]] = base64.b64decode(asked["PublicKeyMaterial"]).decode()
        return {"keyName": asked["KeyName"]}

    def _describe_security_groups(self, _region: str, asked: dict[str, str]) -> Any:
        rows = [
            {"groupId": group, "groupName": found["name"], "ipPermissions": found["rules"]}
            for group, found in self.groups.items()
            if matches(asked, {}, {"group-name": found["name"], "vpc-id": found["vpc"]})
        ]
        return {"securityGroupInfo": rows}

    def _create_security_group(self, _region: str, asked: dict[str, str]) -> Any:
        vpc = asked["VpcId"]
        if any((one["name"], one["vpc"]) == (asked["GroupName"], vpc) for one in self.groups.values()):
            raise Refused("InvalidGroup.Duplicate")
        group = self.new("sg")
        self.groups[group] = {"name": asked["GroupName"], "vpc": vpc, "rules": []}
        return {"groupId": group}

    def _authorize_security_group_ingress(self, _region: str, asked: dict[str, str]) -> Any:
        start = "IpPermissions.1"
        rule = {
            "ipProtocol": asked[f"{start}.IpProtocol"],
            "fromPort": asked[f"{start}.FromPort"],
            "toPort": asked[f"{start}.ToPort"],
            "ipRanges": [
                {"cidrIp": asked[f"{start}.IpRanges.{number}.CidrIp"]}
                for number in numbers(asked, f"{start}.IpRanges")
            ],
            "ipv6Ranges": [
                {"cidrIpv6": asked[f"{start}.Ipv6Ranges.{number}.CidrIpv6"]}
                for number in numbers(asked, f"{start}.Ipv6Ranges")
            ],
        }
        self.groups[asked["GroupId"]]["rules"].append(rule)
        return {"return": "true"}

    def _run_instances(self, region: str, asked: dict[str, str]) -> Any:
        token = asked.get("ClientToken", "")
        if token in self.tokens:
            before, ids = self.tokens[token]
            if before != asked:
                raise Refused("IdempotentParameterMismatch")
            return {"instancesSet": [self._instance(one) for one in ids]}
        least, most = int(asked["MinCount"]), int(asked["MaxCount"])
        image = self.images.get(asked["ImageId"])
        if image is None or image["region"] != region:
            raise Refused("InvalidAMIID.NotFound")
        architecture = TYPES.get(asked["InstanceType"], ("",))[0]
        if architecture != image["architecture"]:
            raise Refused("InvalidParameterValue", "the type is of another architecture")
        if not 1 <= least <= most:
            raise Refused("InvalidParameterValue", "MinCount is more than MaxCount")
        self._dry(asked)
        if asked["KeyName"] not in self.keys:
            raise Refused("InvalidKeyPair.NotFound")
        if asked["SecurityGroupId.1"] not in self.groups and asked["SecurityGroupId.1"] != "sg-given":
            raise Refused("InvalidGroup.NotFound")
        if len(base64.b64decode(asked.get("UserData", ""))) > 2**14:
            raise Refused("InvalidParameterValue", "user data is limited to 16384 bytes")
        running = sum(one["state"] not in ("terminated",) for one in self.instances.values())
        if self.capacity - running < least:
            raise Refused("InsufficientInstanceCapacity", "there is not so much now", 500)
        ids = []
        for _ in range(min(most, self.capacity - running)):
            one = self.new("i")
            number = len(self.instances)
            self.instances[one] = {
                "state": "pending", "left": self.late, "tags": specified(asked, "instance"), "asked": asked,
                "reason": self.dying.get(number, ""), "region": region, "token": token, "number": number,
            }  # fmt: skip
            ids.append(one)
        self.tokens[token] = (dict(asked), ids)
        return {"instancesSet": [self._instance(one) for one in ids]}

    def _instance(self, one: str) -> dict[str, Any]:
        found = self.instances[one]
        row = {
            "instanceId": one, "instanceState": {"name": found["state"]}, "tagSet": tag_set(found["tags"]),
            "launchTime": "2026-11-20T00:00:00.000Z", "privateIpAddress": f"10.0.0.{found['number'] % 250 + 1}",
        }  # fmt: skip
        if found["state"] == "terminated" and found["reason"]:
            row["stateReason"] = {"code": "Server.InternalError", "message": found["reason"]}
        return row

    def _describe_instances(self, region: str, asked: dict[str, str]) -> Any:
        wanted = listed(asked, "InstanceId")
        if wanted and "MaxResults" in asked:
            raise Refused("InvalidParameterCombination")
        for one in wanted:
            if one not in self.instances:
                raise Refused("InvalidInstanceID.NotFound")
        rows = []
        for one, found in self.instances.items():
            if found["region"] != region or (wanted and one not in wanted):
                continue
            self._later(found)
            known = {"instance-state-name": found["state"], "instance-id": one}
            if matches(asked, found["tags"], known):
                rows.append({"instancesSet": [self._instance(one)]})
        begin, most = int(asked.get("NextToken", 0)), int(asked.get("MaxResults", 1000))
        answer: dict[str, Any] = {"reservationSet": rows[begin : begin + most]}
        if begin + most < len(rows):
            answer["nextToken"] = str(begin + most)
        return answer

    def _later(self, found: dict[str, Any]) -> None:
        if found["left"] > 0:
            found["left"] -= 1
        elif found["state"] == "pending":
            found["state"] = "terminated" if found["reason"] else "running"
        elif found["state"] == "stopping":
            found["state"] = "stopped"

    def _change(self, asked: dict[str, str], before: tuple[str, ...], after: str) -> Any:
        wanted = listed(asked, "InstanceId")
        for one in wanted:
            if one not in self.instances:
                raise Refused("InvalidInstanceID.NotFound")
        for one in wanted:
            found = self.instances[one]
            if found["state"] not in before:
                raise Refused("IncorrectInstanceState")
            found["state"], found["left"] = after, self.late
        return {"instancesSet": [{"instanceId": one} for one in wanted]}

    def _stop_instances(self, _region: str, asked: dict[str, str]) -> Any:
        return self._change(asked, ("running", "stopping"), "stopping")

    def _start_instances(self, _region: str, asked: dict[str, str]) -> Any:
        return self._change(asked, ("stopped",), "pending")

    def _reboot_instances(self, _region: str, asked: dict[str, str]) -> Any:
        return self._change(asked, ("running",), "running")

    def _terminate_instances(self, _region: str, asked: dict[str, str]) -> Any:
        wanted = listed(asked, "InstanceId")
        for one in wanted:
            if one not in self.instances:
                raise Refused("InvalidInstanceID.NotFound")
        for one in wanted:
            self.instances[one]["state"] = "terminated"
            for volume in self.volumes.values():
                if volume["instance"] == one:
                    volume["instance"] = ""
        return {"instancesSet": [{"instanceId": one} for one in wanted]}

    def _get_console_output(self, _region: str, asked: dict[str, str]) -> Any:
        if asked["InstanceId"] not in self.instances:
            raise Refused("InvalidInstanceID.NotFound")
        return {"instanceId": asked["InstanceId"], "output": base64.b64encode(self.console.encode()).decode()}

    def _create_volume(self, _region: str, asked: dict[str, str]) -> Any:
        volume = self.new("vol")
        self.volumes[volume] = {
            "zone": asked["AvailabilityZone"], "tags": specified(asked), "instance": "", "left": self.late
        }  # fmt: skip
        return {"volumeId": volume}

    def _describe_volumes(self, _region: str, asked: dict[str, str]) -> Any:
        wanted = listed(asked, "VolumeId")
        rows = []
        for volume, found in self.volumes.items():
            if (not wanted or volume in wanted) and matches(asked, found["tags"], {}):
                state = "in-use" if found["instance"] else "creating" if found["left"] > 0 else "available"
                found["left"] -= 1
                rows.append({"volumeId": volume, "status": state, "availabilityZone": found["zone"]})
        return {"volumeSet": rows}

    def _attach_volume(self, _region: str, asked: dict[str, str]) -> Any:
        volume, instance = self.volumes[asked["VolumeId"]], self.instances[asked["InstanceId"]]
        zone = instance["asked"].get("Placement.AvailabilityZone")
        subnet = instance["asked"].get("SubnetId")
        if instance["state"] not in ("running", "stopped") or (zone != volume["zone"] and not subnet):
            raise Refused("InvalidVolume.ZoneMismatch")
        volume["instance"] = asked["InstanceId"]
        return {"status": "attaching"}


def listed(asked: dict[str, str], name: str) -> list[str]:
    return [asked[f"{name}.{number}"] for number in numbers(asked, name)]


def numbers(asked: dict[str, str], name: str) -> Iterator[int]:
    number = 1
    while any(key == f"{name}.{number}" or key.startswith(f"{name}.{number}.") for key in asked):
        yield number
        number += 1


def specified(asked: dict[str, str], kind: str = "") -> dict[str, str]:
    """The tags that something has from its creation."""
    for number in numbers(asked, "TagSpecification"):
        start = f"TagSpecification.{number}"
        if not kind or asked[f"{start}.ResourceType"] == kind:
            found = numbers(asked, f"{start}.Tag")
            return {asked[f"{start}.Tag.{n}.Key"]: asked[f"{start}.Tag.{n}.Value"] for n in found}
    return {}


def shared(asked: dict[str, str], start: str) -> list[str]:
    return [value for key, value in sorted(asked.items()) if key.startswith(f"{start}.")]


def tag_set(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def matches(asked: dict[str, str], tags: dict[str, str], known: dict[str, str]) -> bool:
    for number in numbers(asked, "Filter"):
        name, values = asked[f"Filter.{number}.Name"], listed(asked, f"Filter.{number}.Value")
        if name == "tag-key":
            fits = any(value in tags for value in values)
        elif name.startswith("tag:"):
            fits = tags.get(name.removeprefix("tag:")) in values
        else:
            assert name in known, f"the filter {name} is not known here"
            fits = known[name] in values
        if not fits:
            return False
    return True


def as_xml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{key}>{as_xml(one)}</{key}>" for key, one in value.items())
    if isinstance(value, list):
        return "".join(f"<item>{as_xml(one)}</item>" for one in value)
    return escape(str(value))


class Handler(BaseHTTPRequestHandler):
    """One request; the region is that of its signature."""

    cloud: Cloud
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def _region(self) -> str:
        found = re.search(r"Credential=[^/]+/[0-9]{8}/([^/]+)/", self.headers.get("Authorization", ""))
        return found[1] if found else ""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        """StartSnapshot, CompleteSnapshot, and all of EC2, STS and SSM."""
        body = self._body()
        path = urlsplit(self.path).path
        if not self.headers.get("Authorization", ""):
            self._send(401, b"", "text/plain")
        elif path == "/snapshots":
            self._json("StartSnapshot", lambda: self.cloud.start_snapshot(self._region(), json.loads(body)), 201)
        elif path.startswith("/snapshots/completion/"):
            headers = {key.lower(): value for key, value in self.headers.items()}
            self._json("CompleteSnapshot", lambda: self.cloud.complete(path.split("/")[3], headers), 202)
        elif target := self.headers.get("X-Amz-Target", ""):
            action = target.rpartition(".")[2]
            name = re.sub("(?<!^)([A-Z])", r"_\1", action).lower()
            self._json(action, lambda: getattr(self.cloud, name)(self._region(), json.loads(body)))
        else:
            self._query(dict(parse_qsl(body.decode(), keep_blank_values=True)))

    def do_PUT(self) -> None:
        """PutSnapshotBlock."""
        body = self._body()
        parts = urlsplit(self.path).path.split("/")
        headers = {key.lower(): value for key, value in self.headers.items()}
        self._json("PutSnapshotBlock", lambda: self.cloud.put(parts[2], int(parts[4]), headers, body), 201)

    def _json(self, action: str, do: Callable[[], Any], status: int = 200) -> None:
        try:
            met = self.cloud.met(action)
            answer = do() if action == "PutSnapshotBlock" else self._alone(do)
            self.cloud.done(action)
            if met:
                raise met
        except Refused as refused:
            text = json.dumps({"message": refused.message, "Message": refused.message, "__type": refused.code})
            self._send(refused.status, text.encode(), "application/json", refused.code)
        except Lost:
            self.close_connection = True
        else:
            self._send(status, json.dumps(answer).encode(), "application/json")

    def _alone(self, do: Callable[[], Any]) -> Any:
        with self.cloud.lock:
            return do()

    def _query(self, asked: dict[str, str]) -> None:
        action = asked["Action"]
        try:
            met = self.cloud.met(action)
            answer = self._alone(lambda: self.cloud.ec2(self._region(), asked))
            self.cloud.done(action)
            if met:
                raise met
        except Refused as refused:
            inner = f"<Code>{escape(refused.code)}</Code><Message>{escape(refused.message)}</Message>"
            text = f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>r</RequestID></Response>"
            if action == "GetCallerIdentity":
                text = f"<ErrorResponse><Error>{inner}</Error><RequestId>r</RequestId></ErrorResponse>"
            self._send(refused.status, text.encode(), "text/xml")
        except Lost:
            self.close_connection = True
        else:
            text = f"<{action}Response>{as_xml(answer)}</{action}Response>"
            self._send(200, text.encode(), "text/xml")

    def _send(self, status: int, body: bytes, kind: str, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("x-amzn-ErrorType", code)
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients are killed in the middle of a request."""


def of(server: ThreadingHTTPServer, cloud: Cloud) -> None:
    """Let a server be of another cloud."""
    server.RequestHandlerClass.cloud = cloud  # type: ignore[attr-defined]


def served(cloud: Cloud) -> ThreadingHTTPServer:
    """A server on a free port of loopback; the caller ends it."""
    handler = type("Handler", (Handler,), {"cloud": cloud})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
