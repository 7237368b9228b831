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
FIELDS: Final = {
    "Image-Size": "size of the disk: a number and M, G or T (powers of 1024)",
    "Image-Format": "disk formats that a build makes, the preferred ones last",
    "Image-Firmware": "what the disk boots by: bios, uefi",
    "Image-User": "the user that cloud-init makes",
    "Image-Datasource": "cloud-init's datasources, in their order",
}
"""Every field there is, and what it means."""

FIRMWARE: Final = ("bios", "uefi")
_REQUIRED = ("Image-Size", "Image-Format", "Image-Firmware")
_SIZE = re.compile(r"([1-9][0-9]{0,5})([MGT])")
_UNIT = {"M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """One image configuration as apt sees it; `size` in bytes."""

    name: str
    version: str
    architecture: str
    suite: str
    maintainer: str
    description: str
    size: int
    formats: tuple[str, ...]
    firmware: tuple[str, ...]
    user: str
    datasources: tuple[str, ...]


def is_image(fields: Mapping[str, str]) -> bool:
    """Whether a package's fields describe an image (-common has none)."""
    return any(field.startswith(PREFIX) for field in fields)


def parse(
    fields: Mapping[str, str], *, name: str, version: str, architecture: str, suite: str, description: str
) -> ImageConfig:
    """The configuration that a package's fields describe; Error names the field that is wrong."""
    what = f"configuration {name} {version}"
    for field in fields:
        if field.startswith(PREFIX) and field not in FIELDS:
            raise Error(f"{what} has the unknown field {field}", did_you_mean(field, FIELDS))
    for field in _REQUIRED:
        if not fields.get(field, "").strip():
            raise Error(f"{what} has no field {field}", f"{field}: {FIELDS[field]}")
    firmware = tuple(fields["Image-Firmware"].split())
    for way in firmware:
        if way not in FIRMWARE:
            raise Error(f"{what} wants the unknown firmware {way}", did_you_mean(way, FIRMWARE))
    if "uefi" not in firmware:
        raise Error(f"{what} boots without uefi", "every image boots by uefi; bios comes besides")
    wanted = tuple(fields["Image-Format"].split())
    for name_ in wanted:
        if name_ not in formats.names():
            raise Error(f"{what} wants the unknown disk format {name_}", did_you_mean(name_, formats.names()))
    return ImageConfig(
        name=name,
        version=version,
        architecture=architecture,
        suite=suite,
        maintainer=fields.get("Maintainer", ""),
        description=description,
        size=size(fields["Image-Size"], what),
        formats=wanted,
        firmware=firmware,
        user=fields.get("Image-User", "").strip(),
        datasources=tuple(fields.get("Image-Datasource", "").split()),
    )


def size(text: str, what: str) -> int:
    """Bytes that `8G` or `512M` stands for."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise Error(f"{what} has the invalid size {text!r}", FIELDS["Image-Size"])
    return int(match[1]) * _UNIT[match[2]]
