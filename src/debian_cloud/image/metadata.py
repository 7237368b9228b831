# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written beside an image: its .buildinfo, its record, its .changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from debian_cloud import VERSION, formats, names
from debian_cloud.image import index
from debian_cloud.image.custom import others
from debian_cloud.image.id import ImageId
from debian_cloud.text import deb822

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from debian_cloud.host.checksums import Digest
    from debian_cloud.image.resolution import Resolution
    from debian_cloud.image.sources import Source

FACTS: Final = "facts"
"""Name of the file in the workspace that carries the plan's facts to its last step."""

EXPIRED: Final = "[check-valid-until=no]"
"""Option of a source whose indexes the image takes past their Valid-Until (sources.list(5))."""

_SOURCE: Final = "debian-cloud"
"""The source package that uploaders may upload."""
_RAW_SECTION: Final = "raw-images"
"""Section of files that the archive takes by hand, as for debian-installer's images."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about an image before its files are there; `epoch` in seconds, sizes in bytes."""

    id: ImageId
    config_version: str
    epoch: int
    virtual_size: int
    maintainer: str
    formats: tuple[str, ...]
    packages: tuple[tuple[str, ...], ...]
    """SHA-256, size, name, version and architecture of each."""
    tools: tuple[tuple[str, ...], ...]
    """The same of each package that made the image besides."""
    plan: str
    """Id of the steps that make the image's files."""
    releases: tuple[tuple[str, ...], ...]
    """SHA-256, size, suite, URI and signers (comma between them) of each release file that was used."""
    sources: tuple[tuple[str, ...], ...]
    """EXPIRED, where it is so, URI and suites of each of Debian's sources that the image itself has."""
    changes: tuple[str, ...] = ()
    """What a person changed (`Custom.lines`); nothing about an official image."""

    @property
    def stem(self) -> str:
        """The common part of the image's file names."""
        return self.id.stem

    @property
    def published(self) -> tuple[str, ...]:
        """The formats that an archive takes."""
        return tuple(name for name in self.formats if formats.find(name).PUBLISHED)


def facts(
    resolution: Resolution, serial: str, wanted: tuple[str, ...], image_sources: Iterable[Source], plan: str
) -> str:
    """The text of FACTS; `image_sources` are Debian's that the image has, `plan` is the id of its plan."""
    config = resolution.config
    packages, tools = (
        [f"{p.sha256} {p.size} {p.name} {p.version} {p.architecture}" for p in some]
        for some in (resolution.packages, resolution.tools)
    )
    releases = (f"{r.sha256} {r.size} {r.suite} {r.uri} {','.join(r.signers)}" for r in resolution.releases)
    return deb822.render(
        (
            ("Config", names.config(config.name)),
            ("Config-Version", config.version),
            ("Suite", config.suite),
            ("Architecture", config.architecture),
            ("Serial", serial),
            ("Epoch", str(resolution.epoch)),
            ("Virtual-Size", str(config.size)),
            ("Maintainer", config.maintainer),
            ("Formats", " ".join(wanted)),
            ("Plan", plan),
            ("Packages", _lines(packages)),
            *((("Tools", _lines(tools)),) if tools else ()),
            ("Releases", _lines(releases)),
            (
                "Sources",
                _lines(" ".join((*((EXPIRED,) if s.expired else ()), s.uri, *s.suites)) for s in image_sources),
            ),
            *((("Changes", _lines(resolution.custom.lines)),) if resolution.custom.lines else ()),
        )
    )


def parse_facts(text: str) -> Facts:
    """The facts that `facts` wrote."""
    (stanza,) = deb822.parse(text)

    def rows(field: str) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(line.split()) for line in stanza.get(field, "").split("\n")[1:])

    return Facts(
        id=ImageId(stanza["Suite"], stanza["Config"], stanza["Architecture"], stanza["Serial"]),
        config_version=stanza["Config-Version"],
        epoch=int(stanza["Epoch"]),
        virtual_size=int(stanza["Virtual-Size"]),
        maintainer=stanza["Maintainer"],
        formats=tuple(stanza["Formats"].split()),
        packages=rows("Packages"),
        tools=rows("Tools"),
        plan=stanza["Plan"],
        releases=rows("Releases"),
        sources=rows("Sources"),
        changes=tuple(line.strip() for line in stanza.get("Changes", "").split("\n")[1:]),
    )


def buildinfo(known: Facts, digests: Mapping[str, Digest], host: Iterable[str]) -> str:
    """The .buildinfo of an image (deb-buildinfo(5)).

    Installed-Build-Depends are the packages the image is made of, whose tools
    also make its file system and boot files; Packages-Sha256, in the manner of
    Checksums-Sha256, gives the .deb of each: SHA-256, size, name, version,
    architecture; Image-Tools, if any, those that made it and are not in it.
    Image-Releases are the signed release files that list both:
    SHA-256, size, suite, URI, fingerprints of the keys. Image-Sources are
    EXPIRED, where it is so, URIs and suites of Debian's sources in the image,
    Image-Plan is the id of the steps that made it, Image-Host is `host`, the
    packages of the machine where they were carried out. Image-Changes, which an
    official image has not, are what a person changed.
    """
    package = known.id.package
    checksums = (f"{digests[name].hashes['sha256']} {digests[name].size} {name}" for name in sorted(digests))
    of_host = _lines(host)
    installed = (f"\n {name} (= {version})" for _, _, name, version, *_ in known.packages)
    return deb822.render(
        (
            ("Format", "1.0"),
            ("Source", package),
            ("Binary", package),
            ("Architecture", known.id.architecture),
            ("Version", known.id.serial),
            ("Checksums-Sha256", _lines(checksums)),
            ("Build-Architecture", known.id.architecture),
            ("Build-Date", _date(known.epoch)),
            ("Installed-Build-Depends", ",".join(installed)),
            ("Environment", _lines((f'SOURCE_DATE_EPOCH="{known.epoch}"',))),
            ("Image-Suite", known.id.suite),
            ("Image-Config-Version", known.config_version),
            ("Image-Builder", f"debian-cloud {VERSION}"),
            ("Image-Plan", known.plan),
            ("Image-Sources", _lines(map(" ".join, known.sources))),
            ("Image-Releases", _lines(map(" ".join, known.releases))),
            *((("Image-Tools", _lines(map(" ".join, known.tools))),) if known.tools else ()),
            *((("Image-Host", of_host),) if of_host else ()),
            *((("Image-Changes", _lines(known.changes)),) if known.changes else ()),
            ("Packages-Sha256", _lines(map(" ".join, known.packages))),
        )
    )


def record(known: Facts, digests: Mapping[str, Digest]) -> str:
    """The record of an image: one stanza for each published file."""
    return index.render(
        index.ImageRecord(
            id=known.id,
            format=name,
            config_version=known.config_version,
            size=digests[known.id.file(name)].size,
            virtual_size=known.virtual_size,
            sha256=digests[known.id.file(name)].hashes["sha256"],
            sha512=digests[known.id.file(name)].hashes["sha512"],
            official=not known.changes,
            others=tuple(f"{uri} {suite}" for uri, suite in others(known.changes)),
        )
        for name in known.published
    )


def changes(known: Facts, digests: Mapping[str, Digest]) -> str:
    """The .changes that uploads the published files (deb-changes(5)); debsign(1) signs it."""
    package = known.id.package

    def checksums(algorithm: str, between: str = "") -> str:
        return _lines(f"{digests[n].hashes[algorithm]} {digests[n].size}{between} {n}" for n in sorted(digests))

    return deb822.render(
        (
            ("Format", "1.8"),
            ("Date", _date(known.epoch)),
            ("Source", _SOURCE),
            ("Binary", package),
            ("Architecture", known.id.architecture),
            ("Version", known.id.serial),
            ("Distribution", known.id.suite),
            ("Urgency", "medium"),
            ("Maintainer", known.maintainer),
            ("Changed-By", known.maintainer),
            ("Description", _lines((f"{package} - image of {known.id.suite} for {known.id.architecture}",))),
            (
                "Changes",
                _lines(
                    (
                        f"{package} ({known.id.serial}) {known.id.suite}; urgency=medium",
                        ".",
                        f"  * Image of {package} {known.config_version}.",
                    )
                ),
            ),
            ("Checksums-Sha1", checksums("sha1")),
            ("Checksums-Sha256", checksums("sha256")),
            ("Files", checksums("md5", f" {_RAW_SECTION} -")),
        )
    )


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"\n {line}" for line in lines)


def _date(epoch: int) -> str:
    return format_datetime(datetime.fromtimestamp(epoch, UTC))
