# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of a machine for libvirt, from an image's record: one table of architectures. Pure.

Everything is virtio. The machine is named, since libvirt's own choice for an architecture may be one of long ago.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.machines.spec import memory_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debian_cloud.machines.spec import MachineSpec

NAMESPACE: Final = "https://debian-cloud.example/xmlns/machine/1"
"""The namespace of this program's tags in a domain's metadata."""
PREFIX: Final = "debian-cloud"
"""Its prefix."""
_QEMU: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
ET.register_namespace(PREFIX, NAMESPACE)
ET.register_namespace("qemu", _QEMU)


@dataclass(frozen=True, slots=True)
class Place:
    """What a machine has of its host, beside its own disks.

    Its disks are volumes of `pool`, or paths if that is empty; `network` is a network of libvirt. Without one, it has
    QEMU's own, in which nobody reaches it, unless the port of its SSH server is `forwarded`: then the host's kernel
    chooses a port of 127.0.0.1. `log` is the path to which its console is written, too.
    """

    pool: str = ""
    network: str = ""
    forwarded: bool = False
    log: str = ""


_PATHS: Final = Place()


@dataclass(frozen=True, slots=True)
class Board:
    """A machine of libvirt; `firmware` are the ways in which it boots, the usual one first, empty for its own.

    `cpu` is the processor that is emulated, `serial` the kind of its console, `acpi` whether it has ACPI.
    """

    architecture: str
    machine: str
    firmware: tuple[str, ...]
    cpu: str
    serial: str
    acpi: bool
    lacks: tuple[str, ...] = ()
    """Features that the emulated processor does not have."""
    bus: str = "pcie.0"
    """The bus at which QEMU has network cards that libvirt does not know of."""


BOARDS: Final = {
    # Debian 12's QEMU fails at random after cmpxchg16b.
    "amd64": Board("x86_64", "q35", ("bios", "uefi"), "qemu64", "isa-serial", acpi=True, lacks=("cx16",)),
    "i386": Board("i686", "q35", ("bios",), "qemu32", "isa-serial", acpi=True),
    "arm64": Board("aarch64", "virt", ("uefi",), "cortex-a57", "system-serial", acpi=True),
    "armhf": Board("armv7l", "virt", ("uefi",), "cortex-a15", "system-serial", acpi=False),
    # Debian 12's libvirt refuses any processor of it.
    "riscv64": Board("riscv64", "virt", ("uefi",), "", "system-serial", acpi=False),
    "ppc64el": Board("ppc64le", "pseries", (), "POWER9", "spapr-vio-serial", acpi=False, bus="pci.0"),
}
"""Debian architecture -> its machine."""


def board(architecture: str) -> Board:
    """The machine of an architecture; Error if none is known."""
    if architecture not in BOARDS:
        raise Error(
            f"no machine of libvirt is known for {architecture}", f"known: {', '.join(sorted(BOARDS))}", USAGE
        )
    return BOARDS[architecture]


def describe(
    spec: MachineSpec,
    disk: str,
    form: str,
    tags: Mapping[str, str],
    *,
    seed: str = "",
    disks: Sequence[tuple[str, str]] = (),
    place: Place = _PATHS,
    accelerated: bool = True,
) -> str:
    """The description (libvirt, formatdomain) of an instance, with a line end.

    `disk` is the path or the volume of its disk, `form` QEMU's name for that one's format, `seed` that of a raw file
    system with its seed, `disks` the names of disks that outlive it, each with the qcow2 that it is. It is emulated
    unless it is `accelerated`; `tags` are kept in its metadata.
    """
    of, found = spec.image, board(spec.image.id.architecture)
    top = ET.Element("domain", type="kvm" if accelerated else "qemu")
    _text(top, "name", spec.name)
    _text(top, "title", of.stem)
    ET.SubElement(top, "metadata").append(_kept(tags))
    _text(top, "memory", str(memory_of(spec) >> 10), unit="KiB")
    _text(top, "vcpu", str(spec.cpus or 1))
    _boot(top, spec, found)
    features = ET.SubElement(top, "features")
    if found.acpi:
        ET.SubElement(features, "acpi")
    if spec.boot == "secure":
        ET.SubElement(features, "smm", state="on")
    _cpu(top, found, accelerated=accelerated)
    devices = ET.SubElement(top, "devices")
    _disk(devices, place, disk, form)
    if seed:
        ET.SubElement(_disk(devices, place, seed, "raw", writable=False), "readonly")
    for name, persistent in disks:
        # In the guest it is /dev/disk/by-id/virtio-NAME.
        _text(_disk(devices, place, persistent, "qcow2"), "serial", name)
    _network(top, devices, place, found.bus)
    _console(devices, place, found.serial)
    ET.SubElement(ET.SubElement(devices, "rng", model="virtio"), "backend", model="random").text = "/dev/urandom"
    ET.SubElement(devices, "memballoon", model="none")
    ET.indent(top)
    return ET.tostring(top, encoding="unicode") + "\n"


def metadata(tags: Mapping[str, str]) -> str:
    """The element with a machine's tags, to replace the one in its metadata: libvirt gives it its namespace."""
    return ET.tostring(_kept(tags, ""), encoding="unicode")


def tags(text: str) -> Mapping[str, str]:
    """The tags in such an element; ValueError if it is none."""
    try:
        # libvirt may give it without its namespace.
        found = [one for one in ET.fromstring(text) if one.tag.rpartition("}")[2] == "tag"]  # noqa: S314 - expat bounds entities
    except ET.ParseError:
        raise ValueError("it is no XML") from None
    return {one.get("name", ""): one.text or "" for one in found}


def _kept(tags: Mapping[str, str], namespace: str = f"{{{NAMESPACE}}}") -> ET.Element:
    kept = ET.Element(f"{namespace}machine")
    for name, value in sorted(tags.items()):
        ET.SubElement(kept, f"{namespace}tag", name=name).text = value
    return kept


def _boot(top: ET.Element, spec: MachineSpec, found: Board) -> None:
    ways = [way for way in found.firmware if way in spec.image.machine.firmware]
    way = {"secure": "uefi"}.get(spec.boot, spec.boot) or next(iter(ways), "")
    if found.firmware and way not in ways:
        raise Error(
            f"a machine for {spec.image.id.architecture} does not boot {spec.image.stem}"
            f"{f' by {way}' if way else ''}",
            f"it boots by {' or '.join(ways) or 'nothing that the image has'}",
            USAGE,
        )
    system = ET.SubElement(top, "os", {"firmware": "efi"} if way == "uefi" else {})
    _text(system, "type", "hvm", arch=found.architecture, machine=found.machine)
    if way == "uefi":
        enabled = "yes" if spec.boot == "secure" else "no"
        firmware = ET.SubElement(system, "firmware")
        for name in ("secure-boot", "enrolled-keys") if spec.boot == "secure" else ("secure-boot",):
            ET.SubElement(firmware, "feature", enabled=enabled, name=name)
    ET.SubElement(system, "boot", dev="hd")


def _cpu(top: ET.Element, found: Board, *, accelerated: bool) -> None:
    if accelerated:
        ET.SubElement(top, "cpu", mode="host-passthrough")
    elif found.cpu:
        cpu = ET.SubElement(top, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", found.cpu, fallback="allow")
        for name in found.lacks:
            ET.SubElement(cpu, "feature", policy="disable", name=name)


def _disk(devices: ET.Element, place: Place, name: str, form: str, *, writable: bool = True) -> ET.Element:
    """Add a disk after those that are there."""
    target = f"vd{chr(ord('a') + len(devices.findall('disk')))}"
    disk = ET.SubElement(devices, "disk", type="volume" if place.pool else "file", device="disk")
    ET.SubElement(disk, "driver", {"discard": "unmap"} if writable else {}, name="qemu", type=form)
    ET.SubElement(disk, "source", {"pool": place.pool, "volume": name} if place.pool else {"file": name})
    ET.SubElement(disk, "target", dev=target, bus="virtio")
    return disk


def _network(top: ET.Element, devices: ET.Element, place: Place, bus: str) -> None:
    if place.forwarded:
        # Debian 12's libvirt has no forwarded port for a network without privileges.
        words = (
            *("-netdev", "user,id=ssh,hostfwd=tcp:127.0.0.1:0-:22"),
            *("-device", f"virtio-net-pci,netdev=ssh,bus={bus},addr=0x1e,romfile="),
        )
        line = ET.SubElement(top, f"{{{_QEMU}}}commandline")
        for word in words:
            ET.SubElement(line, f"{{{_QEMU}}}arg", value=word)
        return
    interface = ET.SubElement(devices, "interface", type="network" if place.network else "user")
    if place.network:
        ET.SubElement(interface, "source", network=place.network)
    ET.SubElement(interface, "model", type="virtio")


def _console(devices: ET.Element, place: Place, kind: str) -> None:
    serial = ET.SubElement(devices, "serial", type="pty")
    if place.log:
        ET.SubElement(serial, "log", file=place.log, append="on")
    ET.SubElement(serial, "target", type=kind, port="0")
    ET.SubElement(ET.SubElement(devices, "console", type="pty"), "target", type="serial", port="0")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text
