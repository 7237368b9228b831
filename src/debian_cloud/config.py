# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image shall be: the `Image-*` fields of a configuration package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import formats
from .errors import Error, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "Image-"


@dataclass(frozen=True, slots=True)
class Field:
    """One `Image-*` field: what it says, and the words that it may be made of; () is any."""

    meaning: str
    words: tuple[str, ...] = ()
    single: bool = False


FIRMWARE: Final = ("bios", "uefi", "raspi")

FIELDS: Final[Mapping[str, Field]] = {
    "Image-Size": Field("size of the disk: a number and M, G or T (powers of 1024)", single=True),
    "Image-Format": Field("formats that a build makes, the preferred ones last"),
    "Image-Firmware": Field("what the disk boots by; an image without it is a root file system alone", FIRMWARE),
    "Image-Boot-Mode": Field(
        "what a cloud is told to boot it by", ("legacy-bios", "uefi", "uefi-preferred"), single=True
    ),
    "Image-Root-Device": Field("the name by which a cloud attaches the disk, as /dev/xvda", single=True),
    "Image-Drivers": Field(
        "buses on which the kernel finds disk and network", ("virtio", "nvme", "xen", "hyperv", "sdhci")
    ),
    "Image-Console": Field("the serial console, as the kernel names it: ttyS0", single=True),
    "Image-Cdrom": Field("buses on which the kernel reads a CD-ROM", ("ide", "sata", "usb", "virtio-scsi")),
    "Image-Imds": Field("the metadata service that a cloud shall require", ("v2.0",), single=True),
    "Image-Tpm": Field("the TPM that a cloud shall give", ("v2.0",), single=True),
    "Image-Memory": Field("the least memory it runs in, written like Image-Size", single=True),
    "Image-First-Boot": Field(
        "who sets the machine up", ("cloud-init", "google-guest-agent", "systemd-firstboot"), single=True
    ),
    "Image-User": Field("the user that is made at the first boot", single=True),
    "Image-Datasource": Field("cloud-init's datasources, in their order"),
    "Image-Components": Field("what of Debian it takes packages from (default: main)", ("main", "non-free-firmware")),
}
"""Every field there is, written as dpkg writes it (deb822 itself does not look at the case)."""

_REQUIRED = ("Image-Format",)
_OF_A_DISK = ("Image-Size", "Image-Boot-Mode", "Image-Root-Device")
_SIZE = re.compile(r"([1-9][0-9]{0,5})([MGT])")
_UNIT = {"M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """One image configuration as apt sees it; `size` and `memory` in bytes.

    Without `firmware` the image is a root file system, with neither disk nor
    kernel, and `size` is 0. The image fits on no smaller disk than `size`.
    """

    name: str
    version: str
    architecture: str
    suite: str
    maintainer: str
    description: str
    size: int
    formats: tuple[str, ...]
    firmware: tuple[str, ...]
    boot_mode: str
    root_device: str
    drivers: tuple[str, ...]
    console: str
    cdrom: tuple[str, ...]
    imds: str
    tpm: str
    memory: int
    first_boot: str
    user: str
    datasources: tuple[str, ...]
    components: tuple[str, ...]


def is_image(fields: Mapping[str, str]) -> bool:
    """Whether a package's fields describe an image (a layer, such as -common, has none)."""
    return any(field.startswith(PREFIX) for field in fields)


def parse(
    fields: Mapping[str, str], *, name: str, version: str, architecture: str, suite: str, description: str
) -> ImageConfig:
    """The configuration that a package's fields describe; Error names the field that is wrong."""
    what = f"configuration {name} {version}"
    found = {field: value.split() for field, value in fields.items() if field.startswith(PREFIX)}
    for field, words in found.items():
        _check(what, field, words)
    for field in _REQUIRED:
        if not found.get(field):
            raise Error(f"{what} has no field {field}", f"{field}: {FIELDS[field].meaning}")
    firmware = tuple(found.get("Image-Firmware", ()))
    for field in _OF_A_DISK:
        if firmware and field == "Image-Size" and not found.get(field):
            raise Error(f"{what} has no field {field}", f"{field}: {FIELDS[field].meaning}")
        if not firmware and found.get(field):
            raise Error(f"{what} has {field}, but no Image-Firmware", "an image that boots by nothing has no disk")
    if firmware == ("bios",):
        raise Error(f"{what} boots without uefi", "every image boots by uefi; bios comes besides")
    for word in found["Image-Format"]:
        if word not in formats.names():
            raise Error(f"{what} wants the unknown disk format {word}", did_you_mean(word, formats.names()))

    def one(field: str) -> str:
        return next(iter(found.get(field, ())), "")

    def size_of(field: str) -> int:
        return size(one(field), what, field) if found.get(field) else 0

    return ImageConfig(
        name=name,
        version=version,
        architecture=architecture,
        suite=suite,
        maintainer=fields.get("Maintainer", ""),
        description=description,
        size=size_of("Image-Size"),
        formats=tuple(found["Image-Format"]),
        firmware=firmware,
        boot_mode=one("Image-Boot-Mode"),
        root_device=one("Image-Root-Device"),
        drivers=tuple(found.get("Image-Drivers", ())),
        console=one("Image-Console"),
        cdrom=tuple(found.get("Image-Cdrom", ())),
        imds=one("Image-Imds"),
        tpm=one("Image-Tpm"),
        memory=size_of("Image-Memory"),
        first_boot=one("Image-First-Boot"),
        user=one("Image-User"),
        datasources=tuple(found.get("Image-Datasource", ())),
        components=tuple(found.get("Image-Components", ("main",))),
    )


def _check(what: str, field: str, words: list[str]) -> None:
    """Error when a field is unknown, or says what it may not."""
    if field not in FIELDS:
        raise Error(f"{what} has the unknown field {field}", did_you_mean(field, FIELDS))
    known = FIELDS[field]
    if known.single and len(words) > 1:
        raise Error(f"{what} has more than one word in {field}: {' '.join(words)}", f"{field}: {known.meaning}")
    for word in words:
        if known.words and word not in known.words:
            raise Error(
                f"{what} has the unknown {field.removeprefix(PREFIX).lower()} {word} in {field}",
                did_you_mean(word, known.words),
            )


def size(text: str, what: str, field: str = "Image-Size") -> int:
    """Bytes that `8G` or `512M` stands for."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise Error(f"{what} has the invalid size {text!r} in {field}", FIELDS["Image-Size"].meaning)
    return int(match[1]) * _UNIT[match[2]]
