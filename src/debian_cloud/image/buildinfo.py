# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image was made of, from apt's resolution to the .buildinfo and back.

A plan writes it as a `Draft`, without the hashes of files that do not exist yet; the last step of a build adds the
hashes and writes the .buildinfo (deb-buildinfo(5)). Drafts and .buildinfo files have one reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from debian_cloud import VERSION, formats, names
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.image import machine
from debian_cloud.image.config import PATH
from debian_cloud.image.custom import others
from debian_cloud.image.id import ImageId
from debian_cloud.image.machine import Machine
from debian_cloud.image.resolution import Package, ReleaseFile
from debian_cloud.image.sources import Source
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from debian_cloud.formats import Algorithm
    from debian_cloud.host.checksums import Digest
    from debian_cloud.image.resolution import Resolution

DRAFT: Final = "facts"
"""Name of the file in the workspace that has the draft for the last step of a plan."""

_EXPIRED: Final = "[check-valid-until=no]"
"""Option of a source whose indexes the image accepts after their Valid-Until (sources.list(5))."""

_LONGEST: Final = 4096
"""Maximum characters of a line."""
_MOST: Final = 2**14
"""Maximum lines of a field; an image has a few hundred packages."""
_LARGEST: Final = 2**50
"""Maximum bytes of a file."""
_FIRST, _LAST = 946684800, 2**33
"""First and last date that an image can have, in seconds since 1970: in the years 2000 and 2242."""

_CHECKSUMS: Final = {formats.SHA256: "Checksums-Sha256", formats.BLOCKS: "Checksums-Sha256-Blocks"}
"""Field of the digests by each algorithm."""

_DIGITS: Final = re.compile("0|[1-9][0-9]{0,17}")
_HEX: Final = re.compile("[0-9a-f]{64}")
_FINGERPRINT: Final = re.compile("[0-9A-F]{40}|[0-9A-F]{64}")
# Debian Policy 5.6.1 and 5.6.12. apt reads other characters as patterns, and they may make a path lead elsewhere.
_NAME: Final = re.compile("[a-z0-9][a-z0-9+.-]+")
_VERSION: Final = re.compile("[0-9A-Za-z][0-9A-Za-z.+:~-]*")
_BUILDER: Final = re.compile("[a-z0-9][a-z0-9.+-]* [0-9A-Za-z.+:~-]+")
_CHANGE: Final = re.compile(
    rf"(add|remove) [a-z0-9][a-z0-9+.-]+|seed [0-9a-f]{{64}}|hostname [A-Za-z0-9.-]+|keep {PATH}"
    r"|source (https?://|file:/)[A-Za-z0-9._~:/%+,=-]+ [a-z0-9][a-z0-9+.-]* [a-z0-9][a-z0-9+.,-]*"
    r"|size [1-9][0-9]{0,5}[MGT]"
)
_URI: Final = re.compile(r"(https?://|file:/|copy:/|mirror\+(https?://|file:/))[!-~]+")

_OF_A_DRAFT: Final = {
    "Config": "Source",
    "Config-Version": "Image-Config-Version",
    "Suite": "Image-Suite",
    "Architecture": "Architecture",
    "Serial": "Version",
    "Plan": "Image-Plan",
    "Packages": "Packages-Sha256",
    "Tools": "Image-Tools",
    "Releases": "Image-Releases",
    "Sources": "Image-Sources",
    "Changes": "Image-Changes",
}
"""Field of a draft -> the field of a .buildinfo with the same meaning."""


@dataclass(frozen=True, slots=True)
class Buildinfo:
    """What an image was made of.

    `epoch` is SOURCE_DATE_EPOCH in seconds; `plan` is the id of the steps that made the image's files; `packages` are
    in the image, `tools` made it and are not in it; `releases` are the signed release files that list both; `sources`
    are the URI and suites of each Debian source that the image itself has; `changes` are the user's changes
    (`Custom.lines`), none for an official image; `digests` are the digest (`algorithm`) and size in bytes of each
    file of the image, empty before the files are made.
    """

    id: ImageId
    config_version: str
    epoch: int
    plan: str
    packages: tuple[Package, ...]
    tools: tuple[Package, ...]
    releases: tuple[ReleaseFile, ...]
    sources: tuple[Source, ...]
    changes: tuple[str, ...] = ()
    builder: str = f"debian-cloud {VERSION}"
    digests: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, name: str) -> Buildinfo:
        """Parse a .buildinfo without its signature; `name` is the file's name.

        Error, and no other exception, if anything is not as `render` writes it: each value has its own form and
        bound, so that callers may use it in a path, a URL or a message.
        """
        try:
            if max(map(len, text.split("\n"))) > _LONGEST:
                raise ValueError("its lines are too long")
            return _sealed(deb822.canonical(text))
        except (ValueError, KeyError, Error) as error:
            raise Error(
                f"{name} is not the .buildinfo of an image: {printable(_why(error))}",
                "`debian-cloud build` writes one beside the image",
                USAGE,
            ) from None

    @property
    def stem(self) -> str:
        """The common part of the image's file names."""
        return self.id.stem

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that the image was made in."""
        return tuple(name.removeprefix(f"{self.stem}.") for name in self.digests)

    @property
    def others(self) -> tuple[tuple[str, str], ...]:
        """Address and suite of each source that the user added (`sources.as_change`)."""
        return others(self.changes)

    def algorithm(self, file: str) -> Algorithm:
        """The algorithm of the digest of one of the image's files: its format's."""
        return formats.find(file.removeprefix(f"{self.stem}.")).DIGEST

    def sealed(self, digests: Mapping[str, Digest]) -> Buildinfo:
        """The same with the digests of the files that were made; `digests` is keyed by file name."""
        found = {name: (digest.hashes[self.algorithm(name)], digest.size) for name, digest in digests.items()}
        return replace(self, digests=found)

    def render(self, host: Iterable[str]) -> str:
        """The text of the .buildinfo (deb-buildinfo(5)).

        Installed-Build-Depends are the packages in the image, whose tools also make its file system and boot files.
        Checksums-Sha256-Blocks are the digests of files that are identified by their blocks (`host.checksums`), in
        the format of Checksums-Sha256, which has those of the other files. Packages-Sha256, in the format of
        Checksums-Sha256, lists the .deb of each: SHA-256, size, name, version, architecture. Image-Tools, if any,
        lists those that made the image and are not in it. Image-Releases are the signed release files that list both:
        SHA-256, size, suite, URI, fingerprints of the keys. Image-Sources are the Debian sources in the image:
        "[check-valid-until=no]" if it applies, URI and suites. Image-Plan is the id of the steps that made the image.
        Image-Host is `host`, the packages of the machine that ran the steps. Image-Changes, which an official image
        does not have, are the user's changes.
        """
        package = self.id.package
        checksums = {
            _CHECKSUMS[self.algorithm(name)]: [
                f"{digest} {size} {other}"
                for other, (digest, size) in sorted(self.digests.items())
                if self.algorithm(other) == self.algorithm(name)
            ]
            for name in self.digests
        }
        of_host = lines(host)
        installed = (f"\n {found.name} (= {found.version})" for found in self.packages)
        return deb822.render(
            (
                ("Format", "1.0"),
                ("Source", package),
                ("Binary", package),
                ("Architecture", self.id.architecture),
                ("Version", self.id.serial),
                *((field, lines(checksums[field])) for field in _CHECKSUMS.values() if field in checksums),
                ("Build-Architecture", self.id.architecture),
                ("Build-Date", date(self.epoch)),
                ("Installed-Build-Depends", ",".join(installed)),
                ("Environment", _environment(self.epoch)),
                ("Image-Suite", self.id.suite),
                ("Image-Config-Version", self.config_version),
                ("Image-Builder", self.builder),
                ("Image-Plan", self.plan),
                ("Image-Sources", lines(map(_source_row, self.sources))),
                ("Image-Releases", lines(map(_release_row, self.releases))),
                *((("Image-Tools", lines(map(_package_row, self.tools))),) if self.tools else ()),
                *((("Image-Host", of_host),) if of_host else ()),
                *((("Image-Changes", lines(self.changes)),) if self.changes else ()),
                ("Packages-Sha256", lines(map(_package_row, self.packages))),
            )
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """A .buildinfo before its files exist, with further values for the record and the .changes.

    `formats` are those that will be made; `virtual_size` is the disk's in bytes; `machine` goes into the record.
    """

    buildinfo: Buildinfo
    formats: tuple[str, ...]
    virtual_size: int
    maintainer: str
    machine: Machine = machine.UNKNOWN

    @classmethod
    def of(
        cls, resolution: Resolution, serial: str, wanted: tuple[str, ...], sources: Iterable[Source], plan: str
    ) -> Draft:
        """The draft for a plan: `wanted` are the image's formats, `sources` its Debian sources, `plan` is its id."""
        config = resolution.config
        known = Buildinfo(
            id=config.image(serial),
            config_version=config.version,
            epoch=resolution.epoch,
            plan=plan,
            packages=resolution.packages,
            tools=resolution.tools,
            releases=resolution.releases,
            sources=tuple(sources),
            changes=resolution.custom.lines,
        )
        return cls(known, wanted, config.size, config.maintainer, Machine.of(config))

    @classmethod
    def parse(cls, text: str) -> Draft:
        """Parse what `render` wrote; Error if it is something else."""
        try:
            (stanza,) = deb822.parse(text)
            same = {_OF_A_DRAFT[name]: value for name, value in stanza.items() if name in _OF_A_DRAFT}
            return cls(
                _read({**same, "Environment": _environment(int(stanza["Epoch"]))}),
                (*stanza["Formats"].split(),),
                int(stanza["Virtual-Size"]),
                stanza["Maintainer"],
                machine.read(stanza, strict=True),
            )
        except (ValueError, KeyError, Error) as error:
            raise Error(
                f"the file {DRAFT} does not have the form that a plan writes: {printable(_why(error))}",
                "it was changed, or another version wrote it: plan and build again",
                FAILED,
            ) from None

    @property
    def published(self) -> tuple[str, ...]:
        """The formats that an archive accepts."""
        return tuple(name for name in self.formats if formats.find(name).PUBLISHED)

    def render(self) -> str:
        """The text for the last step of a plan."""
        found = self.buildinfo
        return deb822.render(
            (
                ("Config", found.id.config),
                ("Config-Version", found.config_version),
                ("Suite", found.id.suite),
                ("Architecture", found.id.architecture),
                ("Serial", found.id.serial),
                ("Epoch", str(found.epoch)),
                ("Virtual-Size", str(self.virtual_size)),
                ("Maintainer", self.maintainer),
                ("Formats", " ".join(self.formats)),
                *((name, value) for name, value in self.machine.fields() if value),
                ("Plan", found.plan),
                ("Packages", lines(map(_package_row, found.packages))),
                *((("Tools", lines(map(_package_row, found.tools))),) if found.tools else ()),
                ("Releases", lines(map(_release_row, found.releases))),
                ("Sources", lines(map(_source_row, found.sources))),
                *((("Changes", lines(found.changes)),) if found.changes else ()),
            )
        )


def lines(those: Iterable[str]) -> str:
    """The value of a multi-line field."""
    return "".join(f"\n {line}" for line in those)


def date(epoch: int) -> str:
    """Seconds since 1970 as a date (RFC 5322)."""
    # Few commands need it, and it takes a tenth of the time in which the others begin.
    from email.utils import format_datetime

    return format_datetime(datetime.fromtimestamp(epoch, UTC))


def _environment(epoch: int) -> str:
    return lines((f'SOURCE_DATE_EPOCH="{epoch}"',))


def _package_row(package: Package) -> str:
    return f"{package.sha256} {package.size} {package.name} {package.version} {package.architecture}"


def _release_row(release: ReleaseFile) -> str:
    return f"{release.sha256} {release.size} {release.suite} {release.uri} {','.join(release.signers)}"


def _source_row(source: Source) -> str:
    return " ".join((*((_EXPIRED,) if source.expired else ()), source.uri, *source.suites))


def _why(error: Exception) -> str:
    return f"it has no field {error.args[0]}" if isinstance(error, KeyError) else str(error)


def _sealed(stanzas: tuple[deb822.Stanza, ...]) -> Buildinfo:
    """Parse a .buildinfo of any origin: also its files, and addresses, which apt must read as this program does."""
    if len(stanzas) != 1:
        raise ValueError(f"it has {len(stanzas)} stanzas")
    (stanza,) = stanzas
    found = replace(
        _read(stanza),
        builder=_of(_BUILDER, stanza["Image-Builder"]),
        digests=_digests(stanza),
    )
    for name, value in (
        ("Packages-Sha256", found.packages),
        ("Image-Releases", found.releases),
        ("Image-Sources", found.sources),
        ("Checksums-Sha256", found.digests),
    ):
        if not value:
            raise ValueError(f"its field {name} is empty")
    for uri in (*(release.uri for release in found.releases), *(source.uri for source in found.sources)):
        _refuse_uri(uri)
    for file, format_name in zip(found.digests, found.formats, strict=True):
        if file != found.id.file(format_name):
            raise ValueError(f"it describes {found.stem}, but lists the file {file}")
        field = _CHECKSUMS[formats.find(format_name).DIGEST]
        if file not in {name for _, _, name in _rows(stanza.get(field, ""), 3)}:
            raise ValueError(f"its field {field} does not have {file}")
    return found


def _digests(stanza: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Parse the digests of the image's files; no file may have two."""
    rows = [row for field in _CHECKSUMS.values() for row in _rows(stanza.get(field, ""), 3)]
    found = {name: (_of(_HEX, digest), _number(size)) for digest, size, name in rows}
    if len(found) != len(rows):
        raise ValueError("it has two digests of a file")
    return found


def _read(stanza: Mapping[str, str]) -> Buildinfo:
    """Parse all that is known before the files are made; the form of each value is checked, except for addresses."""
    return Buildinfo(
        ImageId(stanza["Image-Suite"], names.config(stanza["Source"]), stanza["Architecture"], stanza["Version"]),
        _of(_VERSION, stanza["Image-Config-Version"]),
        _epoch(stanza["Environment"]),
        _of(_HEX, stanza["Image-Plan"]),
        _packages(stanza["Packages-Sha256"]),
        _packages(stanza.get("Image-Tools", "")),
        tuple(_release(*row) for row in _rows(stanza["Image-Releases"], 5)),
        tuple(map(_source, _rows(stanza["Image-Sources"]))),
        tuple(_of(_CHANGE, " ".join(row)) for row in _rows(stanza.get("Image-Changes", ""))),
    )


def _packages(value: str) -> tuple[Package, ...]:
    found = tuple(
        Package(_of(_NAME, name), _of(_VERSION, version), _of(_NAME, arch), _number(size), _of(_HEX, sha256))
        for sha256, size, name, version, arch in _rows(value, 5)
    )
    if len({package.name for package in found}) != len(found):
        raise ValueError("it lists a package twice")
    return found


def _release(sha256: str, size: str, suite: str, uri: str, signers: str) -> ReleaseFile:
    keys = tuple(_of(_FINGERPRINT, signer) for signer in signers.split(","))
    return ReleaseFile(uri, names.word(suite, "suite"), _number(size), _of(_HEX, sha256), keys)


def _source(words: list[str]) -> Source:
    expired = words[0] == _EXPIRED
    uri, *suites = words[1:] if expired else words
    if not suites:
        raise ValueError(f"its source {uri} has no suite")
    return Source(uri, tuple(names.word(suite, "suite") for suite in suites), names.DEBIAN_KEYRING, expired=expired)


def _epoch(environment: str) -> int:
    (row,) = _rows(environment, 1)
    quoted = re.fullmatch('SOURCE_DATE_EPOCH="([0-9]+)"', row[0])
    epoch = _number(quoted[1] if quoted else row[0])
    if not _FIRST <= epoch <= _LAST:
        raise ValueError(f"its SOURCE_DATE_EPOCH is {epoch}, which is out of range")
    return epoch


def _refuse_uri(text: str) -> None:
    """Raise ValueError unless apt reads an address as this program does."""
    try:
        # A host in brackets must be an address, and a port a number.
        good = urlsplit(_of(_URI, text)).port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{text[:60]!r} is not a URI that apt accepts")


def _rows(value: str, words: int = 0) -> list[list[str]]:
    """The words of each line of a multi-line field; each line must have `words` words, unless that is 0."""
    first, *lines = value.split("\n")
    rows = [line[1:].split(" ") for line in lines]
    if first or len(rows) > _MOST or any(not all(row) or (words and len(row) != words) for row in rows):
        raise ValueError(f"it has an invalid line: {value[:60]!r}")
    return rows


def _number(text: str) -> int:
    """A number of bytes or of seconds, from decimal digits."""
    number = int(_of(_DIGITS, text))
    if number > _LARGEST:
        raise ValueError(f"the number {text} is too large")
    return number


def _of(form: re.Pattern[str], value: str) -> str:
    """Return the value if it has the form; otherwise raise ValueError."""
    if not form.fullmatch(value):
        raise ValueError(f"it has the invalid value {value[:60]!r}")
    return value
