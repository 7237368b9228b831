# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of an uploaded image's .buildinfo: its values are valid, and the archive can keep all that it names."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import Error
from debian_cloud.image import index, sources, staleness
from debian_cloud.image.resolution import Package
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.sources import Source

BUILDINFO: Final = 2**21
"""Maximum bytes of a .buildinfo; that of a large desktop image has a tenth."""
RECORD: Final = 2**16
"""Maximum bytes of a record, which has a stanza of some 800 bytes for each format."""

_PACKAGES: Final = staleness.MOST_UPDATES
"""Maximum number of packages; a large desktop image has half as many."""
_RELEASES: Final = 16
_TOTAL: Final = 2**36
"""Maximum bytes of all packages; no more is read of an unpacked image."""
_LINE: Final = 400
"""Maximum characters of any other line."""
_LONGEST_VERSION: Final = 100
"""Maximum characters of a version; Debian's have at most half as many."""
_FINGERPRINT: Final = re.compile("[0-9A-F]{40}(?:[0-9A-F]{24})?")
_HASH: Final = re.compile("[0-9a-f]{64}")
# A URI for a machine's apt, without a user, a password, or words that apt would read as more (RFC 3986, 3).
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_PATH: Final = r"(?:/[A-Za-z0-9._~%+:,=-]*)*"
_MIRROR: Final = re.compile(rf"(?:mirror\+|tor\+)?https?://{_HOST}{_PATH}")
_PLACE: Final = re.compile(rf"(?:mirror\+|tor\+)?https?://{_HOST}{_PATH}|(?:mirror\+)?(?:file|copy):{_PATH}")
_AGAIN: Final = "build it again, and upload it as `debian-cloud build` writes it"


def check(buildinfo: Buildinfo, now: float, *, expired: bool) -> None:
    """Raise Error unless the values of a .buildinfo are valid; `now` is in seconds since 1970.

    The image's own sources must be Debian's for its suite, from any mirror, and must not accept expired indexes,
    unless `expired` is true.
    """
    packages = (*buildinfo.packages, *buildinfo.tools)
    tomorrow = datetime.fromtimestamp(now + 86400, UTC)
    for wrong, what in (
        (
            not 0 < buildinfo.epoch <= now + 86400,
            f"SOURCE_DATE_EPOCH {printable(str(buildinfo.epoch))}, which is not in the past",
        ),
        # Until that day, the image would be the newest, and therefore current.
        (
            buildinfo.id.serial[:8] > f"{tomorrow:%Y%m%d}",
            f"the serial {buildinfo.id.serial}, whose day is in the future",
        ),
        (len(packages) > _PACKAGES, f"{len(packages)} packages, but at most {_PACKAGES} are allowed"),
        (not buildinfo.packages, "no package"),
        (sum(package.size for package in packages) > _TOTAL, f"packages of more than {_TOTAL} bytes"),
        (not 0 < len(buildinfo.releases) <= _RELEASES, f"{len(buildinfo.releases)} release files"),
        (not _HASH.fullmatch(buildinfo.plan), f"the plan {printable(buildinfo.plan, 80)}, which is not a plan's id"),
        (not _is_version(buildinfo.config_version), "a configuration with an invalid version"),
        *(
            (not _is_line(line), f"the line {printable(line, 80)}")
            for line in (buildinfo.builder, *buildinfo.changes)
        ),
        *_packages(buildinfo),
        *_releases(buildinfo),
        *_sources(buildinfo.id.suite, buildinfo.sources, expired=expired),
    ):
        if wrong:
            raise Error(f"{buildinfo.stem}.buildinfo has {what}", _AGAIN)


def check_kept(buildinfo: Buildinfo, known: Collection[Package], keys: Collection[str]) -> None:
    """Raise Error unless the archive has those of its own packages that went into an image.

    `known` are the packages that the archive lists, or those of the snapshot that the image names; `keys` are the
    fingerprints of its present and former signing keys. Debian's packages are checked when they are fetched.
    """
    if not any(signer in keys for release in buildinfo.releases for signer in release.signers):
        raise Error(
            f"{buildinfo.stem}.buildinfo names no release file of this archive, so its closure cannot be kept",
            "build it from this archive, and upload it again",
        )
    name = buildinfo.id.package
    if (name, buildinfo.config_version) not in {(package.name, package.version) for package in buildinfo.packages}:
        raise Error(f"{buildinfo.stem}.buildinfo does not list the package {name} {buildinfo.config_version}", _AGAIN)
    listed = {package.name: package for package in known}
    debian_s = {*of_debian(buildinfo)}
    for package in (*buildinfo.packages, *buildinfo.tools):
        if package not in debian_s and package not in known:
            here = listed.get(package.name)
            there = (
                f"it has {here.version}" + (" with other bytes" if here.version == package.version else "")
                if here
                else "it has none"
            )
            raise Error(
                f"the image has {package.name} {package.version}, which this archive does not list: {there}",
                "build it again from the packages published now, or from older ones with --snapshot ID",
            )


def of_debian(buildinfo: Buildinfo) -> tuple[Package, ...]:
    """Debian's packages in an image and in the tools that built it."""
    return tuple(p for p in (*buildinfo.packages, *buildinfo.tools) if not p.name.startswith(names.OURS))


def snapshot_of(buildinfo: Buildinfo) -> str:
    """The id of the archive's snapshot that an image was made of; empty if it was made of none."""
    return next(filter(None, (names.snapshot_at(release.uri) for release in buildinfo.releases)), "")


def known(lines: Iterable[str]) -> Iterator[Package]:
    """The packages in lines NAME VERSION ARCHITECTURE SIZE SHA256; other lines are ignored."""
    for words in (line.split() for line in lines):
        if len(words) == 5 and words[3].isdecimal() and _HASH.fullmatch(words[4]):
            yield Package(words[0], words[1], words[2], int(words[3]), words[4])


def _packages(buildinfo: Buildinfo) -> Iterator[tuple[bool, str]]:
    seen: set[str] = set()
    for package in (*buildinfo.packages, *buildinfo.tools):
        yield not _is_name(package.name), f"the package {printable(package.name, 80)}, which is not a valid name"
        yield package.name in seen, f"the package {package.name} twice"
        seen.add(package.name)
        what = f"{package.name} {printable(package.version, 80)} {printable(package.architecture, 80)}"
        yield not _is_version(package.version), f"{what}, which is not a valid version"
        yield (
            package.architecture not in (buildinfo.id.architecture, "all"),
            f"{what}, but is for {buildinfo.id.architecture}",
        )
        yield not 0 < package.size <= _TOTAL, f"{what} with {printable(str(package.size), 80)} bytes"


def _releases(buildinfo: Buildinfo) -> Iterator[tuple[bool, str]]:
    suites = (buildinfo.id.suite, f"{buildinfo.id.suite}-updates", f"{buildinfo.id.suite}-security")
    for release in buildinfo.releases:
        what = f"the release file {printable(release.suite, 80)} of {printable(release.uri, 200)}"
        other = (release.uri, release.suite) in buildinfo.others
        yield release.suite not in suites and not other, f"{what}, but is for {buildinfo.id.suite}"
        yield not _is_place(_PLACE, release.uri), f"{what}, which is not a plain address"
        yield not 0 < release.size <= 2**24, f"{what} with {printable(str(release.size), 80)} bytes"
        yield len(release.signers) > _RELEASES, f"{what} with {len(release.signers)} signers"
        for signer in release.signers[:_RELEASES]:
            yield not _FINGERPRINT.fullmatch(signer), f"{what} signed by {printable(signer, 80)}, which is not a key"


def _sources(suite: str, those: tuple[Source, ...], *, expired: bool) -> Iterator[tuple[bool, str]]:
    """Each check of the sources that the image's own apt will use: whether it fails, and the fault."""
    usual = sources.debian((), suite, mirror="http://d.example", security_mirror="http://d.example")
    got = [" ".join(source.suites) for source in those]
    yield (
        got != [" ".join(source.suites) for source in usual],
        f"Image-Sources with the suites {printable('; '.join(got[:8]), 200)}, which are not Debian's for {suite}",
    )
    for source in those:
        what = f"Image-Sources with {printable(source.uri, 200)}"
        yield not _is_place(_MIRROR, source.uri), f"{what}, which is not a plain address of a mirror"
        yield source.expired and not expired, f"{what}, whose indexes are accepted after they have expired"


def _is_name(name: str) -> bool:
    try:
        return bool(names.word(name, "package")) and len(name) <= 200
    except Error:
        return False


def _is_version(version: str) -> bool:
    """Whether an index can have this version."""
    return len(version) <= _LONGEST_VERSION and bool(index.VERSION.fullmatch(version))


def _is_place(pattern: re.Pattern[str], uri: str) -> bool:
    return len(uri) <= _LINE and bool(pattern.fullmatch(uri))


def _is_line(text: str) -> bool:
    return 0 < len(text) <= _LINE and text.isprintable()
