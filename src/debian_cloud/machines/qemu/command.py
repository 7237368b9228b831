# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of QEMU for an instance, in whose directory it runs. Pure.

All paths but that of the firmware are relative to that directory, so none of them can have a character that is
special to QEMU, and the directory can be renamed. The private host key is in files, since others can read arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from debian_cloud.errors import USAGE, Error
from debian_cloud.machines import seed
from debian_cloud.machines.qemu import state

if TYPE_CHECKING:
    from debian_cloud.machines.qemu.state import Kept

Accelerator = Literal["kvm", "tcg"]


@dataclass(frozen=True, slots=True)
class Board:
    """The machine that QEMU has for an architecture.

    `versioned` is a name as the patterns of firmware descriptors match it; `firmware` is QEMU's own firmware, if that
    starts disks; `cpu` is the processor that is emulated.
    """

    program: str
    architecture: str
    machine: str
    versioned: str
    firmware: tuple[str, ...]
    cpu: str


BOARDS: Final = {
    # Debian 12's QEMU fails at random after cmpxchg16b, so the processor has no such instruction.
    "amd64": Board("qemu-system-x86_64", "x86_64", "q35", "pc-q35-0", ("bios",), "qemu64,-cx16"),
    "arm64": Board("qemu-system-aarch64", "aarch64", "virt", "virt-0", (), "cortex-a57"),
}
"""Debian architecture -> its machine."""

# QEMU makes no process and gets no more rights (QEMU, System Emulation, -sandbox).
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_BUFFER: Final = 256
"""MiB for translated code; QEMU would take 1024."""
_DRIVERS: Final = {"qcow2": "qcow2", "raw": "raw", "vhd": "vpc"}
"""Format of a base -> QEMU's name for it."""


def board(architecture: str) -> Board:
    """The machine of an architecture; Error if none is known."""
    if architecture not in BOARDS:
        raise Error(
            f"QEMU is not used here for {architecture}", f"known architectures: {', '.join(sorted(BOARDS))}", USAGE
        )
    return BOARDS[architecture]


def driver(form: str) -> str:
    """QEMU's name for the format of a base."""
    return _DRIVERS[form]


def bases() -> tuple[str, ...]:
    """The formats that QEMU reads as they are."""
    return tuple(_DRIVERS)


def argv(kept: Kept, accelerator: Accelerator, qmp: int, console: int) -> tuple[str, ...]:
    """The command for an instance; `qmp` and `console` are the descriptors of sockets that listen."""
    found = board(kept.architecture)
    secure = kept.boot == "secure"
    options = [
        *("-name", f"debian-cloud-{kept.name}", "-no-user-config", "-nodefaults", "-display", "none"),
        *("-sandbox", _SANDBOX, "-pidfile", state.PID),
        *("-m", str(kept.memory >> 20), "-smp", str(kept.cpus)),
        *(("-accel", "kvm", "-cpu", "host") if accelerator == "kvm" else ("-accel", f"tcg,tb-size={_BUFFER}")),
        *(() if accelerator == "kvm" else ("-cpu", found.cpu)),
        *_chardev("qmp", qmp),
        *("-mon", "chardev=qmp,mode=control"),
        *_chardev("console", console, f",logfile={state.CONSOLE_LOG},logappend=on"),
        *("-serial", "chardev:console"),
        *_disk("root", state.DISK, "qcow2", "bootindex=0"),
        *(word for name in kept.disks for word in _persistent(name)),
        # The kernel chooses a free port of this machine.
        *("-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22"),
        # Without a ROM, a disk that does not boot is not followed by an attempt over the network.
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
    ]
    machine = found.machine
    if kept.code:
        code = kept.code.replace(",", ",,")
        options += [
            *("-blockdev", f"driver=file,node-name=code-file,filename={code},read-only=on"),
            *("-blockdev", f"driver={kept.code_format},node-name=code,file=code-file,read-only=on"),
            *("-blockdev", f"driver=file,node-name=variables-file,filename={state.VARIABLES}"),
            *("-blockdev", f"driver={kept.code_format},node-name=variables,file=variables-file"),
        ]
        machine += ",pflash0=code,pflash1=variables"
    if secure and found.architecture == "x86_64":
        # Only the firmware may write the variables.
        machine += ",smm=on"
        options += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    if kept.way == "seed":
        options += [
            *("-blockdev", f"driver=vvfat,node-name=seed,dir={state.SEED},label={seed.LABEL},read-only=on"),
            *("-device", "virtio-blk-pci,drive=seed"),
        ]
    if kept.way == "credentials":
        for number in range(CREDENTIALS):
            options += ["-smbios", f"type=11,path={state.CREDENTIAL}.{number}"]
    return (found.program, "-machine", machine, *options)


CREDENTIALS: Final = 2
"""Number of texts that the firmware passes on (`seed.credentials`)."""


def _chardev(name: str, descriptor: int, more: str = "") -> tuple[str, str]:
    return "-chardev", f"socket,id={name},fd={descriptor},server=on,wait=off{more}"


def _disk(name: str, file: str, form: str, more: str) -> tuple[str, ...]:
    return (
        *("-blockdev", f"driver=file,node-name={name}-file,filename={file},discard=unmap"),
        *("-blockdev", f"driver={form},node-name={name},file={name}-file,discard=unmap"),
        *("-device", f"virtio-blk-pci,drive={name},{more}"),
    )


def _persistent(name: str) -> tuple[str, ...]:
    # In the guest it is /dev/disk/by-id/virtio-NAME.
    return _disk(f"disk-{name}", f"../../{state.DISKS}/{name}.qcow2", "qcow2", f"serial={name}")


def probe(architecture: str, sector: str) -> tuple[str, ...]:
    """The command that runs a few instructions under KVM; `sector` is the path of a file with them."""
    found = board(architecture)
    common = ("-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm", "-cpu", "host")
    if architecture == "arm64":
        return (found.program, "-machine", "virt", *common, "-kernel", sector)
    return (
        *(found.program, "-machine", "pc", *common, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
        *("-drive", f"file={sector.replace(',', ',,')},format=raw,if=ide,snapshot=on"),
    )
