# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of resolving a configuration with apt: the exact packages and their date."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debian_cloud.image.custom import OFFICIAL, Custom
from debian_cloud.image.installed import Installed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debian_cloud.image.config import ImageConfig


@dataclass(frozen=True, slots=True)
class Package(Installed):
    """One binary package as an archive lists it; size and SHA-256 are those of its .deb."""

    size: int
    sha256: str
    uri: str = field(default="", compare=False, kw_only=True)
    """Where apt fetches it, if this is known. Only the SHA-256 says what it is."""

    @property
    def deb(self) -> str:
        """The name of the .deb in apt's cache, with colons percent-encoded as in a URL."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass(frozen=True, slots=True)
class Needs:
    """The dependencies of a package, each a group of packages of the same resolution of which it needs one.

    Debian Policy 7.2: `pre_depends` must be configured before the package is unpacked.
    """

    pre_depends: tuple[tuple[str, ...], ...] = ()
    depends: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """One signed release file whose indexes were used; SHA-256 and size are the file's.

    `signers` are the fingerprints of the primary keys that signed it and that its source trusts.
    """

    uri: str
    suite: str
    size: int
    sha256: str
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """A configuration and all packages that it brings, sorted by name.

    `epoch` is the Date of the newest InRelease that was used, in seconds since 1970 (SOURCE_DATE_EPOCH,
    reproducible-builds.org); `installed_size` is in bytes. `pins` are the preferences with which apt resolved it, if
    any (apt_preferences(5)).
    """

    config: ImageConfig
    packages: tuple[Package, ...]
    epoch: int
    installed_size: int
    custom: Custom = OFFICIAL
    """The user's changes, which `packages` include."""
    tools: tuple[Package, ...] = ()
    """Packages that make the image and are not in it: of the same suite, sorted by name."""
    pins: str = ""
    releases: tuple[ReleaseFile, ...] = ()
    recommended: tuple[str, ...] = ()
    """Those of `packages` that the configuration itself recommends: a machine may remove them."""
    essential: tuple[str, ...] = ()
    """Those of `packages` without which dpkg need not work (Debian Policy 3.8), sorted by name."""
    required: tuple[str, ...] = ()
    """Those of the other packages that every Debian system has, sorted by name."""
    needs: Mapping[str, Needs] = field(default_factory=dict)
    """What each of `packages` needs."""
