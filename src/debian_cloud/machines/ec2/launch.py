# SPDX-License-Identifier: GPL-3.0-or-later
"""What EC2 is asked for when instances are started: their type, their user-data, the parameters. Pure.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.machines import seed
from debian_cloud.machines.ec2 import tags
from debian_cloud.machines.ec2.registration import GIB
from debian_cloud.machines.instance import NEVER
from debian_cloud.machines.spec import LARGEST_USER_DATA, memory_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debian_cloud.machines.spec import MachineSpec

_SIZES: Final = (
    ("nano", 2, 0.5), ("micro", 2, 1), ("small", 2, 2), ("medium", 2, 4), ("large", 2, 8), ("xlarge", 4, 16),
    ("2xlarge", 8, 32),
)  # fmt: skip
"""Sizes of the families that are for general use and small: name, processors, GiB."""
_LARGE: Final = (("4xlarge", 16, 64), ("8xlarge", 32, 128), ("12xlarge", 48, 192), ("16xlarge", 64, 256))
_FAMILIES: Final = {"amd64": ("t3", "m6i"), "arm64": ("t4g", "m6g")}
_KINDS: Final = (
    # The longest first: cloud-init takes a prefix for the kind.
    ("#cloud-config-archive", "text/cloud-config-archive"), ("#cloud-config", "text/cloud-config"),
    ("#cloud-boothook", "text/cloud-boothook"), ("#part-handler", "text/part-handler"),
    ("#include-once", "text/x-include-once-url"), ("#include", "text/x-include-url"), ("## template:", "text/jinja2"),
    ("#!", seed.SCRIPT),
)  # fmt: skip
"""First words of user-data -> the kind of a part (cloud-init, user-data formats)."""
# As it is at the end of cloud-init's output on the console.
_HOST_KEYS: Final = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----\s(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_HOST_KEY: Final = re.compile(r"\b(ssh-ed25519 [A-Za-z0-9+/]{68})(?![^\s])")


@dataclass(frozen=True, slots=True)
class Place:
    """Where instances are: all are the provider's names, and empty for its default."""

    key: str = ""
    groups: tuple[str, ...] = ()
    subnet: str = ""
    zone: str = ""


def kind(spec: MachineSpec) -> str:
    """The smallest usual type of instance that has the memory and the processors that are asked for."""
    small, large = _FAMILIES[spec.image.id.architecture]
    gib = memory_of(spec) / GIB
    for family, sizes in ((small, _SIZES), (large, _LARGE)):
        for name, cpus, memory in sizes:
            if cpus >= spec.cpus and memory >= gib:
                return f"{family}.{name}"
    raise Error(
        "no usual type of instance is so large", "name one in the target's file, with the field Instance-Type", USAGE
    )


def user_data(spec: MachineSpec) -> str:
    """The user's own user-data, with what lets in other keys and ends the instance; Error if it is too long."""
    parts = [(kind, spec.user_data) for start, kind in _KINDS if spec.user_data.startswith(start)][:1]
    scripts = [
        *([_keys_script(spec)] if spec.keys else []),
        *([seed.expiry_script(spec.expires)] if spec.expires else []),
    ]
    if not scripts:
        return spec.user_data
    nested = spec.user_data and not parts
    text = seed.multipart((*parts, *((seed.SCRIPT, script) for script in scripts)))
    if nested:
        # It is of several parts itself, so it is a part with its own header.
        head, boundary, rest = text.partition("\n\n")
        first = rest.partition("\n")[0]
        text = f"{head}{boundary}{first}\n{spec.user_data.rstrip()}\n{rest}"
    if len(text.encode("utf-8", "surrogateescape")) > LARGEST_USER_DATA:
        raise Error(
            f"user-data and what --key and --expires add to it are more than {LARGEST_USER_DATA} bytes",
            "let it fetch the rest (#include)",
            USAGE,
        )
    return text


def _keys_script(spec: MachineSpec) -> str:
    user = shlex.quote(spec.image.machine.user)
    lines = "".join(f"{' '.join(key.split()[:2])}\n" for key in spec.keys)
    return f"""#!/bin/sh
set -eu
home=$(getent passwd {user} | cut -d: -f6)
install -d -m 700 -o {user} "$home/.ssh"
cat >>"$home/.ssh/authorized_keys" <<'END'
{lines}END
chown {user}: "$home/.ssh/authorized_keys"
chmod 600 "$home/.ssh/authorized_keys"
"""


def parameters(
    spec: MachineSpec, image: str, kind: str, place: Place, given: Mapping[str, str], numbers: tuple[int, int]
) -> dict[str, object]:
    """The parameters of RunInstances but the token; `given` are tags, `numbers` the least and the most instances."""
    least, most = numbers
    found: dict[str, object] = {
        "ImageId": image,
        "InstanceType": kind,
        "MinCount": least,
        "MaxCount": most,
        "InstanceInitiatedShutdownBehavior": "terminate" if spec.throw_away else "stop",
        "TagSpecifications": [{"ResourceType": what, "Tags": tags.members(given)} for what in ("instance", "volume")],
    }
    machine = spec.image.machine
    if place.key:
        found |= {"KeyName": place.key, "SecurityGroupIds": [*place.groups]}
    if machine.imds:
        found["MetadataOptions"] = {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}
    if spec.disk:
        ebs = {"VolumeSize": -(-spec.disk // GIB), "DeleteOnTermination": True}
        found["BlockDeviceMappings"] = [{"DeviceName": machine.root_device, "Ebs": ebs}]
    if text := user_data(spec):
        found["UserData"] = text
    if place.subnet:
        found["SubnetId"] = place.subnet
    if place.zone:
        found["Placement"] = {"AvailabilityZone": place.zone}
    return found


def given(spec: MachineSpec, token: str, owner: str, names: Sequence[str]) -> dict[str, str]:
    """The tags of instances that are started by one call; several get their names after it."""
    return {
        tags.RUN: token,
        tags.IMAGE: spec.image.stem,
        tags.ARCHITECTURE: spec.image.id.architecture,
        tags.USER: spec.image.machine.user,
        tags.OWNER: owner,
        tags.EXPIRES: str(spec.expires) if spec.expires != NEVER else "",
        tags.THROW_AWAY: "yes" if spec.throw_away else "",
        **(named(names[0]) if len(names) == 1 else {}),
    }


def named(name: str) -> dict[str, str]:
    """The tags that have the name of an instance."""
    return {tags.NAME: name, tags.SHOWN: name}


def is_host_key(text: str) -> bool:
    """Whether a text is a host key, as known_hosts (sshd(8)) has it."""
    return bool(_HOST_KEY.fullmatch(text))


def host_key(console: str) -> str:
    """The host key that an instance wrote to its console; "" if it has not yet. The last one counts."""
    found = _HOST_KEYS.findall(console)
    key = _HOST_KEY.search(found[-1]) if found else None
    return key[1] if key else ""
