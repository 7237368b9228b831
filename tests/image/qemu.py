# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual machine for a test: QEMU on a copy-on-write overlay, its serial console in a file."""

from __future__ import annotations

import functools
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Firmware = Literal["bios", "uefi"]

# Debian's package ovmf: Secure Boot code, and variables in which Microsoft's keys are enrolled.
_UEFI_CODE: Final = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
_UEFI_VARIABLES: Final = Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")

_TERMINAL_CONTROL: Final = re.compile(r"\x1b\[[0-9;?=!]*[A-Za-z]|\x1b\([A-Z0-9]|\r")

_PROCESSOR: Final = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    # QEMU 7.2's TCG loses its way at random after cmpxchg16b: a processor that has none.
    "tcg": ("-accel", "tcg", "-cpu", "qemu64,-cx16"),
}

_POLL: Final = 0.5
"""Seconds between two looks at a serial log or a port."""

# mov cx, 0xffff; 1: loop 1b; mov dx, 0xf4; mov al, 0x10; out dx, al; 2: hlt; jmp 2b
_COUNT_AND_EXIT: Final = bytes.fromhex("b9ffff e2fe baf400 b010 ee f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"
_COUNTED: Final = 0x10 << 1 | 1
"""QEMU's exit status when 0x10 is written to isa-debug-exit."""


@functools.cache
def accelerator() -> str:
    """`kvm` where a virtual processor really runs, else `tcg`; DEBIAN_CLOUD_TEST_ACCEL overrides.

    A device /dev/kvm that opens proves nothing: under some nested hypervisors a
    guest never gets on. So a boot sector counts, then ends QEMU by a status of its own.
    """
    if chosen := os.environ.get("DEBIAN_CLOUD_TEST_ACCEL"):
        return chosen
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    with tempfile.NamedTemporaryFile(suffix=".img") as sector:
        sector.write(_COUNT_AND_EXIT)
        sector.flush()
        command = [
            *("qemu-system-x86_64", "-M", "pc", *_PROCESSOR["kvm"], "-nodefaults", "-display", "none"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
            *("-drive", f"file={sector.name},format=raw,if=ide"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=2, check=False)
        except subprocess.TimeoutExpired:
            return "tcg"
    return "kvm" if done.returncode == _COUNTED else "tcg"


def logs() -> Path:
    """The folder in which serial logs stay: DEBIAN_CLOUD_TEST_LOGS, or build/logs."""
    default = Path(__file__).resolve().parents[2] / "build" / "logs"
    folder = Path(os.environ.get("DEBIAN_CLOUD_TEST_LOGS", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def seed(folder: Path, files: Mapping[str, str]) -> Path:
    """A NoCloud seed disk in `folder`: file name (user-data, meta-data, …) -> text.

    A FAT volume named CIDATA on a virtio disk is seen by every kernel that boots the
    image itself; a CD-ROM is not. (cloud-init's documentation, "NoCloud".)
    """
    disk = folder / "seed.img"
    subprocess.run(["mformat", "-C", "-i", disk, "-v", "CIDATA", "-T", "2048", "::"], check=True)
    for name, text in files.items():
        subprocess.run(["mcopy", "-i", disk, "-", f"::{name}"], input=text.encode(), check=True)
    return disk


@dataclass(frozen=True, slots=True)
class Machine:
    """A running virtual machine."""

    process: subprocess.Popen[bytes]
    serial: Path
    ssh_port: int

    def console(self) -> str:
        """What the serial console has said, without terminal control."""
        return _TERMINAL_CONTROL.sub("", self.serial.read_text("utf-8", "replace"))

    def wait(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait until the console says `pattern`; AssertionError with its last lines if it does not."""
        end = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            text = self.console()
            if match := re.search(pattern, text):
                return match
            last = "\n".join(text.splitlines()[-30:])
            assert not ended, f"QEMU ended ({self.process.returncode}) before {pattern!r}: {self.serial}\n{last}"
            assert time.monotonic() < end, f"no {pattern!r} in {seconds} s: {self.serial}\n{last}"
            time.sleep(_POLL)

    def ssh(self, user: str, key: Path, *command: str, seconds: float = 60) -> str:
        """Standard output of a command on the machine; AssertionError if it fails."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            # The keys of a machine that lives for one test are nobody's to know.
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        done = subprocess.run(
            [
                *("ssh", "-F", "none", "-i", key, "-p", str(self.ssh_port)),
                *(f"-o{name}={value}" for name, value in options.items()),
                *(f"{user}@127.0.0.1", "--", *command),
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command} on the machine: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def boot(
    raw: Path, name: str, *, firmware: Firmware = "bios", grow: int = 0, seed_disk: Path | None = None
) -> Iterator[Machine]:
    """Boot a copy of `raw`, `grow` bytes larger, without a way to the outside; ended when left.

    `name` is the serial log's. The image itself is never written to.
    """
    serial = logs() / f"{name}.log"
    serial.write_bytes(b"")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="machine.") as scratch:
        overlay = Path(scratch, "disk.qcow2")
        size = raw.stat().st_size + grow
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(raw.resolve())]
        subprocess.run([*create, str(overlay), str(size)], check=True)
        command = [
            *("qemu-system-x86_64", "-M", "q35,smm=on", *_PROCESSOR[accelerator()], "-m", "1024"),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-drive", f"file={overlay},format=qcow2,if=virtio,cache=unsafe"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
            # No ROM: a machine that finds no boot loader shall stop, not ask the network.
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-rng-pci"),
            *("-serial", f"file:{serial}"),
        ]
        if firmware == "uefi":
            variables = shutil.copy(_UEFI_VARIABLES, scratch)
            command += [
                *("-global", "driver=cfi.pflash01,property=secure,value=on"),
                *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_UEFI_CODE}"),
                *("-drive", f"if=pflash,unit=1,format=raw,file={variables}"),
            ]
        if seed_disk:
            command += ["-drive", f"file={seed_disk},format=raw,if=virtio,readonly=on"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            yield Machine(process, serial, port)
        finally:
            process.kill()
            process.wait()
