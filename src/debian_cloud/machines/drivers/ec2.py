# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances in EC2, or in a private cloud with EC2's interface, of one account in one region.

The provider has all state: an instance's name, image, expiry and host key are its tags. The host key is read from the
console, which only the provider can pass on, when somebody wants to log in for the first time.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.host import signals
from debian_cloud.host.progress import Progress, say
from debian_cloud.machines import expiry, keys
from debian_cloud.machines import spec as spec_of
from debian_cloud.machines.drivers import PATIENCE, NameInUseError, Started
from debian_cloud.machines.ec2 import access, images, launch, registration, snapshots, tags, volumes
from debian_cloud.machines.ec2.account import POLL, VISIBLE, Account, RefusedError, identifier
from debian_cloud.machines.ec2.launch import Place
from debian_cloud.machines.instance import Console, Instance, Login, is_host, is_user
from debian_cloud.machines.qemu import bases, state
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from debian_cloud.image.id import ImageId
    from debian_cloud.image.index import ImageRecord
    from debian_cloud.machines.ec2.volumes import Volume
    from debian_cloud.machines.instance import Power, State
    from debian_cloud.machines.registry import Registered, Wish
    from debian_cloud.machines.source import Source
    from debian_cloud.machines.spec import MachineSpec
    from debian_cloud.machines.target import Target

_SERVICES: Final = {"Endpoint": "ec2", "Ebs-Endpoint": "ebs", "Ssm-Endpoint": "ssm", "Sts-Endpoint": "sts"}
_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,255}(?:/[A-Za-z0-9./_-]{0,255})?")
_NETWORK: Final = re.compile(r"[0-9a-f.:]{2,45}/[0-9]{1,3}")
_ID: Final = re.compile(r"i-[0-9a-f]{8,17}")
FIELDS: Final = (
    "Region", "Profile", *_SERVICES, "Instance-Type", "Subnet", "Security-Groups", "Ssh-From",
)  # fmt: skip
"""`Region` and `Profile` as the provider's own tools have them; addresses of services of another provider;
`Instance-Type`, `Subnet` and `Security-Groups` of instances; `Ssh-From`, networks from which SSH is let in."""

_ALIVE: Final = ("pending", "running", "stopping", "stopped")
"""States of instances that exist; the others are visible for about an hour after their end."""
_STATES: Final[Mapping[str, State]] = {"pending": "starting", "running": "running", "stopping": "stopping"}
_UP: Final = 300.0
"""Seconds in which an instance is running, or has ended."""
_MOST_VALUES: Final = 200
"""Values that a filter may have."""
_UNKNOWN: Final = ("InvalidSnapshot.NotFound", "InvalidAMIName.Duplicate")
"""What is said of a registration that is allowed, with a snapshot that does not exist."""
_CERTAIN: Final = (
    "Invalid",
    "Insufficient",
    "Unauthorized",
    "VPCIdNotSpecified",
    "VcpuLimit",
    "InstanceLimit",
    "OptIn",
    "Unsupported",
    "Blocked",
    "PendingVerification",
    "AuthFailure",
    "MissingParameter",
    "OperationNotPermitted",
)
"""Beginnings of the reasons why nothing was started, for certain."""
_TIME: Final = re.compile("[0-9]{1,11}")


def provider(target: Target) -> Ec2:
    """The account and region that a target names; nothing is asked yet."""
    settings = target.settings
    for field in _SERVICES:
        if field in settings and not _ADDRESS.fullmatch(settings[field]):
            raise Error(f"{field} of target {target.name} is not an address", "such as https://HOST:PORT/", USAGE)
    networks = settings.get("Ssh-From", "").split()
    for network in networks:
        if not _NETWORK.fullmatch(network):
            raise Error(
                f"Ssh-From of target {target.name} has {printable(network, 80)}",
                "give networks: 203.0.113.0/24",
                USAGE,
            )
    endpoints = tuple((service, settings[field]) for field, service in _SERVICES.items() if field in settings)
    if endpoints and "Endpoint" not in settings:
        raise Error(f"target {target.name} has an endpoint, but none of EC2", "add the field Endpoint", USAGE)
    account = Account.of(target.name, settings.get("Region", ""), settings.get("Profile", ""), endpoints)
    return Ec2(target, account, tuple(networks), state.root())


@dataclass(frozen=True, slots=True)
class Ec2:
    """The instances and images of an account that this program made; its files here are keys and images' disks."""

    target: Target
    account: Account
    networks: tuple[str, ...]
    root: Path
    pause: float = 5.0

    def about(self) -> str:
        """Account, region, endpoint, and from where instances can be logged in to."""
        where = dict(self.account.endpoints).get("ec2", "")
        given = self.target.settings.get("Security-Groups", "")
        ssh = (
            f"as {printable(given, 80)} says" if given else f"from {' '.join(self.networks) or 'nowhere (Ssh-From)'}"
        )
        return f"account {self._owner()[0]}, region {self.account.region}{where and f', {where}'}, SSH {ssh}"

    def _owner(self) -> tuple[str, str]:
        """The number of the account, and who asks; the profile, if the provider has no STS."""
        if not self.account.has("sts"):
            return f"of profile {self.account.profile or 'default'}", ""
        said = self.account.call("sts", "get_caller_identity")
        return printable(str(said.get("Account", "")), 40), printable(str(said.get("Arn", "")), 250)

    def check(self, spec: MachineSpec) -> None:
        """What the image and the type of instance are, and whether the account may start one."""
        registration.check(spec.image)
        if spec.boot:
            raise Error("--boot is not for EC2: image and type of instance decide how it boots", "omit --boot", USAGE)
        launch.user_data(spec)
        kind = self._kind(spec)
        volumes.find(self.account, spec.disks, self._subnet)
        if image := images.find(self.account, spec.image.stem):
            asked = launch.parameters(spec, image.id, kind, Place(subnet=self._subnet), {}, (1, 1))
            self.account.allows("run_instances", asked)
        else:
            self._allows_image(spec.image)

    def _kind(self, spec: MachineSpec) -> str:
        """The type of instance; Error if it is too small, or of another architecture."""
        wanted = self.target.settings.get("Instance-Type", "")
        kind = wanted or launch.kind(spec)
        try:
            answer = self.account.call("ec2", "describe_instance_types", InstanceTypes=[kind])
        except RefusedError as error:
            if error.code != "InvalidInstanceType":
                raise
            raise Error(
                f"{self.account.region} has no instances of type {printable(kind, 80)}",
                "name another one in the target's file, with the field Instance-Type",
                USAGE,
            ) from None
        found = answer["InstanceTypes"][0]
        architecture = registration.ARCHITECTURES[spec.image.id.architecture]
        if architecture not in found.get("ProcessorInfo", {}).get("SupportedArchitectures", (architecture,)):
            raise Error(
                f"instances of type {kind} are not {architecture}, as {spec.image.stem} is",
                "give --arch, or another Instance-Type",
                USAGE,
            )
        cpus, memory = (
            found.get("VCpuInfo", {}).get("DefaultVCpus", 0),
            found.get("MemoryInfo", {}).get("SizeInMiB", 0),
        )
        if spec.cpus > cpus or (spec.memory or spec.image.machine.memory) >> 20 > memory:
            raise Error(
                f"instances of type {kind} have {cpus} processors and {memory} MiB",
                "give less --cpus and --memory, or another Instance-Type",
                USAGE,
            )
        return kind

    def publish(self, source: Source) -> str:
        """The id of the image, which is registered first if it is not yet."""
        return self._made(source).id

    def _made(self, source: Source) -> images.Image:
        return images.made(self.account, source, lambda: bases.of(self.root, source), self.root / "uploads")

    def run(self, spec: MachineSpec, image: str, names: Sequence[str], least: int) -> Started:
        """Start all instances by one call; those that ended again at once are counted as not started."""
        self._refuse_used(names)
        found = volumes.find(self.account, spec.disks, self._subnet)
        place = self._place(found)
        kind = self._kind(spec)
        token = secrets.token_hex(16)
        given = launch.given(spec, token, self._owner()[1], names)
        wanted = launch.parameters(spec, image, kind, place, given, (least, len(names)))
        ids: list[str] = []
        try:
            answer = self.account.settled("run_instances", ClientToken=token, **wanted)
            ids += (identifier(one["InstanceId"]) for one in answer["Instances"])
            self._name(ids, names)
            alive, reasons = self._up(ids)
            if len(alive) < least:
                raise Error(f"{len(alive)} of {len(names)} instances were started: {reasons}", "all were ended again")
            self._refuse_used(names, besides=ids)
            volumes.attach(self.account, found, alive[0])
            if len(ids) < len(names) and not reasons:
                reasons = f"{self.account.region} has not more of type {kind} now"
            return Started(tuple(self._instance(one) for one in self._described(alive)), reasons)
        except BaseException as error:
            # What was refused started nothing.
            if ids or not (isinstance(error, RefusedError) and error.code.startswith(_CERTAIN)):
                with signals.undisturbed():
                    self._undo(token, ids)
            raise

    def _refuse_used(self, names: Sequence[str], besides: Sequence[str] = ()) -> None:
        """Error if other instances have these names: EC2 itself lets several have the same tag."""
        for name, one in self._ours(names):
            if one["InstanceId"] not in besides and name in names:
                raise NameInUseError(name)

    @property
    def _subnet(self) -> str:
        return self.target.settings.get("Subnet", "")

    def _place(self, disks: Sequence[Volume]) -> Place:
        groups = tuple(self.target.settings.get("Security-Groups", "").split())
        return Place(
            access.key(self.account, keys.public(self.root)),
            groups or (access.group(self.account, self.networks, self._subnet),),
            self._subnet,
            disks[0].zone if disks and not self._subnet else "",
        )

    def _name(self, ids: Sequence[str], names: Sequence[str]) -> None:
        """Give several instances their names; a single one has it from its beginning."""
        for one, name in zip(ids, names, strict=False) if len(names) > 1 else ():
            self._tag(one, launch.named(name))

    def _tag(self, one: str, given: Mapping[str, str]) -> None:
        self.account.settled("create_tags", Resources=[one], Tags=tags.members(given))

    def _up(self, ids: Sequence[str]) -> tuple[list[str], str]:
        """Those that run, and why the others do not; one question for all of them."""
        end = time.monotonic() + _UP
        shown = Progress(1)
        shown.step(f"wait until {len(ids)} instance{'s' if len(ids) > 1 else ''} run")
        while True:
            found = self._described(ids)
            pending = len(ids) - len(found) + sum(one["State"]["Name"] == "pending" for one in found)
            if not pending or time.monotonic() > end:
                break
            shown.tick(f"{len(ids) - pending} of {len(ids)}")
            time.sleep(POLL)
        shown.end()
        alive = [str(one["InstanceId"]) for one in found if one["State"]["Name"] in _ALIVE]
        reasons = dict.fromkeys(_reason(one) for one in found if str(one["InstanceId"]) not in alive)
        return alive, "; ".join(filter(None, reasons))

    def _described(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """What EC2 says of these instances, in their order; those that it does not know yet are left out."""
        try:
            found = {
                str(one["InstanceId"]): one
                for answer in self.account.pages("describe_instances", "Reservations", InstanceIds=[*ids])
                for one in answer["Instances"]
            }
        except RefusedError as error:
            if error.code != "InvalidInstanceID.NotFound":
                raise
            found = {
                str(one["InstanceId"]): one for one in self._all([{"Name": "instance-id", "Values": [*ids]}], ())
            }
        return [found[one] for one in ids if one in found]

    def _all(
        self, filters: Sequence[Mapping[str, object]], states: Sequence[str] = _ALIVE
    ) -> list[Mapping[str, Any]]:
        """Those that fit the filters, and are in one of these states, or in any."""
        wanted = [{"Name": "instance-state-name", "Values": [*states]}] if states else []
        return [
            one
            for answer in self.account.pages(
                "describe_instances", "Reservations", Filters=[*filters, *wanted], MaxResults=1000
            )
            for one in answer["Instances"]
            if identifier(one["InstanceId"])
        ]

    def _undo(self, token: str, ids: Sequence[str]) -> None:
        """End what a call started, even if its answer was lost; say what may be left."""
        end = time.monotonic() + VISIBLE
        with contextlib.suppress(Error, OSError):
            while time.monotonic() < end:
                found = ids or [str(one["InstanceId"]) for one in self._all(tags.where({tags.RUN: token}))]
                # What was started a moment ago may not be known yet.
                if found and self._terminate(found):
                    return
                time.sleep(POLL)
        say(
            f"debian-cloud: instances in {self.account.region} may be left, with the tag {tags.RUN}={token}: "
            "see `debian-cloud instances`\n"
        )

    def describe(self, names: Sequence[str] = ()) -> tuple[Instance, ...]:
        """The instances that have this program's tag, by one request for a thousand."""
        found = [(name, self._learned(one) if names else one) for name, one in self._ours(names)]
        return tuple(sorted((self._instance(one, name) for name, one in found), key=lambda one: one.name))

    def _ours(self, names: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
        """Those of these names, or all, each with its name.

        One without a name, or whose name an older one has, is known by its id.
        """
        filters: list[dict[str, object]] = [{"Name": "tag-key", "Values": [tags.RUN]}]
        if 0 < len(names) <= _MOST_VALUES and not any(map(_ID.fullmatch, names)):
            filters.append({"Name": f"tag:{tags.NAME}", "Values": [*names]})
        found: dict[str, Mapping[str, Any]] = {}
        for one in sorted(self._all(filters), key=lambda one: (str(one.get("LaunchTime")), one["InstanceId"])):
            name = _name(one)
            found[name if name not in found else str(one["InstanceId"])] = one
        return [(name, one) for name, one in found.items() if not names or name in names]

    def _learned(self, one: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same instance with its host key, which is read from the console once it is there."""
        has = tags.of(one)
        if has.get(tags.HOST_KEY) or one["State"]["Name"] != "running":
            return one
        if not (key := launch.host_key(self._console(str(one["InstanceId"])))):
            return one
        self._tag(str(one["InstanceId"]), {tags.HOST_KEY: key})
        return {**one, "Tags": [*one.get("Tags", ()), {"Key": tags.HOST_KEY, "Value": key}]}

    def _instance(self, one: Mapping[str, Any], name: str = "") -> Instance:
        has = tags.of(one)
        expires = has.get(tags.EXPIRES, "")
        launched = one.get("LaunchTime")
        return Instance(
            name=name or _name(one),
            id=str(one["InstanceId"]),
            target=self.target.name,
            image=has.get(tags.IMAGE, ""),
            architecture=has.get(tags.ARCHITECTURE, ""),
            state=_STATES.get(one["State"]["Name"], "stopped"),
            created=int(launched.timestamp()) if isinstance(launched, datetime) else 0,
            expires=int(expires) if _TIME.fullmatch(expires) else 0,
            login=self._login(one, has),
            throw_away=has.get(tags.THROW_AWAY) == "yes",
            reason=_reason(one) if one["State"]["Name"] != "running" else "",
        )

    def _login(self, one: Mapping[str, Any], has: Mapping[str, str]) -> Login | None:
        host = str(one.get("PublicIpAddress") or one.get("PrivateIpAddress") or "")
        user, key = has.get(tags.USER, ""), has.get(tags.HOST_KEY, "")
        if one["State"]["Name"] != "running" or not is_host(host) or not is_user(user):
            return None
        alias = f"debian-cloud-{one['InstanceId']}"
        return Login(user, host, 22, alias, key if launch.is_host_key(key) else "", str(self.root / keys.NAME))

    def console(self, name: str) -> Console:
        """What the provider keeps of the console: the last 64 KiB."""
        return Console(self._console(self._one(name).id).encode("utf-8", "surrogateescape"))

    def _console(self, one: str) -> str:
        try:
            answer = self.account.call("ec2", "get_console_output", InstanceId=one, Latest=True)
        except RefusedError as error:
            # Only some types of instances have the latest output.
            if error.code != "UnsupportedOperation":
                raise
            answer = self.account.call("ec2", "get_console_output", InstanceId=one)
        return str(answer.get("Output", ""))

    def _one(self, name: str) -> Instance:
        found = self._ours([name])
        if not found:
            everything = [one.name for one in self.describe()]
            raise Error(f"there is no instance {printable(name, 80)}", did_you_mean(name, everything), USAGE)
        ((of, one),) = found
        return self._instance(one, of)

    def power(self, name: str, action: Power, *, force: bool = False, seconds: float = PATIENCE) -> None:
        """Start, stop or reboot."""
        one = self._one(name)
        if one.state in ("starting", "stopping"):
            raise Error(f"{name} is {one.state}", "run it again in a minute", USAGE)
        if action == "start" and one.state != "stopped":
            raise Error(f"{name} is running already", "log in with `debian-cloud ssh`, or reboot it", USAGE)
        if action != "start" and one.state != "running":
            raise Error(f"{name} is not running", f"start it with `debian-cloud start {name}`", USAGE)
        if action == "stop" and one.throw_away:
            # Only if it powers itself off does EC2 end it.
            self._terminate([one.id])
            return
        if action == "reboot":
            # EC2 itself resets a guest that does not listen, after four minutes.
            self.account.call("ec2", "reboot_instances", InstanceIds=[one.id])
            return
        if action == "stop":
            self.account.call("ec2", "stop_instances", InstanceIds=[one.id], Force=force)
        else:
            self.account.call("ec2", "start_instances", InstanceIds=[one.id])
        self._until(
            one.id, {"stop": ("stopped", "terminated", "shutting-down"), "start": ("running",)}[action], seconds
        )

    def _until(self, one: str, wanted: Sequence[str], seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            found = self._described([one])
            now = str(found[0]["State"]["Name"]) if found else "terminated"
            if now in wanted:
                return
            if time.monotonic() > end or now == "terminated":
                reason = _reason(found[0]) if found else ""
                raise Error(
                    f"{one} is {now} after {seconds:.0f} s{reason and f': {reason}'}",
                    "" if now == "terminated" else "look again later: debian-cloud instances",
                )
            time.sleep(POLL)

    def extend(self, name: str, expires: int) -> None:
        """Tell the guest, then write it down as a tag."""
        one = next(iter(self.describe((name,))), None) or self._one(name)
        expiry.tell(one, expires)
        self._tag(one.id, {tags.EXPIRES: str(expires)})

    def terminate(self, names: Sequence[str]) -> None:
        """End instances with their disks; keys, groups and persistent disks stay."""
        ids = [str(one["InstanceId"]) for _, one in self._ours(names)] if names else []
        if ids:
            self._terminate(ids)

    def _terminate(self, ids: Sequence[str]) -> bool:
        """Terminate, and report whether all were known; if one is not, the call fails for all, so then one by one."""
        try:
            self.account.call("ec2", "terminate_instances", InstanceIds=[*ids])
        except RefusedError as error:
            if error.code != "InvalidInstanceID.NotFound":
                raise
            if len(ids) == 1:
                return False
            known = [self._terminate([one]) for one in ids]
            return all(known)
        return True

    def allows(self, source: Source) -> None:
        """Whether EC2 would register it."""
        registration.check(source.record)
        self._allows_image(source.record)

    def _allows_image(self, record: ImageRecord) -> None:
        # No such snapshot exists, which some ask first and others last.
        parameters = registration.parameters(record, f"snap-{0:017x}")
        self.account.allows("register_image", parameters, _UNKNOWN)

    def register(self, source: Source, wish: Wish) -> tuple[Registered, ...]:
        """Register here, then copy to the other regions."""
        return images.everywhere(self.account, source, self._made(source), wish)

    def deregister(self, of: ImageId, wish: Wish, *, dry: bool = False) -> tuple[Registered, ...]:
        """Deregister in each region, and delete the snapshots."""
        return images.removed(self.account, of, wish, dry=dry)

    def orphans(self, wish: Wish) -> tuple[Registered, ...]:
        """Snapshots without an image."""
        return images.orphans(self.account, wish, datetime.now(UTC))

    def remove(self, orphan: Registered) -> None:
        """Delete a snapshot."""
        snapshots.removed(self.account.elsewhere(orphan.region), orphan.snapshot)


def _name(one: Mapping[str, Any]) -> str:
    """The name of an instance; its id if it has none, or one that this program did not give."""
    name = tags.of(one).get(tags.NAME, "")
    return name if spec_of.is_name(name) else str(one["InstanceId"])


def _reason(one: Mapping[str, Any]) -> str:
    """Why an instance is in its state, in the provider's words."""
    said = one.get("StateReason", {}).get("Message", "") or one.get("StateTransitionReason", "")
    return printable(str(said), 200)
