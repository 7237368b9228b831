# SPDX-License-Identifier: GPL-3.0-or-later
"""The `Image-*` fields of a configuration package, which define an image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud import formats, names
from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.image.id import ImageId
from debian_cloud.text import sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "Image-"


@dataclass(frozen=True, slots=True)
class Field:
    """One `Image-*` field: its meaning, and the words that it accepts.

    A word is one of `words`, or all of it matches `pattern`, or it is a size between the two of `sizes`; without any
    of these, every word is accepted.
    """

    meaning: str
    words: tuple[str, ...] = ()
    single: bool = False
    pattern: str = ""
    sizes: tuple[str, str] = ("", "")


PATH: Final = "/[^/\\s,]+(/[^/\\s,]+)*"
"""A path in an image, or a pattern of paths (`generated.matches`)."""

COMPONENTS: Final = ("main", "contrib", "non-free", "non-free-firmware")
"""Debian's components (Debian Policy 2.2); by default, an image takes packages only from main."""

FIRMWARE: Final = ("bios", "uefi", "raspi")

BOOT_MODES: Final[Mapping[str, set[str]]] = {
    "legacy-bios": {"bios"},
    "uefi": {"uefi"},
    "uefi-preferred": {"bios", "uefi"},
}
"""Word of Image-Boot-Mode -> all firmware by which the disk must boot."""

FIELDS: Final[Mapping[str, Field]] = {
    # The largest volumes of EC2 and Google have 64 TiB, EC2's largest machines 32 TiB of memory.
    "Image-Size": Field(
        "size of the disk: a number and M, G or T (powers of 1024)", single=True, sizes=("512M", "64T")
    ),
    "Image-Format": Field("formats that a build makes, the preferred ones last"),
    "Image-Firmware": Field("firmware that boots the disk; an image without it is only a root file system", FIRMWARE),
    "Image-Boot-Mode": Field("the boot mode that a cloud shall use", (*BOOT_MODES,), single=True),
    "Image-Root-Device": Field(
        "the name by which a cloud attaches the disk, as /dev/xvda", single=True, pattern="/dev/[a-z]+"
    ),
    "Image-Drivers": Field(
        "drivers of the disk and the network: buses, and the network cards ena (Amazon) and gve (Google)",
        ("virtio", "nvme", "xen", "hyperv", "sdhci", "ena", "gve"),
    ),
    "Image-Console": Field(
        "the serial console, as the kernel names it: ttyS0", single=True, pattern="(tty[A-Z]+|hvc)[0-9]+"
    ),
    "Image-Cdrom": Field("buses on which the kernel reads a CD-ROM", ("ide", "sata", "usb", "virtio-scsi")),
    "Image-Imds": Field("the metadata service that a cloud shall require", ("v2.0",), single=True),
    "Image-Tpm": Field("the TPM that a cloud shall provide", ("v2.0",), single=True),
    "Image-Volume": Field(
        "the type of volume that a cloud shall use for the disk, by the cloud's name: gp3",
        single=True,
        pattern="[A-Za-z][A-Za-z0-9_-]*",
    ),
    "Image-Memory": Field("the minimum memory, written like Image-Size", single=True, sizes=("64M", "32T")),
    "Image-First-Boot": Field(
        "the program that sets up the machine", ("cloud-init", "google-guest-agent", "systemd-firstboot"), single=True
    ),
    # As useradd(8) accepts it.
    "Image-User": Field("the user that the first boot creates", single=True, pattern="[a-z_][a-z0-9_-]{0,31}"),
    "Image-Datasource": Field("cloud-init's datasources, in their order", pattern="[A-Za-z0-9]+"),
    "Image-Drop-Secrets": Field(
        "files that packages create and the image lacks, because a service creates them on each machine: paths, in"
        " which `*` stays in one directory and `**` does not",
        pattern=PATH,
    ),
    "Image-Keep-Secrets": Field(
        "files that packages create and the image keeps, although they are secrets or a machine's identity that"
        " all users of the image share; two builds differ in them. In an initrd: /boot/initrd.img-*:PATH",
        pattern=PATH,
    ),
    "Image-Components": Field("Debian's components from which it takes packages (default: main)", COMPONENTS),
}
"""All fields, spelled as dpkg writes them (deb822 itself ignores case)."""

_REQUIRED = ("Image-Format",)
_OF_A_DISK = (
    *("Image-Size", "Image-Boot-Mode", "Image-Root-Device", "Image-Drivers", "Image-Console", "Image-Cdrom"),
    *("Image-Imds", "Image-Tpm", "Image-Volume"),
)
"""Fields that do not apply to a root file system without a disk: it uses another system's kernel and machine."""
_MARKED = re.compile(r"(?P<word>\S+)(?: \[(?P<only>[a-z0-9-]+)\])?")
"""A word of a field of debian/control and, optionally, the architecture to which it is restricted."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """One image configuration as apt sees it; `size` and `memory` in bytes.

    Without `firmware`, the image is a root file system without disk and kernel, and `size` is 0. Otherwise `size` is
    the smallest disk on which the image fits.
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
    volume: str
    memory: int
    first_boot: str
    user: str
    datasources: tuple[str, ...]
    components: tuple[str, ...]
    drop_secrets: tuple[str, ...] = ()
    keep_secrets: tuple[str, ...] = ()

    def image(self, serial: str) -> ImageId:
        """The image of this configuration with a serial; Error if the serial is invalid."""
        return ImageId(self.suite, names.config(self.name), self.architecture, serial)


def is_image(fields: Mapping[str, str]) -> bool:
    """Whether a package's fields describe an image (a layer, such as -common, has no such fields)."""
    return any(field.startswith(PREFIX) for field in fields)


def parse(
    fields: Mapping[str, str], *, name: str, version: str, architecture: str, suite: str, description: str
) -> ImageConfig:
    """The configuration that a package's fields describe; an Error names the wrong field."""
    what = f"configuration {name} {version}"
    found = {field: value.split() for field, value in fields.items() if field.startswith(PREFIX)}
    for field, words in found.items():
        check(what, field, words)
    for field in _REQUIRED:
        if not found.get(field):
            raise Error(f"{what} has no field {field}", f"{field}: {FIELDS[field].meaning}")
    firmware = tuple(found.get("Image-Firmware", ()))
    if firmware and "Image-Size" not in found:
        raise Error(f"{what} has no field Image-Size", f"Image-Size: {FIELDS['Image-Size'].meaning}")
    for field in _OF_A_DISK:
        if not firmware and field in found:
            raise Error(f"{what} has {field}, but no Image-Firmware", "an image without firmware has no disk")
    _check_boot(what, firmware, next(iter(found.get("Image-Boot-Mode", ())), ""))
    source = "disk" if firmware else "tree"
    made = [name for name in formats.names() if source == formats.find(name).SOURCE]
    for word in found["Image-Format"]:
        if word not in formats.names():
            raise Error(f"{what} wants the unknown disk format {word}", did_you_mean(word, formats.names()))
        if word not in made:
            image = "a disk" if firmware else "a root file system without a disk"
            raise Error(f"{what} is {image}, which has no format {word}", f"Image-Format: {' '.join(made)}")

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
        volume=one("Image-Volume"),
        memory=size_of("Image-Memory"),
        first_boot=one("Image-First-Boot"),
        user=one("Image-User"),
        datasources=tuple(found.get("Image-Datasource", ())),
        components=tuple(found.get("Image-Components", ("main",))),
        drop_secrets=tuple(found.get("Image-Drop-Secrets", ())),
        keep_secrets=tuple(found.get("Image-Keep-Secrets", ())),
    )


def of_architecture(fields: Mapping[str, str], architecture: str) -> dict[str, str]:
    """The fields of debian/control for one architecture: `bios [amd64] uefi` becomes `uefi` on arm64.

    In `Image-*` fields, an architecture in brackets restricts the word before it; a field that has no word for this
    architecture is omitted. The other fields belong to dpkg and stay as they are.
    """
    found = {}
    for field, value in fields.items():
        if not field.startswith(PREFIX):
            found[field] = value
        elif kept := [match["word"] for match in _MARKED.finditer(value) if match["only"] in (None, architecture)]:
            found[field] = " ".join(kept)
    return found


def check(what: str, field: str, words: list[str]) -> None:
    """Raise Error if a field is unknown, or has a value that it does not accept."""
    if field not in FIELDS:
        raise Error(f"{what} has the unknown field {field}", did_you_mean(field, FIELDS))
    known = FIELDS[field]
    if not words:
        raise Error(f"{what} has an empty {field}", f"remove the field, or give: {known.meaning}")
    if known.single and len(words) > 1:
        raise Error(f"{what} has more than one word in {field}: {' '.join(words)}", f"{field}: {known.meaning}")
    for word in words:
        if known.words and word not in known.words:
            raise Error(
                f"{what} has the unknown {field.removeprefix(PREFIX).lower()} {word} in {field}",
                did_you_mean(word, known.words),
            )
        if known.pattern and not re.fullmatch(known.pattern, word):
            raise Error(
                f"{what} has the invalid word {word!r} in {field}",
                f"{field}: {known.meaning}; it must match {known.pattern}",
            )
        if words.count(word) > 1:
            raise Error(f"{what} has {word} twice in {field}", "give each word once")
    if known.sizes[0]:
        size(words[0], what, field)


def _check_boot(what: str, firmware: tuple[str, ...], mode: str) -> None:
    """Raise Error if no image boots by such firmware, or the boot mode needs other firmware."""
    if firmware == ("bios",):
        raise Error(f"{what} boots without uefi", "every image boots by uefi; bios may be added")
    if "raspi" in firmware and len(firmware) > 1:
        raise Error(
            f"{what} boots by raspi and by other firmware",
            "the Raspberry Pi's disk has a layout of its own: give only raspi",
        )
    if mode and not set(firmware) >= BOOT_MODES[mode]:
        raise Error(
            f"{what} has Image-Boot-Mode {mode}, but Image-Firmware {' '.join(firmware)}",
            f"{mode} needs {' and '.join(sorted(BOOT_MODES[mode]))}",
        )


def size(text: str, what: str, field: str = "Image-Size") -> int:
    """The bytes that `8G` or `512M` stands for; Error if it is not a size, or out of the field's range."""
    found = sizes.read(text)
    if not found:
        raise Error(f"{what} has the invalid size {text!r} in {field}", FIELDS["Image-Size"].meaning)
    least, most = map(sizes.read, FIELDS[field].sizes)
    if not least <= found <= most:
        raise Error(f"{what} has the invalid size {text} in {field}", "from {} to {}".format(*FIELDS[field].sizes))
    return found


def amount(text: str, option: str) -> int:
    """The bytes that `8G`, `512M` or `0` stands for in an option; Error if it is not a size."""
    found = sizes.read(text)
    if not found and text != "0":
        raise Error(f"{option} has the invalid size {text!r}", "a number and M, G or T (powers of 1024)", USAGE)
    return found
