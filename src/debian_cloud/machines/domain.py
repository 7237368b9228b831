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
    from collections.abc import Mapping

    from debian_cloud.machines.spec import MachineSpec

NAMESPACE: Final = "https://debian-cloud.example/xmlns/machine/1"
"""The namespace of this program's tags in a domain's metadata."""


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


BOARDS: Final = {
    # Debian 12's QEMU fails at random after cmpxchg16b.
    "amd64": Board("x86_64", "q35", ("bios", "uefi"), "qemu64", "isa-serial", acpi=True, lacks=("cx16",)),
    "i386": Board("i686", "q35", ("bios",), "qemu32", "isa-serial", acpi=True),
    "arm64": Board("aarch64", "virt", ("uefi",), "cortex-a57", "system-serial", acpi=True),
    "armhf": Board("armv7l", "virt", ("uefi",), "cortex-a15", "system-serial", acpi=False),
    # Debian 12's libvirt refuses any processor of it.
    "riscv64": Board("riscv64", "virt", ("uefi",), "", "system-serial", acpi=False),
    "ppc64el": Board("ppc64le", "pseries", (), "POWER9", "spapr-vio-serial", acpi=False),
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
    spec: MachineSpec, disk: str, form: str, tags: Mapping[str, str], *, seed: str = "", accelerated: bool = True
) -> str:
    """The description (libvirt, formatdomain) of an instance, with a line end.

    `disk` is the path of its disk, `form` QEMU's name for that one's format, `seed` the path of a raw file system
    with its seed. It is emulated unless it is `accelerated`; `tags` are kept in its metadata.
    """
    of, found = spec.image, board(spec.image.id.architecture)
    top = ET.Element("domain", type="kvm" if accelerated else "qemu")
    _text(top, "name", spec.name)
    _text(top, "title", of.stem)
    kept = ET.SubElement(ET.SubElement(top, "metadata"), f"{{{NAMESPACE}}}machine")
    for name, value in sorted(tags.items()):
        tag = ET.SubElement(kept, f"{{{NAMESPACE}}}tag", name=name)
        tag.text = value
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
    _disk(devices, disk, form, "vda", writable=True)
    if seed:
        _disk(devices, seed, "raw", "vdb", writable=False)
    ET.SubElement(ET.SubElement(devices, "interface", type="user"), "model", type="virtio")
    ET.SubElement(ET.SubElement(devices, "serial", type="pty"), "target", type=found.serial, port="0")
    ET.SubElement(ET.SubElement(devices, "console", type="pty"), "target", type="serial", port="0")
    ET.SubElement(ET.SubElement(devices, "rng", model="virtio"), "backend", model="random").text = "/dev/urandom"
    ET.SubElement(devices, "memballoon", model="none")
    ET.register_namespace("debian-cloud", NAMESPACE)
    ET.indent(top)
    return ET.tostring(top, encoding="unicode") + "\n"


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


def _disk(devices: ET.Element, path: str, form: str, target: str, *, writable: bool) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", {"discard": "unmap"} if writable else {}, name="qemu", type=form)
    ET.SubElement(disk, "source", file=path)
    ET.SubElement(disk, "target", dev=target, bus="virtio")
    if not writable:
        ET.SubElement(disk, "readonly")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text
