# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether virtual processors run here: a device that can be opened proves nothing, so some instructions are run.

Under some hypervisors /dev/kvm is there, and a guest makes no progress. That it works is remembered until the next
boot, that it does not, for an hour: another program may have used it, or the machine was busy.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files, run
from debian_cloud.machines.qemu import command, state
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from debian_cloud.machines.qemu.command import Accelerator

OVERRIDE: Final = "DEBIAN_CLOUD_ACCEL"
"""Environment variable with the accelerator to use."""
_DEVICE: Final = Path("/dev/kvm")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_MEMORY: Final = "acceleration"
_HOUR: Final = 3600
_PATIENCE: Final = 3.0
"""Seconds in which a processor must have run a few instructions; emulated, they take 0.2."""
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""Machine of uname(2) -> architecture."""

_SECTORS: Final = {
    # mov cx, 0xffff; 1: loop 1b; mov dx, 0xf4; mov al, 0x10; out dx, al; 2: hlt; jmp 2b; in a boot sector
    "amd64": bytes.fromhex("b9ffff e2fe baf400 b010 ee f4 ebfd").ljust(510, b"\0") + b"\x55\xaa",
    # movz x0, #8; movk x0, #0x8400, lsl 16; hvc #0: SYSTEM_OFF (Arm Power State Coordination Interface, 5.10)
    "arm64": bytes.fromhex("000180d2 0080b0f2 020000d4"),
}
_ENDED: Final = {"amd64": 0x10 << 1 | 1, "arm64": 0}
"""QEMU's exit status when they have run; isa-debug-exit makes it of the byte that is written."""


def found(root: Path, architecture: str) -> Accelerator:
    """The accelerator for guests of an architecture."""
    if chosen := os.environ.get(OVERRIDE):
        if chosen not in ("kvm", "tcg"):
            raise Error(f"{OVERRIDE} is {printable(chosen, 40)!r}", "set it to kvm or tcg", USAGE)
        return "kvm" if chosen == "kvm" else "tcg"
    if _MACHINES.get(os.uname().machine) != architecture or not os.access(_DEVICE, os.R_OK | os.W_OK):
        return "tcg"
    try:
        boot = files.text(_BOOT, 64).strip()
        before = files.text(root / _MEMORY, 256).split()
        age = time.time() - (root / _MEMORY).stat().st_mtime
    except (Error, OSError):
        before, age = [], 0
    if before == [boot, "kvm"]:
        return "kvm"
    if before == [boot, "tcg"] and 0 <= age < _HOUR:
        return "tcg"
    with tempfile.NamedTemporaryFile(prefix="debian-cloud.") as sector:
        sector.write(_SECTORS[architecture])
        sector.flush()
        runs = run.status(command.probe(architecture, sector.name), _PATIENCE) == _ENDED[architecture]
    accelerator: Accelerator = "kvm" if runs else "tcg"
    state.put(root / _MEMORY, f"{boot} {accelerator}\n")
    return accelerator
