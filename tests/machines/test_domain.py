# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of a machine for libvirt: each architecture's, which the real libvirt reads."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.machines import domain
from debian_cloud.machines.spec import MachineSpec
from tests.machines.records import MACHINE, record

UEFI = replace(MACHINE, firmware=("uefi",))


PLACE = domain.Place()


def described(architecture: str = "amd64", place: domain.Place = PLACE, **changes: object) -> str:
    of = record(architecture=architecture, machine=MACHINE if architecture in ("amd64", "i386") else UEFI)
    spec = replace(MachineSpec("try", of), **changes)
    return domain.describe(
        *(spec, "/srv/a&b <c>.qcow2", "qcow2", {"image": of.stem}),
        seed="/srv/seed",
        place=place,
        accelerated=False,
    )


def at(text: str, path: str) -> ET.Element:
    found = ET.fromstring(text).find(path)
    assert found is not None, path
    return found


@pytest.mark.parametrize("architecture", domain.BOARDS)
def test_libvirt_reads_it(architecture: str, tmp_path: Path) -> None:
    """Its test driver checks the description as every driver does, and starts nothing."""
    (tmp_path / "try.xml").write_text(described(architecture))
    virsh = ("virsh", "--connect", "test:///default")
    done = subprocess.run(
        [*virsh, f"define {tmp_path / 'try.xml'} --validate; dumpxml try"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = done.stdout[done.stdout.index("<domain") :]
    board = domain.BOARDS[architecture]
    assert at(kept, "os/type").attrib == {"arch": board.architecture, "machine": board.machine}
    assert [at(kept, f"devices/disk[{number}]/target").get("dev") for number in (1, 2)] == ["vda", "vdb"]
    assert at(kept, f"metadata/{{{domain.NAMESPACE}}}machine/{{{domain.NAMESPACE}}}tag").text


def test_the_usual_machine() -> None:
    text = described()
    assert ET.fromstring(text).get("type") == "qemu"
    assert at(text, "os").get("firmware") is None
    assert at(text, "memory").text == str(2**20)
    assert at(text, "cpu/feature").attrib == {"policy": "disable", "name": "cx16"}
    assert at(text, "devices/disk/source").get("file") == "/srv/a&b <c>.qcow2"
    assert at(text, "devices/disk[2]/readonly") is not None
    # The machine that runs another architecture's has no acceleration; that is the caller's to know.
    accelerated = domain.describe(MachineSpec("try", record()), "/x", "raw", {})
    assert ET.fromstring(accelerated).get("type") == "kvm"
    assert at(accelerated, "cpu").get("mode") == "host-passthrough"


def test_secure_boot() -> None:
    text = described(boot="secure")
    assert at(text, "os").get("firmware") == "efi"
    found = {feature.get("name"): feature.get("enabled") for feature in at(text, "os/firmware")}
    assert found == {"secure-boot": "yes", "enrolled-keys": "yes"}
    assert at(text, "features/smm").get("state") == "on"
    plain = described(boot="uefi")
    assert at(plain, "os/firmware/feature").attrib == {"enabled": "no", "name": "secure-boot"}


def test_what_cannot_be() -> None:
    with pytest.raises(Error, match="no machine of libvirt is known for mips"):
        described("mips")
    of = record(architecture="arm64", machine=replace(MACHINE, firmware=("raspi",)))
    with pytest.raises(Error, match="does not boot debian-13-generic-arm64") as error:
        domain.describe(MachineSpec("try", of), "/x", "raw", {})
    assert error.value.hint == "it boots by nothing that the image has"


def test_disks_in_a_pool() -> None:
    place = domain.Place(pool="p", network="n", log="/srv/log")
    text = domain.describe(
        MachineSpec("try", record()), "a.qcow2", "qcow2", {}, seed="a.seed", disks=[("data", "d.qcow2")], place=place
    )
    disks = ET.fromstring(text).findall("devices/disk")
    assert [one.get("type") for one in disks] == ["volume"] * 3
    assert [at(text, f"devices/disk[{number}]/source").attrib for number in (1, 2, 3)] == [
        {"pool": "p", "volume": "a.qcow2"},
        {"pool": "p", "volume": "a.seed"},
        {"pool": "p", "volume": "d.qcow2"},
    ]
    assert [one.findtext("serial") for one in disks] == [None, None, "data"]
    assert [one.find("readonly") is not None for one in disks] == [False, True, False]
    assert at(text, "devices/interface").get("type") == "network"
    assert at(text, "devices/interface/source").attrib == {"network": "n"}
    assert at(text, "devices/serial/log").attrib == {"file": "/srv/log", "append": "on"}


@pytest.mark.parametrize(("architecture", "bus"), [("amd64", "pcie.0"), ("ppc64el", "pci.0")])
def test_a_forwarded_port(architecture: str, bus: str) -> None:
    text = described(architecture, place=domain.Place(forwarded=True))
    top = ET.fromstring(text)
    assert top.findall("devices/interface") == []
    words = [one.get("value") for one in top.find("{http://libvirt.org/schemas/domain/qemu/1.0}commandline") or ()]
    assert words[:2] == ["-netdev", "user,id=ssh,hostfwd=tcp:127.0.0.1:0-:22"]
    assert f",bus={bus},addr=0x1e" in str(words[3])


def test_tags_are_read_as_they_were_written() -> None:
    tags = {"a": "<&\"'>", "b": "ä €", "c": ""}
    assert domain.tags(domain.metadata(tags)) == tags
    with pytest.raises(ValueError, match="it is no XML"):
        domain.tags("<machine>")
