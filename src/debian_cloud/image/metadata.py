# SPDX-License-Identifier: GPL-3.0-or-later
"""The other files beside an image and its .buildinfo: its record and its .changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud.image import index
from debian_cloud.image.buildinfo import date, lines
from debian_cloud.text import deb822

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debian_cloud.host.checksums import Digest
    from debian_cloud.image.buildinfo import Draft

_SOURCE: Final = "debian-cloud"
"""The source package that uploaders may upload."""
_RAW_SECTION: Final = "raw-images"
"""Section of files that the archive processes by hand, as for debian-installer's images."""


def record(draft: Draft, digests: Mapping[str, Digest]) -> str:
    """The record of an image: one stanza for each published file."""
    made = draft.buildinfo
    return index.render(
        index.ImageRecord(
            id=made.id,
            format=name,
            config_version=made.config_version,
            size=digests[made.id.file(name)].size,
            virtual_size=draft.virtual_size,
            sha256=digests[made.id.file(name)].hashes["sha256"],
            sha512=digests[made.id.file(name)].hashes["sha512"],
            official=not made.changes,
            others=tuple(f"{uri} {suite}" for uri, suite in made.others),
            machine=draft.machine,
        )
        for name in draft.published
    )


def changes(draft: Draft, digests: Mapping[str, Digest]) -> str:
    """The .changes that uploads the published files (deb-changes(5)); debsign(1) signs it."""
    image, package = draft.buildinfo.id, draft.buildinfo.id.package

    def checksums(algorithm: str, between: str = "") -> str:
        return lines(f"{digests[n].hashes[algorithm]} {digests[n].size}{between} {n}" for n in sorted(digests))

    return deb822.render(
        (
            ("Format", "1.8"),
            ("Date", date(draft.buildinfo.epoch)),
            ("Source", _SOURCE),
            ("Binary", package),
            ("Architecture", image.architecture),
            ("Version", image.serial),
            ("Distribution", image.suite),
            ("Urgency", "medium"),
            ("Maintainer", draft.maintainer),
            ("Changed-By", draft.maintainer),
            ("Description", lines((f"{package} - image of {image.suite} for {image.architecture}",))),
            (
                "Changes",
                lines(
                    (
                        f"{package} ({image.serial}) {image.suite}; urgency=medium",
                        ".",
                        f"  * Image of {package} {draft.buildinfo.config_version}.",
                    )
                ),
            ),
            ("Checksums-Sha1", checksums("sha1")),
            ("Checksums-Sha256", checksums("sha256")),
            ("Files", checksums("md5", f" {_RAW_SECTION} -")),
        )
    )
