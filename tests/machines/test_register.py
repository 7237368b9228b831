# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands for images and instances in EC2: a real image, read back; and commands that are killed anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from debian_cloud.disk import opened
from debian_cloud.machines.ec2 import tags
from tests.command import debian_cloud, refused
from tests.conftest import ROOT, SUITE, World
from tests.machines.cloud import BLOCK, Cloud, Refused, served

TARGET = """\
Target: there
Driver: ec2
Region: eu-one-1
Endpoint: {0}
Ebs-Endpoint: {0}
Ssm-Endpoint: {0}
Sts-Endpoint: {0}
"""


@dataclass(frozen=True, slots=True)
class There:
    """A cloud, and the target `there` that is it."""

    cloud: Cloud
    folder: Path


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    cloud = Cloud()
    server: ThreadingHTTPServer = served(cloud)
    targets = tmp_path / "config/debian-cloud/targets.d"
    targets.mkdir(parents=True)
    (targets / "there.target").write_text(TARGET.format(f"http://127.0.0.1:{server.server_address[1]}"))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }.items():
        monkeypatch.setenv(name, value)
    yield There(cloud, tmp_path)
    server.shutdown()
    server.server_close()


@pytest.fixture
def image(world: World, there: There) -> Path:
    """The published file of ec2's image, whose archive the user trusts."""
    for path in (world.folder / "config/debian-cloud").iterdir():
        to = there.folder / "config/debian-cloud" / path.name
        if path.is_dir():
            shutil.copytree(path, to)
        else:
            shutil.copy(path, to)
    (found,) = (world.public / f"images/{SUITE}/ec2/amd64").glob("2*/debian-*-2*.qcow2")
    return found


def test_a_published_image_is_registered_and_the_same_block_by_block(there: There, image: Path) -> None:
    done = debian_cloud("register", image, "--on", "there", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert "account 123456789012, region eu-one-1" in done.stderr
    snapshot = there.cloud.snapshots[found["snapshot"]]
    with opened.unpacked(image) as (_, view):
        for index in range(view.size // BLOCK):
            assert view.read(index * BLOCK, BLOCK) == snapshot.blocks.get(index, bytes(BLOCK)), index
    assert all(any(block) for block in snapshot.blocks.values())
    assert there.cloud.count("PutSnapshotBlock") == len(snapshot.blocks)
    (asked,) = there.cloud.registrations
    assert asked["Name"] == re.sub(r"\.qcow2$", "", image.name)
    assert (asked["RootDeviceName"], asked["BootMode"]) == ("/dev/xvda", "uefi-preferred")
    # Again, and what is gone is no error.
    again = debian_cloud("register", image, "--on", "there", "--json")
    assert json.loads(again.stdout) == [found]
    of = "/".join((SUITE, "ec2", "amd64", image.parent.name))
    for _ in range(2):
        assert debian_cloud("deregister", of, "--on", "there").returncode == 0
    assert (there.cloud.images, there.cloud.snapshots) == ({}, {})


def test_a_published_image_is_started_there(there: There, image: Path) -> None:
    dry = debian_cloud("run", image, "--on", "there", "--name", "try", "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "would start try\n"), dry.stderr
    assert (there.cloud.images, there.cloud.instances) == ({}, {})
    done = debian_cloud("run", image, "--on", "there", "--count", "2", "--expires", "1h", "--name", "try")
    assert done.returncode == 0, done.stderr
    assert "debian-cloud ssh --on there try-1    (as admin)" in done.stdout
    listed = json.loads(debian_cloud("instances", "--on", "there", "--json").stdout)
    assert [(one["name"], one["state"]) for one in listed] == [("try-1", "running"), ("try-2", "running")]
    assert debian_cloud("terminate", "try-1", "try-2", "--on", "there").returncode == 0
    assert {one["state"] for one in there.cloud.instances.values()} == {"terminated"}


def test_what_is_not_for_this_is_refused(there: There) -> None:
    refused(debian_cloud("deregister", "--on", "there"), 2, "an image or --clean is needed")
    refused(debian_cloud("deregister", "x", "--on", "there"), 2, "'x' is not the name of an image")
    refused(debian_cloud("register", "ec2", "--on", "nowhere"), 2, "there is no target nowhere")
    refused(debian_cloud("register", "ec2", "--on", "local"), 2, "images are not registered on target local")
    refused(debian_cloud("register", "ec2", "--on", "there", "--account", "me"), 2, "'me' is not the number")


def test_what_interrupted_commands_left_is_removed(there: There) -> None:
    done = debian_cloud("deregister", "--clean", "--on", "there")
    assert (done.returncode, done.stdout) == (0, "")
    there.cloud.faults["DescribeSnapshots"] = [Refused("UnauthorizedOperation", "not you", 403)]
    # As any region that fails: it does not keep the others.
    done = debian_cloud("deregister", "--clean", "--on", "there", "--json")
    (found,) = json.loads(done.stdout)
    assert (done.returncode, "does not allow DescribeSnapshots: not you" in found["reason"]) == (1, True)


# Commands that are killed


SCRIPT = """
import dataclasses, sys
from pathlib import Path
from debian_cloud.machines import drivers, target
from debian_cloud.machines.ec2 import account, snapshots, images, volumes
from debian_cloud.machines.drivers import ec2
from debian_cloud.machines.source import Source
from debian_cloud.machines.spec import MachineSpec
from tests.machines.records import OF_EC2, record
for module in (account, ec2, images, snapshots, volumes):
    module.POLL = 0.01
snapshots._VISIBLE = 0.5
file = Path(sys.argv[1])
of = dataclasses.replace(record("ec2", machine=OF_EC2), virtual_size=file.stat().st_size)
found = drivers.provider(target.find("there", print))
image = found.publish(Source(of, sys.argv[2], file=file))
if len(sys.argv) > 3:
    found.run(MachineSpec("a", of), image, sys.argv[3:], len(sys.argv) - 3)
"""
COMMAND = (sys.executable, "-c", SCRIPT)
PATHS = {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def disk(tmp_path: Path) -> tuple[str, str]:
    """A file with three blocks of data, and its digest."""
    file = tmp_path / "disk.raw"
    file.write_bytes((bytes(512) + b"EFI PART").ljust(2 * BLOCK, b"\0") + b"x".ljust(BLOCK, b"\0") + bytes(BLOCK))
    return str(file), f"sha256-{hashlib.sha256(file.read_bytes()).hexdigest()}"


def killed(there: There, action: str, number: int, *words: str) -> None:
    """Run the script, and kill it when its call of that number and action was done."""
    process = subprocess.Popen(COMMAND + words, env=os.environ | PATHS, stderr=subprocess.PIPE, text=True)
    left = [number]

    def kill(done: str) -> None:
        if done == action:
            left[0] -= 1
            if left[0] == 0:
                process.kill()

    there.cloud.done = kill
    _, said = process.communicate(timeout=120)
    there.cloud.done = lambda _: None
    assert process.returncode == -signal.SIGKILL, said


def whole(*words: str) -> None:
    done = subprocess.run(COMMAND + words, env=os.environ | PATHS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("action", "number"),
    [
        ("StartSnapshot", 1),
        ("CompleteSnapshot", 1),
        ("RegisterImage", 1),
        *(
            pytest.param(action, number, marks=pytest.mark.thorough)
            for action, numbers in {
                "DescribeImages": (1, 2, 3),
                "DescribeSnapshots": (1, 2, 3),
                "PutSnapshotBlock": (1, 2),
            }.items()
            for number in numbers
        ),
    ],
)
def test_an_upload_that_is_killed_ends_as_one_image(
    there: There, disk: tuple[str, str], action: str, number: int
) -> None:
    killed(there, action, number, *disk)
    whole(*disk)
    (image,) = there.cloud.images.values()
    (snapshot,) = there.cloud.snapshots.values()
    assert image["snapshot"] == snapshot.id
    assert b"".join(snapshot.blocks.get(index, bytes(BLOCK)) for index in range(4)) == Path(disk[0]).read_bytes()


@pytest.mark.parametrize(
    ("action", "number"),
    [
        ("RunInstances", 1),
        pytest.param("CreateTags", 1, marks=pytest.mark.thorough),
        pytest.param("DescribeInstances", 2, marks=pytest.mark.thorough),
    ],
)
def test_what_a_killed_start_left_is_listed_and_ended(
    there: There, disk: tuple[str, str], action: str, number: int
) -> None:
    whole(*disk)
    killed(there, action, number, *disk, "a-1", "a-2")
    listed = json.loads(debian_cloud("instances", "--on", "there", "--json").stdout)
    assert len(listed) == 2
    names = [one["name"] for one in listed]
    assert debian_cloud("terminate", *names, "--on", "there").returncode == 0
    assert {one["state"] for one in there.cloud.instances.values()} == {"terminated"}
    assert all(one["tags"].get(tags.RUN) for one in there.cloud.instances.values())
