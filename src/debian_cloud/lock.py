# SPDX-License-Identifier: GPL-3.0-or-later
"""What a .buildinfo says an image is made of, and nothing else may go into another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import deb822, formats, metadata, names
from .errors import FAILED, USAGE, Error
from .resolution import Package, Release
from .sources import Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .resolution import Resolution

_SHOWN: Final = 10
"""Differences that a sentence lists."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One image's .buildinfo, read back (`metadata.buildinfo` wrote it).

    `epoch` is SOURCE_DATE_EPOCH in seconds; `sources` are the URI and the suites
    of each of Debian's sources that the image itself has; `digests` gives the
    SHA-256 and the size of each file of the image.
    """

    config: str
    config_version: str
    suite: str
    architecture: str
    serial: str
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
        return names.stem(self.suite, self.config, self.architecture, self.serial)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that the image was made in."""
        return tuple(name.removeprefix(f"{self.stem}.") for name in self.digests)

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
            ("configuration", self.config, names.config(config.name)),
            ("suite", self.suite, config.suite),
            ("architecture", self.architecture, config.architecture),
        ):
            if locked != got:
                raise Error(
                    f"the lock is of {what} {locked}, not of {got}", "give the .buildinfo of the same image", USAGE
                )
        if self.changes != resolution.custom.lines:
            said = ", ".join(self.changes) or "no change"
            raise Error(
                f"the lock is of an image with {said}",
                "give --add, --remove, --seed, --hostname and --keep-secrets as they were given for it",
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
    """The lock in a .buildinfo's text; a clear signature around it is left to others. `name` is the file's."""
    try:
        (stanza,) = deb822.parse(text)
        packages, tools = (
            tuple(Package(n, v, a, int(size), _hex(sha)) for sha, size, n, v, a in _rows(text, 5))
            for text in (stanza["Packages-Sha256"], stanza.get("Image-Tools", ""))
        )
        releases = tuple(
            Release(uri, suite, int(size), _hex(sha), tuple(signers.split(",")))
            for sha, size, suite, uri, signers in _rows(stanza["Image-Releases"], 5)
        )
        digests = {n: (_hex(sha), int(size)) for sha, size, n in _rows(stanza["Checksums-Sha256"], 3)}
        (epoch,) = (row[0] for row in _rows(stanza["Environment"], 1) if row[0].startswith("SOURCE_DATE_EPOCH="))
        found = Lock(
            config=names.word(names.config(stanza["Source"]), "configuration"),
            config_version=stanza["Image-Config-Version"],
            suite=names.word(stanza["Image-Suite"], "suite"),
            architecture=names.word(stanza["Architecture"], "architecture"),
            serial=names.serial(stanza["Version"]),
            epoch=int(epoch.partition("=")[2].strip('"')),
            builder=stanza["Image-Builder"],
            plan=stanza["Image-Plan"],
            packages=packages,
            tools=tools,
            releases=releases,
            sources=tuple(map(_source, _rows(stanza["Image-Sources"]))),
            changes=tuple(" ".join(row) for row in _rows(stanza.get("Image-Changes", ""))),
            digests=digests,
        )
        for format_name in found.formats:
            formats.find(format_name)
    except (ValueError, KeyError) as error:
        missing = f": it has no field {error.args[0]}" if isinstance(error, KeyError) else ""
        raise Error(
            f"{name} is not the .buildinfo of an image{missing}",
            "`debian-cloud build` writes one beside the image",
            USAGE,
        ) from None
    return found


def _source(words: list[str]) -> Source:
    expired = words[0] == metadata.EXPIRED
    uri, *suites = words[1:] if expired else words
    return Source(uri, tuple(suites), names.DEBIAN_KEYRING, expired=expired)


def _rows(value: str, words: int = 0) -> list[list[str]]:
    rows = [line.split() for line in value.splitlines() if line.strip()]
    if words and any(len(row) != words for row in rows):
        raise ValueError(value)
    return rows


def _hex(digest: str) -> str:
    if len(digest) != 64 or digest.strip("0123456789abcdef"):
        raise ValueError(digest)
    return digest
