# SPDX-License-Identifier: GPL-3.0-or-later
"""What a .buildinfo says an image is made of, and nothing else may go into another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from debian_cloud import formats, names
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.image import metadata
from debian_cloud.image.config import PATH
from debian_cloud.image.custom import others
from debian_cloud.image.id import ImageId
from debian_cloud.image.resolution import Package, Release
from debian_cloud.image.sources import Source
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from debian_cloud.image.resolution import Resolution

_SHOWN: Final = 10
"""Differences that a sentence lists."""

_LONGEST: Final = 4096
"""Characters of a line."""
_MOST: Final = 2**14
"""Lines of a field; an image has some hundred packages."""
_LARGEST: Final = 2**50
"""Bytes of a file."""
_FIRST, _LAST = 946684800, 2**33
"""Seconds since 1970 of the first day that an image can be of, and of the last: 2000 and 2242."""

_DIGITS: Final = re.compile("0|[1-9][0-9]{0,17}")
_HEX: Final = re.compile("[0-9a-f]{64}")
_FINGERPRINT: Final = re.compile("[0-9A-F]{40}|[0-9A-F]{64}")
# Debian Policy 5.6.1 and 5.6.12. apt reads patterns in other characters, and a path may lead elsewhere by them.
_NAME: Final = re.compile("[a-z0-9][a-z0-9+.-]+")
_VERSION: Final = re.compile("[0-9A-Za-z][0-9A-Za-z.+:~-]*")
_BUILDER: Final = re.compile("[a-z0-9][a-z0-9.+-]* [0-9A-Za-z.+:~-]+")
_CHANGE: Final = re.compile(
    rf"(add|remove) [a-z0-9][a-z0-9+.-]+|seed [0-9a-f]{{64}}|hostname [A-Za-z0-9.-]+|keep {PATH}"
    r"|source (https?://|file:/)[A-Za-z0-9._~:/%+,=-]+ [a-z0-9][a-z0-9+.-]* [a-z0-9][a-z0-9+.,-]*"
    r"|size [1-9][0-9]{0,5}[MGT]"
)
_URI: Final = re.compile(r"(https?://|file:/|copy:/|mirror\+(https?://|file:/))[!-~]+")


@dataclass(frozen=True, slots=True)
class Lock:
    """One image's .buildinfo, read back (`metadata.buildinfo` wrote it).

    `epoch` is SOURCE_DATE_EPOCH in seconds; `sources` are the URI and the suites
    of each of Debian's sources that the image itself has; `digests` gives the
    SHA-256 and the size of each file of the image.
    """

    id: ImageId
    config_version: str
    epoch: int
    builder: str
    plan: str
    packages: tuple[Package, ...]
    tools: tuple[Package, ...]
    releases: tuple[Release, ...]
    sources: tuple[Source, ...]
    changes: tuple[str, ...]
    digests: dict[str, tuple[str, int]]

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
        """Address and suite of each source that a person added (`sources.as_change`)."""
        return others(self.changes)

    @property
    def preferences(self) -> str:
        """The text by which apt takes these versions, and no other package at all (apt_preferences(5))."""
        pins = "\n".join(
            f"Package: {package.name}\nPin: version {package.version}\nPin-Priority: 1001\n"
            for package in self.packages
        )
        return f"Package: *\nPin: release *\nPin-Priority: -1\n\n{pins}"

    def check(self, resolution: Resolution) -> None:
        """Error that names what was resolved otherwise than it is locked."""
        config = resolution.config
        for what, locked, got in (
            ("configuration", self.id.config, names.config(config.name)),
            ("suite", self.id.suite, config.suite),
            ("architecture", self.id.architecture, config.architecture),
        ):
            if locked != got:
                raise Error(
                    f"the lock is of {what} {locked}, not of {got}", "give the .buildinfo of the same image", USAGE
                )
        if self.changes != resolution.custom.lines:
            said = ", ".join(self.changes) or "no change"
            raise Error(
                f"the lock is of an image with {said}",
                "give --add, --remove, --seed, --hostname, --keep-secrets, --size, --source as they were given",
                USAGE,
            )
        locked_packages, resolved = set(self.packages), set(resolution.packages)
        if locked_packages != resolved:
            raise Error(
                "what apt resolves is not what the lock has:"
                + _listed("not in the lock", resolved - locked_packages)
                + _listed("only in the lock", locked_packages - resolved),
                "an archive keeps the newest versions alone: take the packages from the image's own closure",
                FAILED,
            )


def _listed(what: str, packages: Iterable[Package]) -> str:
    found = sorted(packages, key=lambda package: package.name)
    lines = [f"\n  {what}: {p.name} {p.version} {p.architecture} {p.sha256}" for p in found[:_SHOWN]]
    return "".join(lines) + (f"\n  {what}: {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def parse(text: str, name: str) -> Lock:
    """The lock in a .buildinfo's text, without a signature around it; `name` is the file's.

    Error, and nothing else, at whatever is not as `metadata.buildinfo` writes it: each value has its own form and
    its bound, so that what follows may use it in a path, a URL or a sentence.
    """
    try:
        if max(map(len, text.split("\n"))) > _LONGEST:
            raise ValueError("its lines are too long")
        return _lock(text)
    except (ValueError, KeyError, Error) as error:
        why = f"it has no field {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise Error(
            f"{name} is not the .buildinfo of an image: {printable(why)}",
            "`debian-cloud build` writes one beside the image",
            USAGE,
        ) from None


def _lock(text: str) -> Lock:
    stanzas = deb822.canonical(text)
    if len(stanzas) != 1:
        raise ValueError(f"it has {len(stanzas)} stanzas")
    (stanza,) = stanzas
    found = Lock(
        id=ImageId(stanza["Image-Suite"], names.config(stanza["Source"]), stanza["Architecture"], stanza["Version"]),
        config_version=_of(_VERSION, stanza["Image-Config-Version"]),
        epoch=_epoch(stanza["Environment"]),
        builder=_of(_BUILDER, stanza["Image-Builder"]),
        plan=_of(_HEX, stanza["Image-Plan"]),
        packages=_packages(stanza["Packages-Sha256"]),
        tools=_packages(stanza.get("Image-Tools", "")),
        releases=tuple(_release(*row) for row in _rows(stanza["Image-Releases"], 5)),
        sources=tuple(map(_source, _rows(stanza["Image-Sources"]))),
        changes=tuple(_of(_CHANGE, " ".join(row)) for row in _rows(stanza.get("Image-Changes", ""))),
        digests={n: (_of(_HEX, sha), _number(size)) for sha, size, n in _rows(stanza["Checksums-Sha256"], 3)},
    )
    for field, value in (
        ("Packages-Sha256", found.packages),
        ("Image-Releases", found.releases),
        ("Image-Sources", found.sources),
        ("Checksums-Sha256", found.digests),
    ):
        if not value:
            raise ValueError(f"its field {field} is empty")
    for file, format_name in zip(found.digests, found.formats, strict=True):
        if file != found.id.file(format_name):
            raise ValueError(f"it is of {found.stem}, and has a file {file}")
        formats.find(format_name)
    return found


def _packages(value: str) -> tuple[Package, ...]:
    found = tuple(
        Package(_of(_NAME, name), _of(_VERSION, version), _of(_NAME, arch), _number(size), _of(_HEX, sha256))
        for sha256, size, name, version, arch in _rows(value, 5)
    )
    if len({package.name for package in found}) != len(found):
        raise ValueError("it has a package twice")
    return found


def _release(sha256: str, size: str, suite: str, uri: str, signers: str) -> Release:
    keys = tuple(_of(_FINGERPRINT, signer) for signer in signers.split(","))
    return Release(_uri(uri), names.word(suite, "suite"), _number(size), _of(_HEX, sha256), keys)


def _source(words: list[str]) -> Source:
    expired = words[0] == metadata.EXPIRED
    uri, *suites = words[1:] if expired else words
    if not suites:
        raise ValueError(f"its source {uri} has no suite")
    return Source(
        _uri(uri), tuple(names.word(suite, "suite") for suite in suites), names.DEBIAN_KEYRING, expired=expired
    )


def _epoch(environment: str) -> int:
    (row,) = _rows(environment, 1)
    quoted = re.fullmatch('SOURCE_DATE_EPOCH="([0-9]+)"', row[0])
    epoch = _number(quoted[1] if quoted else row[0])
    if not _FIRST <= epoch <= _LAST:
        raise ValueError(f"its SOURCE_DATE_EPOCH is {epoch}, no day of an image")
    return epoch


def _uri(text: str) -> str:
    """The value itself, when apt and we read the same in it."""
    try:
        # A host in brackets must be an address, and a port a number.
        good = urlsplit(_of(_URI, text)).port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{text[:60]!r} is no URI that apt reads")
    return text


def _rows(value: str, words: int = 0) -> list[list[str]]:
    """The words of each line of a field that has more than one; `words` in each, if that is known."""
    first, *lines = value.split("\n")
    rows = [line[1:].split(" ") for line in lines]
    if first or len(rows) > _MOST or any(not all(row) or (words and len(row) != words) for row in rows):
        raise ValueError(f"it has another line than it should: {value[:60]!r}")
    return rows


def _number(text: str) -> int:
    """A count of bytes or of seconds, as it is written down."""
    number = int(_of(_DIGITS, text))
    if number > _LARGEST:
        raise ValueError(f"the number {text} is larger than any that is meant")
    return number


def _of(form: re.Pattern[str], value: str) -> str:
    """The value itself, when it has the form."""
    if not form.fullmatch(value):
        raise ValueError(f"{value[:60]!r} is not what should stand there")
    return value
