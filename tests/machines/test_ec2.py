# SPDX-License-Identifier: GPL-3.0-or-later
"""Images and instances in EC2, through the real boto3, against the cloud of `tests.machines.cloud`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from debian_cloud.errors import Error
from debian_cloud.image.id import ImageId
from debian_cloud.machines import drivers, keys, registry
from debian_cloud.machines.drivers import NameInUseError, ec2
from debian_cloud.machines.drivers.ec2 import Ec2
from debian_cloud.machines.ec2 import account, blocks, images, launch, parallel, snapshots, tags, volumes
from debian_cloud.machines.registry import Wish
from debian_cloud.machines.source import Source
from debian_cloud.machines.spec import Disk, MachineSpec
from debian_cloud.machines.target import Target
from debian_cloud.view import View
from tests.machines.cloud import BLOCK, Cloud, Lost, Refused, Snapshot, of, served
from tests.machines.records import OF_EC2, record

REGION = "eu-one-1"
KEY = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'b' * 43}"
CONSOLE = f"""boot\r
-----BEGIN SSH HOST KEY KEYS-----\r
ecdsa-sha2-nistp256 AAAAE2 root@ip\r
{KEY} root@ip\r
-----END SSH HOST KEY KEYS-----\r
login:"""
SIZE = 2**26
DATA = {0: bytes(512) + b"EFI PART", 7: b"\0" * 100 + b"middle", 127: b"last"}
"""Block -> its beginning."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's, and no patience."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config.d"))
    monkeypatch.setattr(account, "_ATTEMPTS", 3)
    for module in (account, ec2, images, snapshots, volumes):
        monkeypatch.setattr(module, "POLL", 0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    """One for all tests: boto3 takes a third of a second for each client of an address."""
    found = served(Cloud())
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def cloud(server: ThreadingHTTPServer) -> Cloud:
    found = Cloud(console=CONSOLE)
    of(server, found)
    return found


@pytest.fixture
def address(server: ThreadingHTTPServer, cloud: Cloud) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def target(address: str, **settings: str) -> Target:
    given = {name.replace("_", "-"): value for name, value in settings.items() if value}
    services = dict.fromkeys(("Endpoint", "Ebs-Endpoint", "Ssm-Endpoint", "Sts-Endpoint"), address)
    return Target("there", "ec2", {"Region": REGION, **services, **given})


@pytest.fixture
def there(address: str) -> Ec2:
    found = drivers.provider(target(address))
    assert isinstance(found, Ec2)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """An image with three blocks of data in 128."""
    found = replace(record("ec2", machine=OF_EC2), virtual_size=SIZE)
    file = tmp_path / found.name
    with file.open("wb") as out:
        out.truncate(SIZE)
        for index, data in DATA.items():
            out.seek(index * BLOCK)
            out.write(data)
    return Source(found, f"sha256-{hashlib.sha256(file.read_bytes()).hexdigest()}", file=file)


def spec(source: Source, **given: Any) -> MachineSpec:
    return MachineSpec("a", source.record, **given)


def start(there: Ec2, source: Source, *names: str, least: int = 0, **given: Any) -> drivers.Started:
    image = there.publish(source)
    return there.run(spec(source, **given), image, names or ("a",), least or len(names) or 1)


def disk_of(snapshot: Snapshot) -> bytes:
    """The bytes that a volume of a snapshot has."""
    return b"".join(snapshot.blocks.get(index, bytes(BLOCK)) for index in range(SIZE // BLOCK))


# Images


def test_a_disk_is_uploaded_once_and_is_the_same_byte_for_byte(there: Ec2, cloud: Cloud, source: Source) -> None:
    image = there.publish(source)
    (snapshot,) = cloud.snapshots.values()
    assert source.file
    assert disk_of(snapshot) == source.file.read_bytes()
    assert cloud.count("PutSnapshotBlock") == len(snapshot.blocks) == len(DATA)
    assert snapshot.tags[tags.IMAGE] == source.record.stem
    assert cloud.images[image]["tags"][tags.FILE] == source.digest
    calls = len(cloud.calls)
    assert there.publish(source) == image
    assert "PutSnapshotBlock" not in cloud.calls[calls:]
    assert len(cloud.images) == len(cloud.snapshots) == 1


@pytest.mark.parametrize(
    ("architecture", "mode", "wanted"),
    [
        ("amd64", "uefi-preferred", {"Architecture": "x86_64", "BootMode": "uefi-preferred"}),
        ("arm64", "uefi", {"Architecture": "arm64", "BootMode": "uefi", "TpmSupport": "v2.0"}),
    ],
)
def test_the_registration_field_by_field(
    there: Ec2, cloud: Cloud, source: Source, architecture: str, mode: str, wanted: dict[str, str]
) -> None:
    found = replace(record("ec2", architecture, replace(OF_EC2, boot_mode=mode)), virtual_size=SIZE)
    there.publish(replace(source, record=found))
    (snapshot,) = cloud.snapshots
    (asked,) = cloud.registrations
    stem = f"debian-13-ec2-{architecture}-20261120.0"
    mapping = "BlockDeviceMapping.1"
    sent = {key: value for key, value in asked.items() if not key.startswith("TagSpecification")}
    assert sent == {
        "Name": stem,
        "Description": "Debian trixie, ec2, 20261120.0",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/xvda",
        f"{mapping}.DeviceName": "/dev/xvda",
        f"{mapping}.Ebs.SnapshotId": snapshot,
        f"{mapping}.Ebs.VolumeSize": "1",
        f"{mapping}.Ebs.VolumeType": "gp3",
        f"{mapping}.Ebs.DeleteOnTermination": "true",
        "EnaSupport": "true",
        "SriovNetSupport": "simple",
        "ImdsSupport": "v2.0",
        **wanted,
    }
    (image,) = cloud.images.values()
    assert {tags.SHOWN, tags.IMAGE, tags.FILE, tags.DISK} <= {*image["tags"]}


def test_another_image_of_the_same_name_is_not_taken_for_it(there: Ec2, cloud: Cloud, source: Source) -> None:
    there.publish(source)
    assert source.file
    with source.file.open("r+b") as out:
        out.write(bytes(512) + b"EFI PART other")
    other = replace(source, digest=f"sha256-{hashlib.sha256(source.file.read_bytes()).hexdigest()}")
    with pytest.raises(Error, match="has another image debian-13-ec2-amd64") as error:
        there.publish(other)
    assert "deregister" in error.value.hint
    assert len(cloud.snapshots) == 1


def test_the_same_disk_in_another_file_is_the_same_image(there: Ec2, cloud: Cloud, source: Source) -> None:
    image = there.publish(source)
    for one in cloud.snapshots.values():
        one.tags[tags.FILE] = "sha512-of-the-qcow2"
    assert there.publish(source) == image
    assert cloud.count("StartSnapshot") == 1


def test_an_image_without_tags_is_known_by_its_snapshot(there: Ec2, cloud: Cloud, source: Source) -> None:
    """As a kill between registration and tags leaves it, where both are two calls."""
    image = there.publish(source)
    cloud.images[image]["tags"].clear()
    assert there.publish(source) == image


def test_a_snapshot_that_is_not_known_yet_is_asked_again(there: Ec2, cloud: Cloud, source: Source) -> None:
    unknown = [Refused("ResourceNotFoundException", "not yet", 404) for _ in range(8)]
    cloud.faults["PutSnapshotBlock"] = [*unknown]
    cloud.faults["DescribeSnapshots"] = [None, Refused("InvalidSnapshot.NotFound")]
    there.publish(source)
    assert cloud.count("PutSnapshotBlock") == len(DATA) + len(unknown)


def test_throttling_errors_and_lost_answers_change_nothing(there: Ec2, cloud: Cloud, source: Source) -> None:
    cloud.faults["PutSnapshotBlock"] = [
        Refused("RequestThrottledException", "slow", 400),
        Lost(),
        Refused("X", "", 503),
    ]
    cloud.faults["StartSnapshot"] = [Lost()]
    cloud.faults["RegisterImage"] = [Refused("RequestLimitExceeded", "slow", 503), Lost()]
    image = there.publish(source)
    assert [*cloud.images] == [image]
    (snapshot,) = cloud.snapshots.values()
    assert source.file
    assert disk_of(snapshot) == source.file.read_bytes()


def test_a_lost_answer_of_the_last_step_of_an_upload(there: Ec2, cloud: Cloud, source: Source) -> None:
    cloud.faults["CompleteSnapshot"] = [Lost()]
    there.publish(source)
    assert len(cloud.snapshots) == 1


def test_a_token_whose_snapshot_was_deleted_is_not_used_again(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_VISIBLE", 0.1)
    there.publish(source)
    cloud.images.clear()
    cloud.snapshots.clear()
    there.publish(source)
    assert len(cloud.snapshots) == 1


def test_an_upload_that_was_cut_off_goes_on(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "WORKERS", 1)
    cloud.faults["PutSnapshotBlock"] = [None, Refused("AccessDeniedException", "stop", 403)]
    with pytest.raises(Error, match="does not allow PutSnapshotBlock"):
        there.publish(source)
    put = cloud.count("PutSnapshotBlock")
    assert there.publish(source)
    assert (put, cloud.count("PutSnapshotBlock")) == (2, 4)
    assert cloud.count("StartSnapshot") == 1
    (snapshot,) = cloud.snapshots.values()
    assert source.file
    assert disk_of(snapshot) == source.file.read_bytes()
    assert [*(there.root / "uploads").iterdir()] == []


def test_blocks_that_were_accepted_are_not_sent_again(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "WORKERS", 1)
    cloud.faults["CompleteSnapshot"] = [Refused("AccessDeniedException", "stop", 403)]
    monkeypatch.setattr(snapshots, "_ELSEWHERE", 0.1)
    with pytest.raises(Error, match="does not allow CompleteSnapshot"):
        there.publish(source)
    # A line that was cut off does not count.
    (journal,) = (there.root / "uploads").glob("*/snap-*")
    assert journal.read_text() == "0\n7\n127\n"
    journal.write_text("0\n7\n12")
    put = cloud.count("PutSnapshotBlock")
    there.publish(source)
    assert cloud.count("PutSnapshotBlock") == put + 1


def test_a_disk_that_changes_while_it_is_uploaded_is_refused(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_ELSEWHERE", 0.1)
    real = blocks.read
    seen: set[int] = set()

    def changed(view: View, index: int) -> bytes:
        data = real(view, index)
        if index in seen:
            return b"x" + data[1:]
        seen.add(index)
        return data

    monkeypatch.setattr(blocks, "read", changed)
    with pytest.raises(Error, match="the checksum is wrong"):
        there.publish(source)
    assert not cloud.images


def test_two_uploads_at_once_make_one_image(there: Ec2, cloud: Cloud, source: Source) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(there.publish(source))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert len({*found}) == len(cloud.images) == len(cloud.snapshots) == 1


def test_a_target_without_ebs_direct_says_which_way_is_missing(address: str, source: Source) -> None:
    private = drivers.provider(Target("euca", "ec2", {"Region": REGION, "Endpoint": f"{address}/services/compute/"}))
    with pytest.raises(Error, match="target euca has no EBS direct") as error:
        private.publish(source)
    assert "Ebs-Endpoint" in error.value.hint


def test_services_are_called_at_their_own_addresses(address: str, cloud: Cloud, source: Source) -> None:
    blocks_only = Cloud()
    server = served(blocks_only)
    try:
        elsewhere = f"http://127.0.0.1:{server.server_address[1]}"
        found = drivers.provider(target(address, Ebs_Endpoint=elsewhere))
        blocks_only.snapshots = cloud.snapshots
        found.publish(source)
    finally:
        server.shutdown()
        server.server_close()
    assert {*blocks_only.calls} == {"StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot"}
    assert not {*blocks_only.calls} & {*cloud.calls}


def test_regions_are_copied_to_shared_and_announced_as_best_they_can(
    there: Ec2, cloud: Cloud, source: Source
) -> None:
    found = images.made(there.account, source, lambda: Path(str(source.file)), there.root / "uploads")
    # As in another region of the provider; a target with endpoints has only one.
    everywhere = replace(there.account, endpoints=())
    with pytest.raises(Error, match="has endpoints, which are those of eu-one-1"):
        there.account.elsewhere("eu-two-1")
    assert everywhere.elsewhere("eu-two-1").region == "eu-two-1"
    wish = Wish(public=True, accounts=("210987654321",), parameters="/debian/daily")
    if not there.account.supports("ec2", "DisableImageBlockPublicAccess"):
        cloud.public = True
    (result,) = images.everywhere(there.account, source, found, wish)
    assert (result.region, result.id, result.reason) == (REGION, found.id, "")
    assert cloud.images[found.id]["shared"] == ["all", "210987654321"]
    assert cloud.snapshots[found.snapshot].shared == ["all", "210987654321"]
    assert {name for _, name in cloud.parameters} == {
        f"/debian/daily/{release}/{which}/amd64" for release in ("13", "trixie") for which in ("20261120.0", "latest")
    }


def test_the_same_profile_is_used_in_each_region(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile work]\nregion = eu-one-1\naws_access_key_id = AKIAWORK\naws_secret_access_key = x\n"
    )
    found = drivers.provider(Target("work", "ec2", {"Profile": "work"}))
    assert isinstance(found, Ec2)
    elsewhere = found.account.elsewhere("eu-two-1")
    assert (found.account.region, elsewhere.region) == (REGION, "eu-two-1")
    for one in (found.account, elsewhere):
        assert one._session.get_credentials().access_key == "AKIAWORK"


@pytest.fixture
def regions(there: Ec2, monkeypatch: pytest.MonkeyPatch) -> Ec2:
    """The same, but with its endpoint in every region."""

    def elsewhere(account: Any, region: str) -> Any:
        session = account._session.__class__(region_name=region)
        return account if region == account.region else replace(account, region=region, _session=session)

    monkeypatch.setattr(type(there.account), "elsewhere", elsewhere)
    return there


def test_an_image_is_the_same_in_each_region(regions: Ec2, cloud: Cloud, source: Source) -> None:
    found = regions.register(source, Wish(regions=("all",)))
    assert [one.region for one in found] == [REGION, "eu-two-1", "us-three-1"]
    assert len({one.id for one in found if not one.reason}) == 3
    assert {image["region"] for image in cloud.images.values()} == {REGION, "eu-two-1", "us-three-1"}
    assert len({snapshot.tags[tags.DISK] for snapshot in cloud.snapshots.values()}) == 1
    assert cloud.count("PutSnapshotBlock") == len(DATA)
    copies = cloud.count("CopySnapshot")
    assert regions.register(source, Wish(regions=("all",))) == found
    assert (copies, cloud.count("CopySnapshot")) == (2, 2)


def test_a_region_that_fails_does_not_lose_the_others(regions: Ec2, cloud: Cloud, source: Source) -> None:
    cloud.faults["CopySnapshot"] = [Refused("OptInRequired", "not for you\x9b31m", 401)]
    found = regions.register(source, Wish(regions=("eu-two-1", "us-three-1")))
    (failed,) = [one for one in found if one.reason]
    assert "OptInRequired" in failed.reason
    assert "\x9b" not in failed.reason
    assert sum(not one.reason for one in found) == 2


def test_a_deregistered_image_leaves_nothing(regions: Ec2, cloud: Cloud, source: Source) -> None:
    wish = Wish(regions=("all",), parameters="/debian")
    regions.register(source, wish)
    assert cloud.parameters
    regions.deregister(source.record.id, wish)
    assert (cloud.images, cloud.snapshots, cloud.parameters) == ({}, {}, {})
    assert all(not one.id for one in regions.deregister(source.record.id, wish))


def test_a_version_is_for_ever_the_same_image(there: Ec2, cloud: Cloud, source: Source) -> None:
    wish = Wish(parameters="/debian")
    cloud.parameters[REGION, "/debian/13/20261120.0/amd64"] = "ami-other"
    (result,) = there.register(source, wish)
    assert "ParameterAlreadyExists" in result.reason


def test_orphans_are_snapshots_of_ours_that_no_image_has(there: Ec2, cloud: Cloud, source: Source) -> None:
    image = there.publish(source)
    used = cloud.images[image]["snapshot"]
    long_ago = time.time() - 86400
    for name, given, completed, begun in (
        ("snap-0000000a", {tags.DISK: "x"}, True, long_ago),
        ("snap-0000000b", {tags.DISK: "y"}, True, time.time()),
        ("snap-0000000c", {tags.DISK: "z"}, False, long_ago),
        ("snap-0000000d", {"Name": "backup"}, True, long_ago),
    ):
        cloud.snapshots[name] = Snapshot(name, 1, given, REGION, completed=completed, begun=begun)
    cloud.snapshots[used].begun = long_ago
    (orphan,) = there.orphans(Wish())
    assert (orphan.region, orphan.snapshot) == (REGION, "snap-0000000a")
    there.remove(orphan)
    assert {*cloud.snapshots} == {used, "snap-0000000b", "snap-0000000c", "snap-0000000d"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"datasources": ("NoCloud",)}, "does not read EC2's metadata"),
        ({"boot_mode": ""}, "has nothing, but EC2 knows legacy-bios"),
        ({"boot_mode": "uefi-next"}, "has uefi-next, but EC2 knows"),
        ({"volume": "floppy"}, "has floppy, but EC2 knows"),
        ({"root_device": ""}, "names no root device"),
    ],
)
def test_what_ec2_cannot_have_is_told_before_anything_is_made(
    there: Ec2, cloud: Cloud, source: Source, given: dict[str, Any], said: str
) -> None:
    found = replace(source.record, machine=replace(OF_EC2, **given))
    with pytest.raises(Error, match=said):
        there.publish(replace(source, record=found))
    with pytest.raises(Error, match=said):
        there.check(MachineSpec("a", found))
    assert cloud.calls == []


# Instances


def test_it_is_started_stopped_started_and_terminated(there: Ec2, cloud: Cloud, source: Source) -> None:
    started = start(there, source)
    (first,) = started.instances
    assert (first.name, first.state, started.reason) == ("a", "running", "")
    with pytest.raises(Error, match="a is running already"):
        there.power("a", "start")
    there.power("a", "reboot")
    there.power("a", "stop", force=True)
    assert [one.state for one in there.describe()] == ["stopped"]
    with pytest.raises(Error, match="a is not running"):
        there.power("a", "stop")
    there.power("a", "start")
    (again,) = there.describe(("a",))
    assert (again.id, again.image, again.architecture) == (first.id, source.record.stem, "amd64")
    there.terminate(("a",))
    assert there.describe() == ()
    there.terminate(("a",))


def test_the_host_key_is_read_from_the_console_and_kept(there: Ec2, cloud: Cloud, source: Source) -> None:
    cloud.console = "booting"
    (first,) = start(there, source).instances
    assert first.login
    assert (first.login.user, first.login.host, first.login.host_key) == ("admin", "10.0.0.1", "")
    (now,) = there.describe(("a",))
    assert now.login
    assert now.login.host_key == ""
    cloud.console = CONSOLE
    (now,) = there.describe(("a",))
    assert now.login
    assert now.login.host_key == KEY
    # Another computer of the same user knows it from the tag.
    asked = cloud.count("GetConsoleOutput")
    (listed,) = there.describe()
    assert listed.login == now.login
    assert cloud.count("GetConsoleOutput") == asked
    assert there.console("a").log == CONSOLE.encode()


@pytest.mark.parametrize(
    ("console", "key"),
    [
        (CONSOLE, KEY),
        (CONSOLE.replace("\r", ""), KEY),
        (f"{CONSOLE}{CONSOLE.replace('b' * 43, 'c' * 43)}", KEY.replace("b" * 43, "c" * 43)),
        (CONSOLE.replace("-----END", "-----"), ""),
        (CONSOLE.replace("-----BEGIN", "-----"), ""),
        (KEY, ""),
        (CONSOLE.replace(KEY, f"ssh-ed25519 {'A' * 60}"), ""),
        (CONSOLE.replace(KEY, KEY + "\x1b[0m"), ""),
        ("", ""),
    ],
)
def test_a_host_key_on_a_console(console: str, key: str) -> None:
    assert launch.host_key(console) == key


def test_a_tag_that_is_no_host_key_is_not_passed_to_ssh(there: Ec2, cloud: Cloud, source: Source) -> None:
    start(there, source)
    (one,) = cloud.instances.values()
    one["tags"] |= {tags.HOST_KEY: "x\n* ssh-ed25519 AAAA", tags.EXPIRES: "9" * 300, tags.IMAGE: "\x9b31m"}
    (found,) = there.describe()
    assert found.login
    assert (found.login.host_key, found.expires) == ("", 0)
    one["tags"][tags.NAME] = "\x9b31m"
    assert [found.name for found in there.describe()] == [*cloud.instances]
    one["tags"][tags.USER] = "-oProxyCommand=evil"
    (found,) = there.describe()
    assert found.login is None


def test_as_many_as_there_are_but_not_less(there: Ec2, cloud: Cloud, source: Source) -> None:
    cloud.capacity = 2
    started = start(there, source, "a-1", "a-2", "a-3", least=2)
    assert [one.name for one in started.instances] == ["a-1", "a-2"]
    assert "has not more of type t3.micro now" in started.reason
    cloud.capacity = 4
    with pytest.raises(Error, match="InsufficientInstanceCapacity"):
        start(there, source, "b-1", "b-2", "b-3", least=3)
    assert [one.name for one in there.describe()] == ["a-1", "a-2"]


def test_those_that_end_at_once_are_named_with_their_reason(there: Ec2, cloud: Cloud, source: Source) -> None:
    cloud.dying = {1: "Server.InternalError: Internal error on launch"}
    started = start(there, source, "a-1", "a-2", "a-3", least=2)
    assert [one.name for one in started.instances] == ["a-1", "a-3"]
    assert "Internal error on launch" in started.reason
    cloud.dying = {3: "VolumeLimitExceeded", 4: "VolumeLimitExceeded"}
    with pytest.raises(Error, match="1 of 3 instances were started: VolumeLimitExceeded"):
        start(there, source, "b-1", "b-2", "b-3", least=2)
    assert [one.name for one in there.describe()] == ["a-1", "a-3"]


def test_a_lost_answer_does_not_start_another(there: Ec2, cloud: Cloud, source: Source) -> None:
    cloud.faults["RunInstances"] = [Lost()]
    start(there, source)
    assert len(cloud.instances) == 1


@pytest.mark.parametrize("action", ["RunInstances", "CreateTags", "DescribeInstances"])
def test_an_interrupt_leaves_nothing_that_costs(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    image = there.publish(source)
    kind = type(there.account)
    real = kind.call

    def interrupted(self: Any, service: str, operation: str, /, **given: object) -> Any:
        answer = real(self, service, operation, **given)
        name = "".join(word.capitalize() for word in operation.split("_"))
        if name == action and cloud.instances and not cloud.count("TerminateInstances"):
            monkeypatch.setattr(kind, "call", real)
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(kind, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        there.run(spec(source), image, ("a-1", "a-2"), 2)
    assert {one["state"] for one in cloud.instances.values()} == {"terminated"}


def test_an_instance_that_is_not_known_yet_is_ended_all_the_same(there: Ec2, cloud: Cloud, source: Source) -> None:
    image = there.publish(source)
    cloud.faults["DescribeInstances"] = [None, Refused("UnauthorizedOperation", "no", 403)]
    cloud.faults["TerminateInstances"] = [Refused("InvalidInstanceID.NotFound") for _ in range(3)]
    with pytest.raises(Error, match="does not allow DescribeInstances"):
        there.run(spec(source), image, ("a",), 1)
    assert [one["state"] for one in cloud.instances.values()] == ["terminated"]


def test_the_last_answer_counts_too(there: Ec2, cloud: Cloud, source: Source) -> None:
    image = there.publish(source)
    before = cloud.count("DescribeInstances")
    there.run(spec(source), image, ("a",), 1)
    asked = cloud.count("DescribeInstances") - before
    cloud.faults["DescribeInstances"] = [*[None] * (asked - 1), Refused("UnauthorizedOperation", "no", 403)]
    with pytest.raises(Error, match="does not allow DescribeInstances"):
        there.run(spec(source), image, ("b",), 1)
    assert [one["state"] for one in cloud.instances.values()] == ["running", "terminated"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/x", "snap-1\x9b", "-oProxyCommand=x"])
def test_a_name_of_the_provider_s_is_no_path(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(cloud, "new", lambda kind: name if kind == "snap" else f"{kind}-{1:017x}")
    with pytest.raises(Error, match="as the id of something"):
        there.publish(source)
    assert [path.name for path in (there.root / "uploads").glob("*/*")] == ["token"]


def test_an_image_of_others_is_not_deregistered(there: Ec2, cloud: Cloud, source: Source) -> None:
    image = there.publish(source)
    for one in cloud.snapshots.values():
        one.tags.clear()
    (result,) = there.deregister(source.record.id, Wish())
    assert "is not an image that this program registered" in result.reason
    assert image in cloud.images


def test_a_snapshot_that_is_removed_meanwhile_is_no_hang(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_VISIBLE", 0.1)
    cloud.done = lambda action: cloud.snapshots.clear() if action == "CompleteSnapshot" else None
    with pytest.raises(Error, match="is gone"):
        there.publish(source)


def test_what_cannot_be_ended_is_named(
    there: Ec2, cloud: Cloud, source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    image = there.publish(source)
    cloud.dying = {0: "no"}
    cloud.faults["TerminateInstances"] = [Refused("UnauthorizedOperation", "no", 403)]
    with pytest.raises(Error, match="0 of 1 instances were started"):
        there.run(spec(source), image, ("a",), 1)
    assert f"with the tag {tags.RUN}=" in capsys.readouterr().err


def test_names_are_taken_once(there: Ec2, cloud: Cloud, source: Source) -> None:
    start(there, source)
    with pytest.raises(NameInUseError):
        start(there, source)
    there.terminate(("a",))
    start(there, source)


def test_two_commands_with_one_name_at_once(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = there.publish(source)
    real = there._refuse_used
    first = [True]

    def late(self: Ec2, names: Any, besides: Any = ()) -> None:
        if first and first.pop():
            monkeypatch.setattr(Ec2, "_refuse_used", lambda *_, **__: None)
            there.run(spec(source), image, ("a",), 1)
            monkeypatch.setattr(Ec2, "_refuse_used", late)
            return
        real(names, besides)

    monkeypatch.setattr(Ec2, "_refuse_used", late)
    with pytest.raises(NameInUseError):
        there.run(spec(source), image, ("a",), 1)
    assert [one["state"] for one in cloud.instances.values()] == ["running", "terminated"]


def test_an_instance_without_a_name_is_known_by_its_id(there: Ec2, cloud: Cloud, source: Source) -> None:
    """As a kill between start and names leaves it."""
    start(there, source)
    (one,) = cloud.instances
    cloud.instances[one]["tags"].pop(tags.NAME)
    assert [found.name for found in there.describe((one,))] == [one]
    there.power(one, "stop")
    there.terminate((one,))
    assert there.describe() == ()


def test_instances_of_others_are_not_ours(there: Ec2, cloud: Cloud, source: Source) -> None:
    start(there, source)
    (one,) = cloud.instances
    cloud.instances["i-00000000000000abc"] = {**cloud.instances[one], "tags": {"Name": "database"}}
    assert [found.name for found in there.describe()] == ["a"]
    there.terminate(("database", "i-00000000000000abc"))
    assert cloud.instances["i-00000000000000abc"]["state"] == "running"
    with pytest.raises(Error, match="there is no instance i-00000000000000abc"):
        there.power("i-00000000000000abc", "stop")


def test_two_hundred_are_listed_by_one_request(there: Ec2, cloud: Cloud, source: Source) -> None:
    start(there, source)
    (one,) = cloud.instances.values()
    for number in range(1, 200):
        given = {**one["tags"], tags.NAME: f"a-{number}"}
        cloud.instances[f"i-{number + 4096:017x}"] = {**one, "tags": given, "number": number}
    before = cloud.count("DescribeInstances")
    assert len(there.describe()) == 200
    assert cloud.count("DescribeInstances") - before <= 3


def test_ssh_is_let_in_only_from_where_the_target_says(address: str, cloud: Cloud, source: Source) -> None:
    closed = drivers.provider(target(address))
    opened = drivers.provider(target(address, Ssh_From="203.0.113.0/24 2001:db8::/32"))
    assert isinstance(closed, Ec2)
    assert isinstance(opened, Ec2)
    start(closed, source, "a")
    start(opened, source, "b")
    start(opened, source, "c")
    rules = {group["name"].startswith("debian-cloud-ssh"): group["rules"] for group in cloud.groups.values()}
    assert rules[False] == []
    (rule,) = rules[True]
    assert (rule["ipProtocol"], rule["fromPort"], rule["toPort"]) == ("tcp", "22", "22")
    assert (rule["ipRanges"], rule["ipv6Ranges"]) == ([{"cidrIp": "203.0.113.0/24"}], [{"cidrIpv6": "2001:db8::/32"}])
    assert len(cloud.keys) == 1
    given = drivers.provider(target(address, Security_Groups="sg-given", Subnet="subnet-1"))
    assert isinstance(given, Ec2)
    start(given, source, "d")
    assert len(cloud.groups) == 2


@pytest.mark.parametrize(
    "rule",
    [
        {"ipProtocol": "tcp", "fromPort": "22", "toPort": "22", "ipRanges": [{"cidrIp": "0.0.0.0/0"}]},
        {"ipProtocol": "tcp", "fromPort": "80", "toPort": "80", "ipRanges": [{"cidrIp": "203.0.113.0/24"}]},
        {"ipProtocol": "-1", "groups": [{"groupId": "sg-000000000000000ff"}]},
    ],
)
def test_a_group_that_lets_in_more_is_not_used(
    address: str, cloud: Cloud, source: Source, rule: dict[str, Any]
) -> None:
    opened = drivers.provider(target(address, Ssh_From="203.0.113.0/24"))
    assert isinstance(opened, Ec2)
    start(opened, source, "a")
    (group,) = cloud.groups.values()
    group["rules"].append(rule)
    with pytest.raises(Error, match="also lets in"):
        start(opened, source, "b")
    assert len(cloud.instances) == 1


def test_a_group_that_was_half_made_is_completed(address: str, cloud: Cloud, source: Source) -> None:
    opened = drivers.provider(target(address, Ssh_From="203.0.113.0/24 198.51.100.0/24"))
    assert isinstance(opened, Ec2)
    start(opened, source, "a")
    (group,) = cloud.groups.values()
    group["rules"][0]["ipRanges"].pop()
    start(opened, source, "b")
    assert group["rules"][1]["ipRanges"] == [{"cidrIp": "198.51.100.0/24"}]


def test_what_is_asked_for(there: Ec2, cloud: Cloud, source: Source) -> None:
    other = f"ssh-ed25519 {'A' * 68} a'b"
    expires = int(time.time()) + 3600
    start(
        there,
        source,
        disk=2**33,
        cpus=2,
        keys=(other,),
        expires=expires,
        throw_away=True,
        user_data="#!/bin/sh\nid\n",
    )
    (one,) = cloud.instances.values()
    asked = one["asked"]
    assert (asked["InstanceType"], asked["InstanceInitiatedShutdownBehavior"]) == ("t3.micro", "terminate")
    assert asked["BlockDeviceMapping.1.Ebs.VolumeSize"] == "8"
    assert asked["MetadataOptions.HttpTokens"] == "required"
    assert one["tags"][tags.EXPIRES] == str(expires)
    volume = {key: value for key, value in asked.items() if "TagSpecification.2" in key}
    assert volume["TagSpecification.2.ResourceType"] == "volume"
    (found,) = there.describe()
    assert (found.expires, found.throw_away) == (expires, True)
    assert cloud.keys == {asked["KeyName"]: keys.public(there.root)}


def test_a_persistent_disk_outlives_instances(there: Ec2, cloud: Cloud, source: Source) -> None:
    with pytest.raises(Error, match="there is no disk data"):
        there.check(spec(source, disks=(Disk("data"),)))
    start(there, source, disks=(Disk("data", 2**30),))
    (volume,) = cloud.volumes.values()
    (first,) = cloud.instances
    assert volume["instance"] == first
    with pytest.raises(Error, match="the disk data is in-use"):
        start(there, source, "b", disks=(Disk("data"),))
    there.terminate(("a",))
    start(there, source, "b", disks=(Disk("data"),))
    assert len(cloud.volumes) == 1
    assert volume["instance"] not in ("", first)


def test_disks_and_their_instance_are_in_one_zone(there: Ec2, cloud: Cloud, source: Source) -> None:
    for name, zone in (("data", "b"), ("other", "c")):
        cloud.volumes[cloud.new("vol")] = {
            "zone": f"{REGION}{zone}",
            "tags": {tags.VOLUME: name},
            "instance": "",
            "left": 0,
        }
    with pytest.raises(Error, match="the disk other is in eu-one-1c, but the instance would be in eu-one-1b"):
        start(there, source, disks=(Disk("data"), Disk("other")))
    assert not cloud.instances
    start(there, source, disks=(Disk("new", 2**30), Disk("data")))
    assert {one["zone"] for one in cloud.volumes.values() if one["instance"]} == {f"{REGION}b"}


def test_two_of_one_name_can_be_told_apart(there: Ec2, cloud: Cloud, source: Source) -> None:
    """As two commands that were killed at once leave them."""
    start(there, source)
    (first,) = cloud.instances
    second = "i-00000000000000abc"
    cloud.instances[second] = {**cloud.instances[first], "tags": dict(cloud.instances[first]["tags"])}
    assert sorted(one.name for one in there.describe()) == ["a", second]
    there.terminate((second,))
    assert [one.name for one in there.describe()] == ["a"]


def test_one_to_throw_away_ends_when_it_is_stopped(there: Ec2, cloud: Cloud, source: Source) -> None:
    start(there, source, throw_away=True)
    there.power("a", "stop")
    assert [one["state"] for one in cloud.instances.values()] == ["terminated"]


def test_more_names_than_a_filter_takes(there: Ec2, cloud: Cloud, source: Source) -> None:
    start(there, source, "a-7")
    with pytest.raises(NameInUseError):
        there._refuse_used([f"a-{number}" for number in range(300)])


def test_a_provider_that_ignores_dry_run_is_not_taken_for_one_that_agrees(
    there: Ec2, cloud: Cloud, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.publish(source)
    keys.public(there.root)
    cloud.keys["k"] = "x"
    cloud.groups["sg-00000001"] = {"name": "x", "vpc": "x", "rules": []}
    monkeypatch.setattr(cloud, "_dry", lambda _: None)
    place = launch.Place("k", ("sg-00000001",))
    real = launch.parameters
    monkeypatch.setattr(
        launch, "parameters", lambda of, image, kind, _, *others: real(of, image, kind, place, *others)
    )
    with pytest.raises(Error, match="although it was only asked"):
        there.check(spec(source))
    assert [one["state"] for one in cloud.instances.values()] == ["terminated"]


def test_the_latest_one_does_not_go_back(there: Ec2, cloud: Cloud, source: Source) -> None:
    def of(serial: str, config: str = "ec2") -> Source:
        id_ = ImageId("trixie", config, "amd64", serial)
        return replace(source, record=replace(source.record, id=id_))

    wish = Wish(parameters="/debian")
    (new,) = there.register(of("20261121.0"), wish)
    (old,) = there.register(of("20261120.0"), wish)
    assert cloud.parameters[REGION, "/debian/13/latest/amd64"] == new.id != old.id
    assert cloud.parameters[REGION, "/debian/13/20261120.0/amd64"] == old.id
    (other,) = there.register(of("20261121.0", "generic"), wish)
    assert (bool(other.id), "are of debian-13-ec2" in other.reason) == (True, True)


def test_what_a_killed_deregister_left_goes_with_the_next(there: Ec2, cloud: Cloud, source: Source) -> None:
    there.publish(source)
    cloud.images.clear()
    (dry,) = there.deregister(source.record.id, Wish(), dry=True)
    assert dry.snapshot in cloud.snapshots
    there.deregister(source.record.id, Wish())
    assert cloud.snapshots == {}


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("t9.huge", {}, "has no instances of type t9.huge"),
        ("t4g.micro", {}, "instances of type t4g.micro are not x86_64"),
        ("t3.micro", {"memory": 2**32}, "have 2 processors and 1024 MiB"),
        ("", {"cpus": 200}, "no usual type of instance is so large"),
        ("", {"boot": "uefi"}, "--boot is not for EC2"),
    ],
)
def test_a_machine_that_cannot_be_had(
    address: str, cloud: Cloud, source: Source, kind: str, given: dict[str, Any], said: str
) -> None:
    found = drivers.provider(target(address, Instance_Type=kind))
    with pytest.raises(Error, match=said):
        found.check(spec(source, **given))
    assert not cloud.instances


def test_a_check_asks_the_provider_and_makes_nothing(there: Ec2, cloud: Cloud, source: Source) -> None:
    there.check(spec(source))
    assert cloud.registrations == []
    there.publish(source)
    there.check(spec(source))
    assert cloud.calls.count("RunInstances") == 1
    assert cloud.instances == {}
    cloud.faults["RunInstances"] = [Refused("UnauthorizedOperation", "no \x9d0;title\x9c", 403)]
    with pytest.raises(Error, match="does not allow RunInstances") as error:
        there.check(spec(source))
    assert "\x9d" not in error.value.message


# User-data


def parts(text: str) -> list[tuple[str, str]]:
    import email

    found = email.message_from_string(text)
    return [
        (part.get_content_type(), part.get_payload(decode=True).decode())
        for part in found.walk()
        if part.get_content_maintype() != "multipart"
    ]


def test_user_data_goes_in_unchanged_unless_something_is_added(source: Source) -> None:
    assert launch.user_data(spec(source)) == ""
    assert launch.user_data(spec(source, user_data="#cloud-config\n{}\n")) == "#cloud-config\n{}\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("#cloud-config\n{}\n", "text/cloud-config"),
        ("#cloud-config-archive\n[]\n", "text/cloud-config-archive"),
        ("#!/bin/sh\nid\n", "text/x-shellscript"),
        ("#include\nhttps://example.org/x\n", "text/x-include-url"),
        ("## template: jinja\n#cloud-config\n{}\n", "text/jinja2"),
    ],
)
def test_what_is_added_comes_after_the_user_s_own(source: Source, text: str, kind: str) -> None:
    found = parts(launch.user_data(spec(source, user_data=text, expires=1796079594)))
    assert found[0] == (kind, text)
    assert found[1][0] == "text/x-shellscript"
    assert "OnCalendar=2026-11-30" in found[1][1]


def test_user_data_of_several_parts_is_a_part_itself(source: Source) -> None:
    own = launch.user_data(spec(source, user_data="#!/bin/sh\nid\n", expires=1796079594))
    found = parts(launch.user_data(spec(source, user_data=own, keys=(f"ssh-ed25519 {'A' * 68} x",))))
    assert [kind for kind, _ in found] == ["text/x-shellscript"] * 3
    assert found[0][1] == "#!/bin/sh\nid\n"
    assert "authorized_keys" in found[2][1]


def test_the_script_for_keys_is_one(source: Source, tmp_path: Path) -> None:
    other = f"ssh-ed25519 {'A' * 68} it's me"
    ((_, script),) = parts(launch.user_data(spec(source, keys=(other,))))
    done = subprocess.run(["sh", "-n"], input=script, text=True, check=False)
    assert done.returncode == 0
    assert f"ssh-ed25519 {'A' * 68}\n" in script
    assert "it's me" not in script


def test_what_is_added_counts(source: Source) -> None:
    with pytest.raises(Error, match="are more than 16384 bytes"):
        launch.user_data(spec(source, user_data="#!/bin/sh\n" + "x" * 16000, expires=1796079594))


# Bad targets


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"Endpoint": "ftp://x/"}, "Endpoint of target there is not an address"),
        ({"Ebs-Endpoint": "http://127.0.0.1:1"}, "has an endpoint, but none of EC2"),
        ({"Region": ""}, "has no region"),
        ({"Profile": "nobody"}, "the profile of target there cannot be used: .*nobody"),
        ({"Region": "eu", "Ssh-From": "everywhere"}, "Ssh-From of target there has everywhere"),
        ({"Region": "eu", "Regoin": "x"}, "has the unknown field Regoin"),
    ],
)
def test_a_target_that_is_none(settings: dict[str, str], said: str) -> None:
    with pytest.raises(Error, match=said) as error:
        drivers.provider(Target("there", "ec2", settings))
    assert error.value.status == 2


def test_an_endpoint_that_is_not_there_is_told_in_time() -> None:
    begun = time.monotonic()
    found = drivers.provider(target("http://127.0.0.1:9"))
    with pytest.raises(Error, match="ec2 of target there cannot be reached"):
        found.describe()
    assert time.monotonic() - begun < 120


def test_without_credentials(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    # Clients of the same target have theirs.
    found = drivers.provider(replace(target(address), name="another"))
    with pytest.raises(Error, match="there are no credentials for target another"):
        found.describe()


@pytest.mark.parametrize("code", ["AuthFailure", "SignatureDoesNotMatch"])
def test_wrong_credentials(there: Ec2, cloud: Cloud, code: str) -> None:
    cloud.faults["DescribeInstances"] = [Refused(code, "not able to validate", 401)]
    with pytest.raises(Error, match="ec2 of target there refused the credentials"):
        there.describe()


def test_where_it_costs_is_said(there: Ec2, address: str) -> None:
    assert there.about() == f"account 123456789012, region eu-one-1, {address}, SSH from nowhere (Ssh-From)"
    opened = drivers.provider(target(address, Ssh_From="203.0.113.0/24"))
    assert opened.about().endswith(", SSH from 203.0.113.0/24")


def test_only_a_provider_that_keeps_images_registers(tmp_path: Path) -> None:
    with pytest.raises(Error, match="images are not registered on target local"):
        registry.of(Target("local", "qemu", {"Directory": str(tmp_path)}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"regions": ("../x",)}, "'../x' is not a region"),
        ({"accounts": ("me",)}, "'me' is not the number of an account"),
        ({"parameters": "debian"}, "'debian' is not a path of parameters"),
    ],
)
def test_a_wish_that_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Error, match=said):
        Wish(**given)


def test_a_missing_library_is_named_as_its_package() -> None:
    code = """
import sys
sys.modules["boto3"] = None
from debian_cloud.errors import Error
from debian_cloud.machines import drivers
from debian_cloud.machines.target import Target
try:
    drivers.provider(Target("there", "ec2", {"Region": "eu-one-1"}))
except Error as error:
    print(error.message, error.hint, error.status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "targets of the driver ec2 need python3-boto3 apt install python3-boto3 2\n"
