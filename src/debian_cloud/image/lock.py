# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks: an image may contain only the packages that the .buildinfo of another image lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import FAILED, USAGE, Error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.resolution import Package, Resolution

_SHOWN: Final = 10
"""Maximum number of differences of one kind that a message lists."""


def preferences(locked: Buildinfo) -> str:
    """The preferences by which apt installs these versions and no other package (apt_preferences(5))."""
    pins = "\n".join(
        f"Package: {package.name}\nPin: version {package.version}\nPin-Priority: 1001\n"
        for package in locked.packages
    )
    return f"Package: *\nPin: release *\nPin-Priority: -1\n\n{pins}"


def check(locked: Buildinfo, resolution: Resolution) -> None:
    """Raise an Error that names what was resolved differently from the lock."""
    config = resolution.config
    for what, wanted, got in (
        ("configuration", locked.id.config, names.config(config.name)),
        ("suite", locked.id.suite, config.suite),
        ("architecture", locked.id.architecture, config.architecture),
    ):
        if wanted != got:
            raise Error(f"the lock has {what} {wanted}, not {got}", "give the .buildinfo of the same image", USAGE)
    if locked.changes != resolution.custom.lines:
        said = ", ".join(locked.changes) or "no change"
        raise Error(
            f"the lock describes an image with {said}",
            "give --add, --remove, --seed, --hostname, --keep-secrets, --size, --source as for that image",
            USAGE,
        )
    locked_packages, resolved = set(locked.packages), set(resolution.packages)
    if locked_packages != resolved:
        raise Error(
            "apt resolves other packages than the lock lists:"
            + _listed("not in the lock", resolved - locked_packages)
            + _listed("only in the lock", locked_packages - resolved),
            "an archive keeps only the newest versions: take the packages from the image's own closure",
            FAILED,
        )


def _listed(what: str, packages: Iterable[Package]) -> str:
    found = sorted(packages, key=lambda package: package.name)
    lines = [f"\n  {what}: {p.name} {p.version} {p.architecture} {p.sha256}" for p in found[:_SHOWN]]
    return "".join(lines) + (f"\n  {what}: {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
