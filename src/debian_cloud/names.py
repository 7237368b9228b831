# SPDX-License-Identifier: GPL-3.0-or-later
"""Every name that a file, a package or a folder of this project has, in one table."""

from __future__ import annotations

import functools
import re
from datetime import date
from typing import Final

from debian_cloud.errors import USAGE, Error

PACKAGE_PREFIX: Final = "debian-cloud-config-"
OURS: Final = "debian-cloud"
"""What the names of the project's own packages begin with."""
VIRTUAL_PACKAGE: Final = "debian-cloud-config"
"""What every image's configuration provides and conflicts with: one machine has one."""

RELEASES: Final = {"bookworm": "12", "trixie": "13", "forky": "14"}
"""Codename -> number in titles and file names; a suite without a number keeps its name."""

ARCHITECTURES: Final = ("amd64", "arm64")
"""Those that images are described for."""

KEYRING_PACKAGE: Final = "debian-cloud-archive-keyring"
"""Each archive builds its own, with its key and address."""
ARCHIVE_KEYRING: Final = "/usr/share/keyrings/debian-cloud-archive-keyring.gpg"
"""Where the keyring package of an archive puts its keys."""
ARCHIVE_SOURCES: Final = "/sources.list.d/debian-cloud.sources"
"""Where it puts the archive's address: the end of the path, as apt's own folder may be elsewhere."""
DEBIAN_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Where Debian's keyring package puts Debian's keys."""

STEM: Final = "debian-{release}-{config}-{arch}-{serial}"
"""The common part of the names of an image's files (`image.id`)."""
IMAGES: Final = "images"
"""The tree of an archive that has the images, each in SUITE/CONFIG/ARCH/SERIAL."""
CLOSURES: Final = "closures"
"""The one that has, in the same place, what each image was made of."""
REBUILDS: Final = "rebuilds"
"""The one that has statements of others who made the image again."""

# Debian Policy 5.6.1 (package names), narrowed to what a path component and a URL bear.
_WORD = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SERIAL = re.compile(r"([0-9]{8})\.(0|[1-9][0-9]{0,3})")


def package(config: str) -> str:
    """The binary package that is the configuration (`ec2` or the full name)."""
    return config if config.startswith(PACKAGE_PREFIX) else PACKAGE_PREFIX + config


def config(package_name: str) -> str:
    """The short name of a configuration package."""
    return package_name.removeprefix(PACKAGE_PREFIX)


def word(value: str, what: str) -> str:
    """The value itself, when it may be a part of a path; Error otherwise."""
    if not _WORD.fullmatch(value) or ".." in value:
        raise Error(
            f"{what} {value!r} is not a valid name",
            "lower-case letters, digits, '+', '-' and '.' only, as in a Debian package name",
            USAGE,
        )
    return value


def suite_mark(suite: str) -> str:
    """What the version of a configuration carries of its suite: `~deb13u1`, or "" for the newest.

    So the next release's version of the same configuration sorts after it.
    """
    return f"~deb{RELEASES[suite]}u1" if suite in (*RELEASES,)[:-1] else ""


def serial(value: str) -> str:
    """The value itself, when it is an image serial YYYYMMDD.N; Error otherwise."""
    match = _SERIAL.fullmatch(value)
    try:
        date.fromisoformat(match[1] if match else "")
    except ValueError:
        raise Error(
            f"{value!r} is not an image serial", "it looks like 20261120.0: a day and a number", USAGE
        ) from None
    return value


def snapshot(value: str) -> str:
    """The value itself, when it is the id of a snapshot, YYYYMMDDTHHMMSSZ; Error otherwise."""
    if not _SNAPSHOT.fullmatch(value):
        raise Error(
            f"{value!r} is not the id of a snapshot", "it looks like 20261120T143000Z: a day and a time", USAGE
        )
    return value


def snapshot_at(uri: str) -> str:
    """The id of the snapshot of an archive that is at this address; empty when it is none."""
    _, snap, found = uri.rstrip("/").rpartition("/snap/")
    return found if snap and _SNAPSHOT.fullmatch(found) else ""


# An index asks for the same few serials again and again, one image after another.
@functools.lru_cache(maxsize=1024)
def serial_key(value: str) -> tuple[int, int]:
    """The order of serials: by day, then by number."""
    day, _, number = serial(value).partition(".")
    return int(day), int(number)


CLOSURE: Final = "closure"
"""The folder of an image's proof that has what it was made of."""


def proof(stem_: str) -> str:
    """The folder beside an image that has what proves it, when both were fetched."""
    return f"{stem_}.proof"
