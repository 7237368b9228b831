# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked for when an instance is started, checked before anything is made. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from debian_cloud.errors import USAGE, Error
from debian_cloud.machines.instance import NEVER
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from debian_cloud.image.index import ImageRecord

# A host name (RFC 1123, 2.1), with room for the number of one of several.
_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,46}[a-z0-9])?")
_DISK: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")
"""Names of disks: a guest sees the first twenty characters as the disk's serial number (QEMU, virtio-blk)."""
_COUNT: Final = re.compile(r"([1-9][0-9]{0,3})(?::([1-9][0-9]{0,3}))?")
_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_SECONDS: Final = {"m": 60, "h": 3600, "d": 86400}
# A kind, an optional comment; ssh_authorized_keys(5) has options before the kind, which are not needed here.
_KEY: Final = re.compile(
    r"(?:(?:sk-)?(?:ssh|ecdsa-sha2)-[a-z0-9-]+(?:@openssh\.com)?) [A-Za-z0-9+/]{60,3000}={0,3}"
    r"(?: [^\x00-\x1f\x7f]{0,200})?"
)
_CPUS: Final = 255
_USUAL_MEMORY: Final = 2**30
_SPARE: Final = 2**28
"""Bytes of memory that QEMU takes besides the guest's."""
LARGEST_USER_DATA: Final = 2**14
"""Maximum bytes of user-data, on every target: what EC2 accepts."""
_KINDS: Final = (
    "#cloud-config", "#!", "#include", "#cloud-boothook", "#cloud-config-archive", "#part-handler", "## template:",
    "Content-Type:", "MIME-Version:",
)  # fmt: skip
"""First words of the kinds of user-data that cloud-init knows; it ignores everything else."""

Boot = Literal["", "bios", "uefi", "secure"]
"""What starts the boot loader: the image's first firmware if empty; `secure` is UEFI with Secure Boot."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that outlives instances; `size` in bytes is for a new one, 0 for one that exists."""

    name: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One instance, or several of the same kind; sizes in bytes, 0 for the image's own.

    `keys` are public keys that are let in besides the user's own of this program.
    """

    name: str
    image: ImageRecord
    memory: int = 0
    cpus: int = 0
    disk: int = 0
    boot: Boot = ""
    keys: tuple[str, ...] = ()
    user_data: str = ""
    expires: int = NEVER
    throw_away: bool = False
    disks: tuple[Disk, ...] = ()


def is_name(text: str) -> bool:
    """Whether it can be the name of an instance."""
    return bool(_NAME.fullmatch(text))


def name(text: str) -> str:
    """The name of an instance, which becomes its host name; Error if it cannot be one."""
    if not is_name(text):
        raise Error(
            f"{printable(text, 80)!r} is not a name for an instance",
            "at most 48 lower-case letters, digits and '-', the first a letter and the last no '-'",
            USAGE,
        )
    return text


def named(config: str, used: set[str]) -> str:
    """A name that no instance has yet: the configuration's, or that and a number."""
    base = re.sub(r"[^a-z0-9]+", "-", config).strip("-")
    base = base[:40].rstrip("-") if base[:1].isalpha() else f"image-{base}"[:40].rstrip("-")
    return next(
        found
        for number in range(1, len(used) + 2)
        if (found := base if number == 1 else f"{base}-{number}") not in used
    )


def count(text: str) -> tuple[int, int]:
    """How many instances `N` or `N:M` asks for: at least, and at most."""
    match = _COUNT.fullmatch(text)
    least = int(match[1]) if match else 0
    most = int(match[2] or match[1]) if match else 0
    if not match or most < least:
        raise Error(
            f"--count {printable(text, 40)} is not a number of instances", "give N, or N:M with M from N", USAGE
        )
    return least, most


def expiry(text: str, now: int) -> int:
    """The time that `90m`, `8h` or `3d` from now is, in seconds since 1970."""
    match = _SPAN.fullmatch(text)
    if not match:
        raise Error(
            f"{printable(text, 40)!r} is not a time from now", "give minutes, hours or days: 90m, 8h, 3d", USAGE
        )
    return now + int(match[1]) * _SECONDS[match[2]]


def cpus(number: int) -> int:
    """A number of processors, 0 for the usual one; Error if no machine has so many."""
    if not 0 <= number <= _CPUS:
        raise Error(f"--cpus {number} is not a number of processors", f"give 1 to {_CPUS}", USAGE)
    return number


def key(text: str, what: str) -> str:
    """A public key as in authorized_keys (sshd(8)), without options; Error names `what` if it is none."""
    line = text.strip()
    if not _KEY.fullmatch(line):
        private = "PRIVATE KEY" in text
        raise Error(
            f"{what} is {'a private' if private else 'not a public'} SSH key",
            "give the public one, as ~/.ssh/id_ed25519.pub"
            if private
            else "give one line, as ssh-keygen(1) writes it",
            USAGE,
        )
    return line


def user_data(text: str, what: str) -> str:
    """User-data for cloud-init; Error names `what` if cloud-init would ignore it, or EC2 refuse it."""
    if (size := len(text.encode("utf-8", "surrogateescape"))) > LARGEST_USER_DATA:
        raise Error(
            f"{what} has {size} bytes, but user-data may have at most {LARGEST_USER_DATA}",
            "let it fetch the rest (#include)",
            USAGE,
        )
    if not text.startswith(_KINDS):
        raise Error(
            f"{what} does not begin as user-data does, so cloud-init would ignore it",
            "its first line is #cloud-config, #! and an interpreter, or another of cloud-init's kinds",
            USAGE,
        )
    return text


def disk(text: str, size: int) -> Disk:
    """A disk of that name that outlives instances."""
    if not _DISK.fullmatch(text):
        raise Error(
            f"{printable(text, 80)!r} is not a name for a disk",
            "at most 20 lower-case letters, digits and '-', the first a letter",
            USAGE,
        )
    return Disk(text, size)


def check(spec: MachineSpec) -> MachineSpec:
    """The same, if a machine of the image can be as it is asked for; else Error."""
    machine, image = spec.image.machine, spec.image
    if not image.virtual_size:
        raise Error(
            f"{image.stem} is a root file system without a disk, and not for a machine of its own",
            "run it in a container: see systemd-nspawn(1)",
            USAGE,
        )
    if not machine.firmware:
        raise Error(
            f"the record of {image.stem} does not say what its machine must have",
            "use a newer image: its archive was made before records said so",
        )
    if spec.disk and spec.disk < image.virtual_size:
        raise Error(
            f"--disk is smaller than the image, which has {image.virtual_size >> 20} MiB",
            "omit it, or give more: the file system grows at the first boot",
            USAGE,
        )
    if spec.memory and spec.memory < machine.memory:
        raise Error(
            f"--memory is less than {image.stem} needs, {machine.memory >> 20} MiB", "omit it, or give more", USAGE
        )
    if spec.boot and (wanted := "uefi" if spec.boot == "secure" else spec.boot) not in machine.firmware:
        raise Error(f"{image.stem} does not boot by {wanted}", f"it boots by {' and '.join(machine.firmware)}", USAGE)
    if spec.user_data and not machine.datasources:
        raise Error(f"{image.stem} has no cloud-init, so it reads no user-data", "omit --user-data", USAGE)
    return spec


def no_disk(wanted: Disk) -> Error:
    """The Error for a disk that does not exist and has no size."""
    return Error(
        f"there is no disk {wanted.name}", f"give its size, to make it: --persistent-disk {wanted.name}:10G", USAGE
    )


def refuse_no_memory(spec: MachineSpec, free: int) -> None:
    """Raise Error if a QEMU for an instance would need more than so many bytes."""
    if free < (needed := memory_of(spec) + _SPARE):
        raise Error(
            f"{spec.name or spec.image.id.config} needs {needed >> 20} MiB of memory, but {free >> 20} are free",
            "end something else, or give less --memory",
        )


def memory_of(spec: MachineSpec) -> int:
    """The memory of an instance in bytes: what is asked for, or a GiB, or what the image needs if that is more."""
    return spec.memory or max(_USUAL_MEMORY, spec.image.machine.memory)
