# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of an account: registered, copied to regions, shared, and removed again.

An image in EC2 has the name of ours, and is the same if its snapshot has the tag of the same disk. Whatever is made
has its tags from its beginning where the provider can do that, so what an interrupted command left is found again.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from debian_cloud import names
from debian_cloud.disk import opened
from debian_cloud.errors import Error
from debian_cloud.host.command import failure
from debian_cloud.host.progress import Board, say
from debian_cloud.machines.ec2 import parallel, registration, snapshots, tags
from debian_cloud.machines.ec2.account import POLL, RefusedError, identifier, unless
from debian_cloud.machines.ec2.snapshots import Disk
from debian_cloud.machines.registry import Registered
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from debian_cloud.image.id import ImageId
    from debian_cloud.image.index import ImageRecord
    from debian_cloud.machines.ec2.account import Account
    from debian_cloud.machines.registry import Wish
    from debian_cloud.machines.source import Source

_PATIENCE: Final = 600.0
"""Seconds in which an image is available after its registration, and a region lets images be public."""
_EVER: Final = datetime.max.replace(tzinfo=UTC)
_YOUNG: Final = timedelta(hours=1)
"""A snapshot without an image that is younger may be about to get one."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image in one region, and its snapshot."""

    id: str
    snapshot: str


def find(account: Account, stem: str, *, wait: bool = True) -> Image | None:
    """The image of this name that the account has, once it is available; Error if it has no snapshot."""
    filters = [{"Name": "name", "Values": [stem]}]
    found = account.call("ec2", "describe_images", Owners=["self"], Filters=filters).get("Images", ())
    if not found:
        return None
    image = found[0]
    if wait and image.get("State") != "available":
        _available(account, str(image["ImageId"]))
    for mapping in image.get("BlockDeviceMappings", ()):
        if mapping.get("DeviceName") == image.get("RootDeviceName") and mapping.get("Ebs", {}).get("SnapshotId"):
            return Image(identifier(image["ImageId"]), identifier(mapping["Ebs"]["SnapshotId"]))
    raise Error(
        f"the image {stem} in {account.region} has no snapshot", "it is another's: deregister it, or rename it"
    )


def made(account: Account, source: Source, base: Callable[[], Path], folder: Path) -> Image:
    """The image in its account, which is uploaded and registered unless it is there.

    `base` returns the file of its verified disk, `folder` is for the journals of uploads.
    """
    record = source.record
    registration.check(record)
    there = find(account, record.stem)
    if there and _tags_of(account, there).get(tags.FILE) == source.digest:
        return there
    if not account.has("ebs"):
        raise Error(
            f"target {account.target} has no EBS direct, by which disks are uploaded",
            "add the field Ebs-Endpoint if it has; uploads of bundles to S3 are not supported yet",
        )
    given = {tags.SHOWN: record.stem, tags.IMAGE: record.stem, tags.FILE: source.digest}
    with opened.unpacked(base()) as (_, view):
        if view.size != record.virtual_size:
            raise Error(
                f"{record.stem} has a disk of {view.size} bytes, not of {record.virtual_size}", "get it again"
            )
        disk = Disk.of(view)
        if there:
            return _same(account, there, disk.identity, record.id)
        snapshot = snapshots.made(account, disk, given, registration.size(record), folder)
    return _registered(account, record, snapshot, {**given, tags.DISK: disk.identity})


def _tags_of(account: Account, image: Image) -> dict[str, str]:
    found = account.call("ec2", "describe_snapshots", SnapshotIds=[image.snapshot]).get("Snapshots", ())
    return tags.of(found[0]) if found else {}


def _same(account: Account, there: Image, identity: str, of: ImageId) -> Image:
    if _tags_of(account, there).get(tags.DISK) != identity:
        raise Error(
            f"{account.region} has another image {of.stem}, {there.id}",
            f"if it is not wanted: debian-cloud deregister {of} --on {account.target}",
        )
    return there


def _registered(account: Account, record: ImageRecord, snapshot: str, given: Mapping[str, str]) -> Image:
    """Register a complete snapshot, or return the image that another command registered at the same time."""
    parameters = registration.parameters(record, snapshot)
    at_once = account.supports("ec2", "RegisterImage", "TagSpecifications")
    if at_once:
        parameters |= tags.at_creation("image", given)
    try:
        found = identifier(account.call("ec2", "register_image", **parameters)["ImageId"])
    except RefusedError as error:
        there = find(account, record.stem) if error.code == "InvalidAMIName.Duplicate" else None
        if there is None:
            raise
        return _same(account, there, given[tags.DISK], record.id)
    _available(account, found)
    if not at_once:
        account.call("ec2", "create_tags", Resources=[found], Tags=tags.members(given))
    return Image(found, snapshot)


def _available(account: Account, image: str) -> None:
    end = time.monotonic() + _PATIENCE
    state = "pending"
    while state == "pending" and time.monotonic() < end:
        try:
            found = account.call("ec2", "describe_images", ImageIds=[image]).get("Images", ())
        except RefusedError as error:
            # It may not be known yet everywhere.
            if error.code != "InvalidAMIID.NotFound":
                raise
            found = ()
        state = str(found[0].get("State", "")) if found else "pending"
        if state == "pending":
            time.sleep(POLL)
    if state != "available":
        raise Error(f"{image} in {account.region} is {state}", "see it with the provider's own tools")


def everywhere(account: Account, source: Source, home: Image, wish: Wish) -> tuple[Registered, ...]:
    """Register an image in all regions that are wished, and share it there; each region's failure is its own."""
    # Not those of others, of which some cannot be copied.
    given = {key: value for key, value in _tags_of(account, home).items() if key in tags.COPIED}

    def there(place: Account) -> Registered:
        image = home if place is account else _copied(place, account.region, source.record, home, given)
        reason = ""
        try:
            _share(place, image, wish)
            _announce(place, source.record.id, image, wish.parameters)
        except Error as error:
            # What exists is said.
            reason = error.message
        return Registered(place.region, image.id, image.snapshot, reason)

    return _in_each(account, wish, "copy and register", there)


def _in_each(account: Account, wish: Wish, title: str, do: Callable[[Account], Registered]) -> tuple[Registered, ...]:
    """Do something in each region; if that is interrupted, say where it was done."""
    # Threads must not make sessions.
    places = [account, *(account.elsewhere(region) for region in _regions(account, wish.regions))]
    board = Board(tuple(place.region for place in places))
    found: dict[str, Registered] = {}

    def tried(place: Account) -> Registered:
        try:
            return do(place)
        except (Error, OSError) as error:
            why = error if isinstance(error, Error) else failure(error)
            return Registered(place.region, reason=f"{why.message}{why.hint and f'; {why.hint}'}")

    def done(_: int, place: Account, result: Registered) -> None:
        found[place.region] = result
        board.ended(place.region)

    for place in places:
        board.step(place.region, 1, 1, title)
    try:
        parallel.each(places, tried, done)
    except BaseException:
        board.end()
        complete = ", ".join(f"{one.region} ({one.id})" for one in found.values() if not one.reason) or "none"
        say(f"debian-cloud: regions that were done: {complete}; the same command goes on with the others\n")
        raise
    board.end()
    return tuple(found[place.region] for place in places)


def _regions(account: Account, wished: Sequence[str]) -> Iterator[str]:
    """The regions but the account's own; `all` are those that the account can use."""
    if "all" in wished:
        answer = account.call("ec2", "describe_regions")
        wished = [str(one["RegionName"]) for one in answer.get("Regions", ())]
    yield from (region for region in dict.fromkeys(wished) if region != account.region)


def _copied(place: Account, home: str, record: ImageRecord, image: Image, given: Mapping[str, str]) -> Image:
    identity = given.get(tags.DISK, "")
    if there := find(place, record.stem):
        return _same(place, there, identity, record.id)
    snapshot = snapshots.copied(place, image.snapshot, home, identity, given)
    return _registered(place, record, snapshot, given)


def _share(place: Account, image: Image, wish: Wish) -> None:
    """Let others start an image and read its snapshot: the accounts that are wished, or all."""
    users = [{"UserId": one} for one in wish.accounts]
    groups = [{"Group": "all"}] if wish.public else []
    if not users and not groups:
        return
    place.call("ec2", "modify_image_attribute", ImageId=image.id, LaunchPermission={"Add": [*groups, *users]})
    place.call(
        "ec2",
        "modify_snapshot_attribute",
        SnapshotId=image.snapshot,
        Attribute="createVolumePermission",
        CreateVolumePermission={"Add": [*groups, *users]},
    )


def parameters(of: ImageId, prefix: str) -> tuple[tuple[str, bool], ...]:
    """The names of parameters for an image, and whether each is for ever the same image.

    As Debian's own: PREFIX/{13,trixie}/{latest,SERIAL}/ARCH.
    """
    releases = dict.fromkeys((names.RELEASES.get(of.suite, of.suite), of.suite))
    return tuple(
        (f"{prefix.rstrip('/')}/{release}/{which}/{of.architecture}", which != "latest")
        for release in releases
        for which in ("latest", of.serial)
    )


def _announce(place: Account, of: ImageId, image: Image, prefix: str) -> None:
    """Say in SSM which image is the latest one."""
    for name, lasting in parameters(of, prefix) if prefix else ():
        if not lasting and _is_newer(place, _announced(place, name), of):
            continue
        try:
            place.call(
                *("ssm", "put_parameter"),
                Name=name,
                Value=image.id,
                Type="String",
                DataType="aws:ec2:image",
                Overwrite=not lasting,
            )
        except RefusedError as error:
            if not lasting or error.code != "ParameterAlreadyExists" or _announced(place, name) != image.id:
                raise


def _is_newer(place: Account, image: str, of: ImageId) -> bool:
    """Whether an image is a newer one of the same series; Error if it is of another one."""
    found = place.call("ec2", "describe_images", ImageIds=[image]).get("Images", ()) if image else ()
    name = str(found[0].get("Name", "")) if found else ""
    series = of.stem.removesuffix(of.serial)
    if name and not name.startswith(series):
        raise Error(
            f"the parameters of this prefix are of {printable(name, 80)}",
            "give each configuration its own --parameters",
        )
    with contextlib.suppress(Error):
        return bool(name) and names.serial_key(name.removeprefix(series)) > of.number
    return False


def _announced(place: Account, name: str) -> str:
    try:
        return str(place.call("ssm", "get_parameter", Name=name)["Parameter"]["Value"])
    except RefusedError as error:
        if error.code != "ParameterNotFound":
            raise
        return ""


def removed(account: Account, of: ImageId, wish: Wish, *, dry: bool = False) -> tuple[Registered, ...]:
    """Deregister an image in all regions that are wished, and delete its snapshots; what is gone is no error.

    Also those whose image an interrupted command has deregistered. With `dry`, only say what there is.
    """

    def gone(place: Account) -> Registered:
        image = find(place, of.stem, wait=False)
        if image and tags.DISK not in _tags_of(place, image):
            raise Error(
                f"{image.id} is not an image that this program registered", "deregister it by hand, if you want"
            )
        if image and not dry:
            _conceal(place, of, image, wish.parameters)
            place.call("ec2", "deregister_image", ImageId=image.id)
        left = [image.snapshot] if image and dry else _unused(place, tags.where({tags.IMAGE: of.stem}))
        for one in () if dry else left:
            snapshots.removed(place, one)
        return Registered(place.region, image.id if image else "", " ".join(left))

    return _in_each(account, wish, "deregister", gone)


def _conceal(place: Account, of: ImageId, image: Image, prefix: str) -> None:
    """Remove the parameters that name an image."""
    for name, _ in parameters(of, prefix) if prefix else ():
        if _announced(place, name) == image.id:
            with unless("ParameterNotFound"):
                place.call("ssm", "delete_parameter", Name=name)


def orphans(account: Account, wish: Wish, now: datetime) -> tuple[Registered, ...]:
    """Each snapshot that this program made and no image has; not those that may yet get one."""

    def there(place: Account) -> Registered:
        filters = [{"Name": "tag-key", "Values": [tags.DISK]}]
        return Registered(place.region, snapshot=" ".join(_unused(place, filters, now - _YOUNG)))

    return tuple(
        replace(found, snapshot=one)
        for found in _in_each(account, wish, "look for snapshots", there)
        for one in found.snapshot.split() or ([""] if found.reason else [])
    )


def _unused(place: Account, filters: Sequence[Mapping[str, object]], before: datetime = _EVER) -> list[str]:
    """The snapshots that fit the filters, are not pending, were begun before a time, and are no image's."""
    found = [*place.pages("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=[*filters])]
    disabled = {"IncludeDisabled": True} if place.supports("ec2", "DescribeImages", "IncludeDisabled") else {}
    images = place.pages("describe_images", "Images", Owners=["self"], **disabled) if found else ()
    used = {_snapshot(mapping) for image in images for mapping in image.get("BlockDeviceMappings", ())}
    return sorted(
        identifier(one["SnapshotId"])
        for one in found
        if one.get("State") != "pending" and tags.DISK in tags.of(one)
        if one["SnapshotId"] not in used and _begun(one) < before
    )


def _snapshot(mapping: Mapping[str, Any]) -> str:
    return str(mapping.get("Ebs", {}).get("SnapshotId", ""))


def _begun(one: Mapping[str, Any]) -> datetime:
    found = one.get("StartTime")
    return found if isinstance(found, datetime) else datetime.min.replace(tzinfo=UTC)
