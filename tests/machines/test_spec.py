# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked for when an instance is started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from debian_cloud.errors import USAGE, Error
from debian_cloud.image import machine
from debian_cloud.machines import spec
from debian_cloud.machines.spec import MachineSpec
from tests.machines.records import MACHINE, SIZE, record

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFz5nDhxhV3nBXU0e0gZ6lqk3k0C5sV8W7m3oOQe0g5Z"


@pytest.mark.parametrize("name", ["a", "try", "a-1", "a" * 48])
def test_a_name(name: str) -> None:
    assert spec.name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "1a", "A", "a.b", "a/b", "..", "a b", "a\n", "a" * 49, "\x1b[2J", "ä", ".gone.x"]
)
def test_no_name(name: str) -> None:
    with pytest.raises(Error) as error:
        spec.name(name)
    assert error.value.status == USAGE
    assert "\x1b" not in error.value.message


def test_a_name_that_nobody_has() -> None:
    assert spec.named("generic", set()) == "generic"
    assert spec.named("generic", {"generic", "generic-2"}) == "generic-3"
    for config in ("my+hpc.1", "9lives", "x" * 80, "++"):
        for used in (set[str](), {spec.named(config, set())}):
            found = spec.named(config, used)
            assert spec.name(found) == found
            assert found not in used


@pytest.mark.parametrize(("text", "counts"), [("1", (1, 1)), ("3", (3, 3)), ("2:5", (2, 5)), ("9999", (9999, 9999))])
def test_a_count(text: str, counts: tuple[int, int]) -> None:
    assert spec.count(text) == counts


@pytest.mark.parametrize("text", ["", "0", "-1", "2:1", "0:3", "1:", ":2", "1e3", "10000", "1:2:3", "٣"])
def test_no_count(text: str) -> None:
    with pytest.raises(Error, match="not a number of instances"):
        spec.count(text)


def test_a_time_from_now() -> None:
    assert [spec.expiry(text, 1000) for text in ("90m", "8h", "3d")] == [6400, 29800, 260200]


@pytest.mark.parametrize("text", ["", "0h", "-8h", "8", "8 h", "1y", "100000h", "8h\n", "٣h"])
def test_no_time(text: str) -> None:
    with pytest.raises(Error, match="not a time from now"):
        spec.expiry(text, 1000)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        f"{KEY} me@example.org\n",
        "sk-ssh-ed25519@openssh.com " + "A" * 80,
        "ecdsa-sha2-nistp256 " + "A" * 120 + "=",
        "ssh-rsa " + "A" * 372,
    ],
)
def test_a_key(key: str) -> None:
    assert spec.key(key, "it") == key.strip()


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "give the public one"),
        ("", "one line"),
        (f"{KEY}\n{KEY}", "one line"),
        (f'command="rm" {KEY}', "one line"),
        (f"{KEY} a\x1b[2J", "one line"),
        ("ssh-ed25519 AAAA", "one line"),
    ],
)
def test_no_key(key: str, hint: str) -> None:
    with pytest.raises(Error) as error:
        spec.key(key, "it")
    assert hint in error.value.hint


def test_user_data_is_what_cloud_init_reads_and_ec2_takes() -> None:
    assert spec.user_data("#cloud-config\n{}\n", "it")
    assert spec.user_data("#!/bin/sh\n" + "#" * (spec.LARGEST_USER_DATA - 10), "it")
    with pytest.raises(Error, match="at most 16384"):
        spec.user_data("#!/bin/sh\n" + "#" * (spec.LARGEST_USER_DATA - 9), "it")
    # Octets count, not characters.
    with pytest.raises(Error, match="at most 16384"):
        spec.user_data("#!/bin/sh\n" + "ä" * (spec.LARGEST_USER_DATA // 2), "it")
    for text in ("", "\n#cloud-config\n", "# cloud-config\n", "packages: [vim]\n", "\ufeff#cloud-config\n"):
        with pytest.raises(Error, match="does not begin as user-data does"):
            spec.user_data(text, "it")


def test_a_disk() -> None:
    assert spec.disk("data", 5) == spec.Disk("data", 5)
    for name in ("", "../x", "a/b", "a,b", "A", "x" * 21, "1a", "a.qcow2"):
        with pytest.raises(Error, match="not a name for a disk"):
            spec.disk(name, 0)


def test_processors() -> None:
    assert [spec.cpus(number) for number in (0, 1, 255)] == [0, 1, 255]
    for number in (-1, 256, 10**9):
        with pytest.raises(Error, match="not a number of processors"):
            spec.cpus(number)


@pytest.mark.parametrize(
    ("changes", "of", "said"),
    [
        ({"disk": SIZE - 2**20}, MACHINE, "--disk is smaller than the image, which has 64 MiB"),
        ({"memory": 2**27}, MACHINE, "--memory is less than .* needs, 256 MiB"),
        ({"boot": "bios"}, replace(MACHINE, firmware=("uefi",)), "does not boot by bios"),
        ({"boot": "secure"}, replace(MACHINE, firmware=("bios",)), "does not boot by uefi"),
        ({"user_data": "#!"}, replace(MACHINE, datasources=()), "has no cloud-init"),
        ({}, machine.UNKNOWN, "does not say what its machine must have"),
    ],
)
def test_what_an_image_cannot_be(changes: dict[str, object], of: machine.Machine, said: str) -> None:
    wanted = replace(MachineSpec("a", record(machine=of)), **changes)
    with pytest.raises(Error, match=said):
        spec.check(wanted)


def test_a_tree_without_a_disk_is_no_machine() -> None:
    with pytest.raises(Error, match="a root file system without a disk") as error:
        spec.check(MachineSpec("a", replace(record("container"), virtual_size=0)))
    assert "systemd-nspawn" in error.value.hint


def test_an_image_as_it_is() -> None:
    wanted = MachineSpec("a", record(), memory=2**28, disk=SIZE, boot="secure", user_data="#!/bin/sh\n")
    assert spec.check(wanted) is wanted
