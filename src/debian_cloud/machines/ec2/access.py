# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can log in to instances, and from where: a key pair and a security group, made when they are first needed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from debian_cloud.errors import USAGE, Error
from debian_cloud.machines.ec2 import tags
from debian_cloud.machines.ec2.account import RefusedError, identifier, unless
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debian_cloud.machines.ec2.account import Account


def key(account: Account, public: str) -> str:
    """The name of a public key there, which is imported first if needed."""
    name = f"debian-cloud-{hashlib.sha256(public.split()[1].encode()).hexdigest()[:16]}"
    with unless("InvalidKeyPair.Duplicate"):
        account.call(
            *("ec2", "import_key_pair"),
            KeyName=name,
            PublicKeyMaterial=public.encode("ascii", "replace"),
            **tags.at_creation("key-pair", {tags.SHOWN: name}),
        )
    return name


def group(account: Account, networks: Sequence[str], subnet: str) -> str:
    """A security group that lets SSH in from these networks, and nothing else from anywhere.

    Its name says which networks they are, so that no group of other instances is changed.
    """
    suffix = f"-ssh-{hashlib.sha256(' '.join(networks).encode()).hexdigest()[:8]}" if networks else ""
    name = f"debian-cloud{suffix}"
    vpc = {"VpcId": _vpc(account, subnet)}
    found, opened = _named(account, name, vpc) or (_made(account, name, vpc, networks), frozenset())
    if others := opened - set(networks):
        raise Error(
            f"the security group {name} also lets in {printable(', '.join(sorted(others)), 200)}",
            "mend or delete it, or name others in the target's file, with the field Security-Groups",
        )
    if missing := [network for network in networks if network not in opened]:
        with unless("InvalidPermission.Duplicate"):
            account.settled("authorize_security_group_ingress", GroupId=found, IpPermissions=[_rule(missing)])
    return found


def _vpc(account: Account, subnet: str) -> str:
    """The network of a subnet, or the default one; a group of the same name in another one is of no use."""
    if subnet:
        return identifier(account.call("ec2", "describe_subnets", SubnetIds=[subnet])["Subnets"][0]["VpcId"])
    filters = [{"Name": "is-default", "Values": ["true"]}]
    found = account.call("ec2", "describe_vpcs", Filters=filters).get("Vpcs", ())
    if not found:
        raise Error(
            f"{account.region} has no default network", "name one in the target's file, with the field Subnet", USAGE
        )
    return identifier(found[0]["VpcId"])


def _made(account: Account, name: str, vpc: Mapping[str, str], networks: Sequence[str]) -> str:
    try:
        answer = account.call(
            *("ec2", "create_security_group"),
            GroupName=name,
            Description=f"instances of debian-cloud, SSH from {' '.join(networks) or 'nowhere'}"[:255],
            **vpc,
            **tags.at_creation("security-group", {tags.SHOWN: name}),
        )
    except RefusedError as error:
        # Another command made it at the same time.
        if error.code != "InvalidGroup.Duplicate" or not (there := _named(account, name, vpc)):
            raise
        return there[0]
    return identifier(answer["GroupId"])


def _named(account: Account, name: str, vpc: Mapping[str, str]) -> tuple[str, frozenset[str]] | None:
    """The group of that name, and who is let in: networks by SSH, and in words all that is not just that."""
    filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    found = account.call("ec2", "describe_security_groups", Filters=filters).get("SecurityGroups", ())
    if not found:
        return None
    opened: set[str] = set()
    for rule in found[0].get("IpPermissions", ()):
        ssh = (rule.get("IpProtocol"), rule.get("FromPort"), rule.get("ToPort")) == ("tcp", 22, 22)
        four = [str(one.get("CidrIp")) for one in rule.get("IpRanges", ())]
        six = [str(one.get("CidrIpv6")) for one in rule.get("Ipv6Ranges", ())]
        others = [*rule.get("UserIdGroupPairs", ()), *rule.get("PrefixListIds", ())]
        opened |= {f"{network}{'' if ssh else ' to other ports'}" for network in (*four, *six)}
        opened |= {"other groups"} if others else set()
    return identifier(found[0]["GroupId"]), frozenset(opened)


def _rule(networks: Sequence[str]) -> dict[str, object]:
    rule: dict[str, object] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    if four := [{"CidrIp": network} for network in networks if ":" not in network]:
        rule["IpRanges"] = four
    if six := [{"CidrIpv6": network} for network in networks if ":" in network]:
        rule["Ipv6Ranges"] = six
    return rule
