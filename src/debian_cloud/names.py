# SPDX-License-Identifier: GPL-3.0-or-later
"""All names of this project's files, packages and directories, in one table."""

from __future__ import annotations

import functools
import re
from datetime import date
from typing import Final

from debian_cloud.errors import USAGE, Error

PACKAGE_PREFIX: Final = "debian-cloud-config-"
OURS: Final = "debian-cloud"
"""Prefix of the names of the project's own packages."""
VIRTUAL_PACKAGE: Final = "debian-cloud-config"
"""Virtual package that every configuration provides and conflicts with: a machine has only one configuration."""

RELEASES: Final = {"bookworm": "12", "trixie": "13", "forky": "14"}
"""Codename -> number in titles and file names; a suite without a number keeps its name."""

ARCHITECTURES: Final = ("amd64", "arm64")
"""Architectures for which images are defined."""

KEYRING_PACKAGE: Final = "debian-cloud-archive-keyring"
"""The keyring package; each archive builds its own, with its key and address."""
ARCHIVE_KEYRING: Final = "/usr/share/keyrings/debian-cloud-archive-keyring.gpg"
"""File in which an archive's keyring package installs its keys."""
ARCHIVE_SOURCES: Final = "/sources.list.d/debian-cloud.sources"
"""End of the path of that package's .sources file; apt's configuration directory may be elsewhere."""
DEBIAN_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""File in which Debian's keyring package installs Debian's keys."""

STEM: Final = "debian-{release}-{config}-{arch}-{serial}"
"""The common part of the names of an image's files (`image.id`)."""
IMAGES: Final = "images"
"""The tree of an archive that holds the images, each in SUITE/CONFIG/ARCH/SERIAL."""
CLOSURES: Final = "closures"
"""The tree that holds the closures of the images, each in SUITE/CONFIG/ARCH/SERIAL."""
REBUILDS: Final = "rebuilds"
"""The tree that holds the statements of others who rebuilt the images."""

# Debian Policy 5.6.1 (package names), restricted to what is safe in a path component and a URL.
_WORD = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SERIAL = re.compile(r"([0-9]{8})\.(0|[1-9][0-9]{0,3})")


def package(config: str) -> str:
    """The name of the binary package of a configuration, given as `ec2` or as the full name."""
    return config if config.startswith(PACKAGE_PREFIX) else PACKAGE_PREFIX + config


def config(package_name: str) -> str:
    """The short name of a configuration package."""
    return package_name.removeprefix(PACKAGE_PREFIX)


def word(value: str, what: str) -> str:
    """Return the value if it may be a part of a path; otherwise raise Error."""
    if not _WORD.fullmatch(value) or ".." in value:
        raise Error(
            f"{what} {value!r} is not a valid name",
            "lower-case letters, digits, '+', '-' and '.' only, as in a Debian package name",
            USAGE,
        )
    return value


def suite_mark(suite: str) -> str:
    """The suffix that a suite gives to a configuration's version: `~deb13u1`, or "" for the newest.

    With it, the next release's version of the same configuration sorts after this one.
    """
    return f"~deb{RELEASES[suite]}u1" if suite in (*RELEASES,)[:-1] else ""


def serial(value: str) -> str:
    """Return the value if it is an image serial YYYYMMDD.N; otherwise raise Error."""
    match = _SERIAL.fullmatch(value)
    try:
        date.fromisoformat(match[1] if match else "")
    except ValueError:
        raise Error(
            f"{value!r} is not an image serial", "a serial is a day and a number: 20261120.0", USAGE
        ) from None
    return value


def snapshot(value: str) -> str:
    """Return the value if it is the id of a snapshot, YYYYMMDDTHHMMSSZ; otherwise raise Error."""
    if not _SNAPSHOT.fullmatch(value):
        raise Error(f"{value!r} is not the id of a snapshot", "an id is a day and a time: 20261120T143000Z", USAGE)
    return value


def snapshot_at(uri: str) -> str:
    """The id of the snapshot of an archive at this address; "" if it is not a snapshot."""
    _, snap, found = uri.rstrip("/").rpartition("/snap/")
    return found if snap and _SNAPSHOT.fullmatch(found) else ""


# Reading an index looks up the same few serials many times.
@functools.lru_cache(maxsize=1024)
def serial_key(value: str) -> tuple[int, int]:
    """The sort key of a serial: day, then number."""
    day, _, number = serial(value).partition(".")
    return int(day), int(number)


CLOSURE: Final = "closure"
"""Name of the closure's directory in the directory of an image's proof."""


def proof(stem_: str) -> str:
    """The name of the directory beside a fetched image that holds its proof."""
    return f"{stem_}.proof"
