# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual machine for a test: QEMU on a copy-on-write overlay, its serial console in a file."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Firmware = Literal["bios", "uefi"]

_README: Final = Path(__file__).resolve().parents[2] / "README.md"

# What a test changes in a documented command: the processor, the port, and the destination of the console.
_AS_DOCUMENTED: Final = """\
#!/usr/bin/python3
import os, sys
real, accelerator, port, serial = {real!r}, {accelerator!r}, {port!r}, {serial!r}
words = sys.argv[1:]
if serial:
    console = words.index("-nographic")
    words[console : console + 1] = ["-display", "none", "-no-reboot", "-serial", "file:" + serial]
kvm = words.index("-accel")
assert words[kvm : kvm + 4] == ["-accel", "kvm", "-accel", "tcg"]
words[kvm : kvm + 4] = accelerator
(network,) = (place for place, word in enumerate(words) if word.startswith("user,"))
assert ":2222-:22" in words[network]
words[network] = words[network].replace(":2222-", ":" + port + "-") + ",restrict=on"
os.execv(real, ["qemu", *words])
"""

# Debian's package ovmf: Secure Boot code, and variables in which Microsoft's keys are enrolled.
_UEFI_CODE: Final = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
_UEFI_VARIABLES: Final = Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")

TERMINAL_CONTROL: Final = re.compile(r"\x1b\[[0-9;?=!]*[A-Za-z]|\x1b\([A-Z0-9]|\r")

_PROCESSOR: Final = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    # QEMU 7.2's TCG fails at random after cmpxchg16b, so use a processor without it.
    "tcg": ("-accel", "tcg", "-cpu", "qemu64,-cx16"),
}

_POLL: Final = 0.5
"""Seconds between two reads of a serial log or a port."""

# mov cx, 0xffff; 1: loop 1b; mov dx, 0xf4; mov al, 0x10; out dx, al; 2: hlt; jmp 2b
_COUNT_AND_EXIT: Final = bytes.fromhex("b9ffff e2fe baf400 b010 ee f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"
_COUNTED: Final = 0x10 << 1 | 1
"""QEMU's exit status when 0x10 is written to isa-debug-exit."""


@functools.cache
def accelerator() -> str:
    """`kvm` if a virtual processor really runs, else `tcg`; DEBIAN_CLOUD_TEST_ACCEL overrides.

    That /dev/kvm can be opened proves nothing: under some nested hypervisors a
    guest makes no progress. So a boot sector counts, then ends QEMU with a status of its own.
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


def processor() -> tuple[str, ...]:
    """QEMU's options for the accelerator and the processor."""
    return _PROCESSOR[accelerator()]


def logs() -> Path:
    """The directory of the serial logs: DEBIAN_CLOUD_TEST_LOGS, or build/logs."""
    default = Path(__file__).resolve().parents[2] / "build" / "logs"
    folder = Path(os.environ.get("DEBIAN_CLOUD_TEST_LOGS", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class Machine:
    """A running virtual machine."""

    process: subprocess.Popen[bytes]
    serial: Path
    ssh_port: int

    def console(self) -> str:
        """The output on the serial console, without terminal control."""
        return TERMINAL_CONTROL.sub("", self.serial.read_text("utf-8", "replace"))

    def wait(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait until the console shows `pattern`; if it does not, raise AssertionError with its last lines."""
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
        """The standard output of a command on the machine; AssertionError if it fails.

        A machine without acceleration may take long to answer: it is asked again within `seconds`.
        """
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "60",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            # The host key of a machine that exists for one test is unknown.
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        argv: tuple[str | Path, ...] = (
            *("ssh", "-F", "none", "-i", key, "-p", str(self.ssh_port)),
            *(f"-o{name}={value}" for name, value in options.items()),
            *(f"{user}@127.0.0.1", "--", *command),
        )
        end = time.monotonic() + seconds
        while True:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
            )
            # 255: there was no connection, so the command has not run.
            if done.returncode != 255 or time.monotonic() > end:
                break
            time.sleep(_POLL)
        assert done.returncode == 0, f"{command} on the machine: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _section() -> str:
    return _README.read_text("utf-8").split("\n## Boot it, and log in\n")[1].split("\n## ")[0]


def block(wanted: str) -> str:
    """The block of README's "Boot it, and log in" that contains `wanted`."""
    found = re.findall(r"^```\n([^`]*)^```$", _section(), re.DOTALL | re.MULTILINE)
    (text,) = (text for text in found if wanted in text)
    return str(text)


def as_documented(port: int, serial: Path | None = None) -> str:
    """A program to run instead of qemu-system-x86_64: README's command with the test's changes.

    The console goes to the file `serial`; without one it stays on the terminal.
    """
    return _AS_DOCUMENTED.format(
        real=shutil.which("qemu-system-x86_64"),
        accelerator=list(_PROCESSOR[accelerator()]),
        port=str(port),
        serial=str(serial) if serial else "",
    )


@contextmanager
def documented(raw: Path, name: str, folder: Path, *, wanted: str) -> Iterator[tuple[Machine, str, Path]]:
    """Paste the block of README with `wanted` into a shell; yield the machine, and the user and key that it accepts.

    `folder` is the user's home and the working directory; IMAGE.raw is `raw`.
    """
    text = block(wanted)
    (user,) = re.findall(rf"^{re.escape(text)}```$[^`]*`ssh -p 2222 (\w+)@127", _section(), re.MULTILINE)
    serial = logs() / f"{name}.log"
    serial.write_bytes(b"")
    port = free_port()
    (folder / ".ssh").mkdir(mode=0o700)
    key = folder / ".ssh/id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key], check=True)
    (folder / "IMAGE.raw").symlink_to(raw)
    (folder / "bin").mkdir()
    program = folder / "bin/qemu-system-x86_64"
    program.write_text(as_documented(port, serial), "utf-8")
    program.chmod(0o755)
    environment = {"HOME": str(folder), "PATH": f"{program.parent}:{os.environ['PATH']}", "TMPDIR": str(folder)}
    # QEMU is the last command, and the only process left when the shell is ended.
    process = subprocess.Popen(
        ["sh", "-eu"], cwd=folder, env=environment, stdin=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    try:
        yield Machine(process, serial, port), user, key
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def boot(raw: Path, name: str, *, firmware: Firmware = "bios") -> Iterator[Machine]:
    """Boot a copy of `raw`, without access to outside networks, for the duration of the block.

    `name` is the serial log's. The image itself is never written to.
    """
    serial = logs() / f"{name}.log"
    serial.write_bytes(b"")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="machine.") as scratch:
        overlay = Path(scratch, "disk.qcow2")
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(raw.resolve())]
        subprocess.run([*create, str(overlay)], check=True)
        command = [
            *("qemu-system-x86_64", "-M", "q35,smm=on", *_PROCESSOR[accelerator()], "-m", "1024"),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-drive", f"file={overlay},format=qcow2,if=virtio,cache=unsafe"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
            # No ROM: a machine without a boot loader must stop, not boot from the network.
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
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            yield Machine(process, serial, port)
        finally:
            process.kill()
            process.wait()
