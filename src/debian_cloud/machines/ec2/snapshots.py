# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of disks, written block by block (EBS direct): no bucket, no conversion, and only blocks that have data.

https://docs.aws.amazon.com/ebs/latest/APIReference/Welcome.html

A snapshot has the digest of its disk as a tag from its beginning, so it is found again. An upload that was cut off
goes on where it was: the blocks that were accepted are in a journal here, and without one they are sent again, which
changes nothing. The provider itself removes a snapshot that nobody completes.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from debian_cloud.errors import Error
from debian_cloud.host import folders
from debian_cloud.host.progress import Progress
from debian_cloud.machines.ec2 import blocks, parallel, tags
from debian_cloud.machines.ec2.account import POLL, RefusedError, identifier
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from debian_cloud.machines.ec2.account import Account
    from debian_cloud.machines.ec2.blocks import Block
    from debian_cloud.view import View

_MINUTES: Final = 60
"""After so many minutes without a block, the provider removes a snapshot that was not completed."""
_OLD: Final = 86400
"""Seconds after which what an upload left here is of no use."""
_ONCE: Final = "token"
"""The file with the word by which a snapshot is begun once, even if the answer is lost."""
_VISIBLE: Final = 150.0
"""Seconds in which a new snapshot may be unknown to the service that has just made it."""
_ATTEMPTS: Final = 3
_ELSEWHERE: Final = 20.0
"""Seconds in which a snapshot that another command completes is complete."""
_NOT_YET: Final = "ResourceNotFoundException"
_CLOSED: Final = ("ConflictException", "ValidationException")
"""What is said of a block for a snapshot that is complete, and of other things."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk to be uploaded: its bytes, its blocks that have data, and the digest that names it."""

    view: View
    blocks: tuple[Block, ...]
    identity: str

    @classmethod
    def of(cls, view: View) -> Disk:
        """The disk in a view, which is read once for it."""
        found = tuple(blocks.found(view))
        return cls(view, found, blocks.identity(found, view.size))


def made(account: Account, disk: Disk, given: Mapping[str, str], gib: int, folder: Path) -> str:
    """The complete snapshot of a disk, which is uploaded unless it is there; `given` are its tags.

    `folder` has a directory for each upload that goes on, or was cut off, which only one command at a time uses.
    """
    given = {**given, tags.DISK: disk.identity}
    _remove_old(folder)
    place = folder / f"{account.region}.{disk.identity}"
    with folders.locked(place, f"the upload to {account.region}", wait=True):
        found = _found(account, disk, place) or _begun_and_uploaded(account, disk, given, gib, place)
        shutil.rmtree(place, ignore_errors=True)
    return found


def _remove_old(folder: Path) -> None:
    """Remove what uploads left that nobody goes on with: their snapshots are gone, too."""
    with contextlib.suppress(OSError):
        for old in folder.iterdir():
            if time.time() - old.stat().st_mtime > _OLD:
                shutil.rmtree(old, ignore_errors=True)


def _found(account: Account, disk: Disk, place: Path) -> str:
    for one in of_disk(account, disk.identity):
        found = identifier(one["SnapshotId"])
        if one["State"] == "completed" or _uploaded(account, found, disk, place):
            return found
    return ""


def _begun_and_uploaded(account: Account, disk: Disk, given: Mapping[str, str], gib: int, place: Path) -> str:
    for _ in range(_ATTEMPTS):
        begun = _begun(account, given, gib, place)
        state = _state(account, begun) if begun else "error"
        if state == "completed" or (state != "error" and _uploaded(account, begun, disk, place)):
            return begun
        # A token is of one snapshot for ever, even of one that failed or is gone.
        (place / _ONCE).unlink(missing_ok=True)
    raise Error(
        f"EC2 of target {account.target} removes each snapshot that is begun",
        "look for what deletes snapshots in the account",
    )


def of_disk(account: Account, identity: str) -> list[Mapping[str, Any]]:
    """The snapshots of a disk that are or may become complete, those that are first."""
    found = [
        one
        for one in account.pages(
            "describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=tags.where({tags.DISK: identity})
        )
        if one.get("State") in ("completed", "pending")
    ]
    return sorted(found, key=lambda one: (one["State"], str(one["SnapshotId"])))


def _begun(account: Account, given: Mapping[str, str], gib: int, place: Path) -> str:
    """A new snapshot, or the same again if the answer was lost; "" if it was begun with other words."""
    token = place / _ONCE
    if not token.exists() or not token.read_text("ascii"):
        token.write_text(secrets.token_hex(32), "ascii")
    try:
        answer = account.call(
            *("ebs", "start_snapshot"),
            VolumeSize=gib,
            Timeout=_MINUTES,
            ClientToken=token.read_text("ascii"),
            Tags=tags.members(given),
            Description=given.get(tags.IMAGE, ""),
        )
    except RefusedError as error:
        if error.code != "ConflictException":
            raise
        return ""
    if answer.get("BlockSize") != blocks.SIZE:
        raise Error(
            f"EBS of target {account.target} has blocks of {printable(str(answer.get('BlockSize')), 20)} bytes"
        )
    return identifier(answer["SnapshotId"])


def _state(account: Account, snapshot: str) -> str:
    """The state of a snapshot; "" if it is not known, which it may not be yet."""
    try:
        found = account.call("ec2", "describe_snapshots", SnapshotIds=[snapshot])["Snapshots"]
    except RefusedError as error:
        if error.code != "InvalidSnapshot.NotFound":
            raise
        return ""
    return str(found[0].get("State", "")) if found else ""


def _uploaded(account: Account, snapshot: str, disk: Disk, folder: Path) -> bool:
    """Upload what a pending snapshot lacks, and complete it; False if it does not exist any more."""
    try:
        with _journal(folder, snapshot) as journal:
            _put_all(account, snapshot, disk, journal)
            _complete(account, snapshot, disk)
    except RefusedError as error:
        if error.code == _NOT_YET:
            return False
        # Another command may have completed it.
        if error.code not in _CLOSED or _wait(account, snapshot, _ELSEWHERE, quiet=True) != "completed":
            raise error from None
    else:
        _wait(account, snapshot)
    return True


@dataclass(frozen=True, slots=True)
class _Journal:
    """The numbers of the blocks that were accepted, and the file to which they are added."""

    done: frozenset[int]
    out: IO[str]


@contextlib.contextmanager
def _journal(folder: Path, snapshot: str) -> Iterator[_Journal]:
    path = folder / snapshot
    # A line that was cut off has no end.
    lines = path.read_text("ascii", "replace").split("\n")[:-1] if path.exists() else []
    with path.open("a", buffering=1, encoding="ascii") as out:
        yield _Journal(frozenset(int(line) for line in lines if line.isdecimal()), out)


def _put_all(account: Account, snapshot: str, disk: Disk, journal: _Journal) -> None:
    todo = [block for block in disk.blocks if block.index not in journal.done]
    patience = time.monotonic() + _VISIBLE
    shown = Progress(1)
    shown.step(f"upload {len(todo) * blocks.SIZE >> 20} MiB to {snapshot} in {account.region}")
    begun = time.monotonic()

    def put(block: Block) -> None:
        _put(account, snapshot, disk.view, block, patience)

    def tick(done: int, block: Block, _: None) -> None:
        journal.out.write(f"{block.index}\n")
        rate = done * blocks.SIZE / 2**20 / max(0.1, time.monotonic() - begun)
        shown.tick(f"{done} of {len(todo)} blocks, {rate:.0f} MiB/s")

    try:
        parallel.each(todo, put, tick)
    finally:
        shown.end()


def _put(account: Account, snapshot: str, view: View, block: Block, patience: float) -> None:
    data = blocks.read(view, block.index)
    while True:
        try:
            account.call(
                *("ebs", "put_snapshot_block"),
                SnapshotId=snapshot,
                BlockIndex=block.index,
                BlockData=data,
                DataLength=len(data),
                # The service compares it: a file that was changed since it was read first is refused.
                Checksum=base64.b64encode(block.digest).decode("ascii"),
                ChecksumAlgorithm="SHA256",
            )
        except RefusedError as error:
            if error.code != _NOT_YET or time.monotonic() > patience:
                raise
            time.sleep(POLL)
        else:
            return


def _complete(account: Account, snapshot: str, disk: Disk) -> None:
    account.call(
        *("ebs", "complete_snapshot"),
        SnapshotId=snapshot,
        ChangedBlocksCount=len(disk.blocks),
        Checksum=base64.b64encode(blocks.aggregate(disk.blocks)).decode("ascii"),
        ChecksumAlgorithm="SHA256",
        ChecksumAggregationMethod="LINEAR",
    )


def _wait(account: Account, snapshot: str, seconds: float = float("inf"), *, quiet: bool = False) -> str:
    """The state of a snapshot when it is not pending any more, or after so many seconds; Error if it failed."""
    end = time.monotonic() + seconds
    seen = time.monotonic()
    shown = Progress(1, quiet=quiet)
    shown.step(f"wait until {snapshot} is complete")
    try:
        while (state := _state(account, snapshot)) in ("pending", "") and time.monotonic() < end:
            seen = time.monotonic() if state else seen
            if time.monotonic() - seen > _VISIBLE:
                break
            shown.tick()
            time.sleep(POLL)
    finally:
        shown.end()
    if state not in ("completed", "pending"):
        raise Error(
            f"{snapshot} in {account.region} {f'is in state {printable(state, 40)}' if state else 'is gone'}",
            "run it again: this one is not used",
        )
    return state


def copied(account: Account, source: str, region: str, identity: str, given: Mapping[str, str]) -> str:
    """The complete copy of another region's snapshot in this region, which is made unless it is there."""
    there = of_disk(account, identity)
    if there:
        copy = identifier(there[0]["SnapshotId"])
    else:
        copy = identifier(
            account.call(
                *("ec2", "copy_snapshot"),
                SourceRegion=region,
                SourceSnapshotId=source,
                Description=given.get(tags.IMAGE, ""),
                **tags.at_creation("snapshot", {**given, tags.DISK: identity}),
            )["SnapshotId"]
        )
    _wait(account, copy, quiet=True)
    return copy


def removed(account: Account, snapshot: str, seconds: float = 60.0) -> None:
    """Delete a snapshot that an image may have used until now; what is gone is no error."""
    end = time.monotonic() + seconds
    while True:
        try:
            account.call("ec2", "delete_snapshot", SnapshotId=snapshot)
        except RefusedError as error:
            if error.code == "InvalidSnapshot.NotFound":
                return
            if error.code not in ("InvalidSnapshot.InUse", "InternalError") or time.monotonic() > end:
                raise
            time.sleep(POLL)
        else:
            return
