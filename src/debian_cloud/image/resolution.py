# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt resolved a configuration to: the exact packages, and the day they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debian_cloud.image.custom import OFFICIAL, Custom

if TYPE_CHECKING:
    from debian_cloud.image.config import ImageConfig


@dataclass(frozen=True, slots=True)
class Installed:
    """One binary package as dpkg knows it where it is installed."""

    name: str
    version: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Package(Installed):
    """The same as an archive has it; size and SHA-256 are its .deb's."""

    size: int
    sha256: str

    @property
    def deb(self) -> str:
        """The .deb's name in apt's cache, where a colon is quoted as in a URL."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """One signed release file whose indexes were used; SHA-256 and size are the file's.

    `signers` are the fingerprints of the primary keys that signed it, of those
    that its source trusts.
    """

    uri: str
    suite: str
    size: int
    sha256: str
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """A configuration and everything it brings, sorted by name.

    `epoch` is the Date of the newest InRelease that was used, in seconds since
    1970 (SOURCE_DATE_EPOCH, reproducible-builds.org); `installed_size` in bytes.
    `pins` is the text by which apt came to it, if any (apt_preferences(5)).
    """

    config: ImageConfig
    packages: tuple[Package, ...]
    epoch: int
    installed_size: int
    custom: Custom = OFFICIAL
    """What a person changed; `packages` are with it."""
    tools: tuple[Package, ...] = ()
    """What makes the image besides, and is not in it: of the same suite, sorted by name."""
    pins: str = ""
    releases: tuple[ReleaseFile, ...] = ()
    recommended: tuple[str, ...] = ()
    """What the configuration itself recommends, of `packages`: a machine may remove it."""
