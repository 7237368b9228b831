# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive takes of an image's .buildinfo: it is sane, and all that it names can be kept."""

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
"""Bytes of a .buildinfo: one of a large desktop has a tenth of that."""
RECORD: Final = 2**16
"""Bytes of a record: a stanza of some 800 for each format."""

_PACKAGES: Final = staleness.MOST_UPDATES
"""Of a large desktop there are half as many."""
_RELEASES: Final = 16
_TOTAL: Final = 2**36
"""Bytes of all packages: no more is read of an image, unpacked."""
_LINE: Final = 400
"""Characters of a line that says anything else."""
_LONGEST_VERSION: Final = 100
"""Characters: Debian's have half as many."""
_FINGERPRINT: Final = re.compile("[0-9A-F]{40}(?:[0-9A-F]{24})?")
_HASH: Final = re.compile("[0-9a-f]{64}")
# What a machine's apt asks, without a user, a password, or words that it would take for more (RFC 3986, 3).
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_PATH: Final = r"(?:/[A-Za-z0-9._~%+:,=-]*)*"
_MIRROR: Final = re.compile(rf"(?:mirror\+|tor\+)?https?://{_HOST}{_PATH}")
_PLACE: Final = re.compile(rf"(?:mirror\+|tor\+)?https?://{_HOST}{_PATH}|(?:mirror\+)?(?:file|copy):{_PATH}")
_AGAIN: Final = "build it again, and upload it as `debian-cloud build` has written it"


def check(buildinfo: Buildinfo, now: float, *, expired: bool) -> None:
    """Error unless a .buildinfo says what one can say; `now` in seconds since 1970.

    The image's own sources must be those of Debian for its suite, by whichever mirror; apt there must not take
    expired indexes, unless `expired`.
    """
    packages = (*buildinfo.packages, *buildinfo.tools)
    tomorrow = datetime.fromtimestamp(now + 86400, UTC)
    for wrong, what in (
        (
            not 0 < buildinfo.epoch <= now + 86400,
            f"SOURCE_DATE_EPOCH {printable(str(buildinfo.epoch))}, no day that was",
        ),
        # It would be the newest, and current, until that day.
        (
            buildinfo.id.serial[:8] > f"{tomorrow:%Y%m%d}",
            f"the serial {buildinfo.id.serial}, of a day that has not come",
        ),
        (len(packages) > _PACKAGES, f"{len(packages)} packages, and at most {_PACKAGES} are kept"),
        (not buildinfo.packages, "no package"),
        (sum(package.size for package in packages) > _TOTAL, f"packages of more than {_TOTAL} bytes"),
        (not 0 < len(buildinfo.releases) <= _RELEASES, f"{len(buildinfo.releases)} release files"),
        (not _HASH.fullmatch(buildinfo.plan), f"the plan {printable(buildinfo.plan, 80)}, which is no id of one"),
        (not _is_version(buildinfo.config_version), "a configuration of no version"),
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
    """Error unless the archive has what of it went into an image.

    `known` are the packages that it lists, or of the snapshot that the image names; `keys` the fingerprints by which
    it signs or signed. What is Debian's is asked of Debian when it is fetched.
    """
    if not any(signer in keys for release in buildinfo.releases for signer in release.signers):
        raise Error(
            f"{buildinfo.stem}.buildinfo names no release file of this archive, so what it was made of cannot be"
            " kept",
            "build it from this archive, and upload it again",
        )
    name = buildinfo.id.package
    if (name, buildinfo.config_version) not in {(package.name, package.version) for package in buildinfo.packages}:
        raise Error(
            f"{buildinfo.stem}.buildinfo does not name {name} {buildinfo.config_version} among its packages", _AGAIN
        )
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
                "build it again from what is published now, or with --snapshot ID from what was",
            )


def of_debian(buildinfo: Buildinfo) -> tuple[Package, ...]:
    """What of an image, and of what it was made with, is Debian's."""
    return tuple(p for p in (*buildinfo.packages, *buildinfo.tools) if not p.name.startswith(names.OURS))


def snapshot_of(buildinfo: Buildinfo) -> str:
    """The id of the archive's snapshot that an image was made of; empty when it was made of none."""
    return next(filter(None, (names.snapshot_at(release.uri) for release in buildinfo.releases)), "")


def known(lines: Iterable[str]) -> Iterator[Package]:
    """The packages in lines NAME VERSION ARCHITECTURE SIZE SHA256; others are passed over."""
    for words in (line.split() for line in lines):
        if len(words) == 5 and words[3].isdecimal() and _HASH.fullmatch(words[4]):
            yield Package(words[0], words[1], words[2], int(words[3]), words[4])


def _packages(buildinfo: Buildinfo) -> Iterator[tuple[bool, str]]:
    seen: set[str] = set()
    for package in (*buildinfo.packages, *buildinfo.tools):
        yield not _is_name(package.name), f"the package {printable(package.name, 80)}, which is no name of one"
        yield package.name in seen, f"the package {package.name} twice"
        seen.add(package.name)
        what = f"{package.name} {printable(package.version, 80)} {printable(package.architecture, 80)}"
        yield not _is_version(package.version), f"{what}, which is no version"
        yield (
            package.architecture not in (buildinfo.id.architecture, "all"),
            f"{what}, and is for {buildinfo.id.architecture}",
        )
        yield not 0 < package.size <= _TOTAL, f"{what} of {printable(str(package.size), 80)} bytes"


def _releases(buildinfo: Buildinfo) -> Iterator[tuple[bool, str]]:
    suites = (buildinfo.id.suite, f"{buildinfo.id.suite}-updates", f"{buildinfo.id.suite}-security")
    for release in buildinfo.releases:
        what = f"the release file {printable(release.suite, 80)} of {printable(release.uri, 200)}"
        other = (release.uri, release.suite) in buildinfo.others
        yield release.suite not in suites and not other, f"{what}, and is of {buildinfo.id.suite}"
        yield not _is_place(_PLACE, release.uri), f"{what}, which is no plain address"
        yield not 0 < release.size <= 2**24, f"{what} of {printable(str(release.size), 80)} bytes"
        yield len(release.signers) > _RELEASES, f"{what} with {len(release.signers)} signers"
        for signer in release.signers[:_RELEASES]:
            yield not _FINGERPRINT.fullmatch(signer), f"{what} signed by {printable(signer, 80)}, which is no key"


def _sources(suite: str, those: tuple[Source, ...], *, expired: bool) -> Iterator[tuple[bool, str]]:
    """What is wrong with the sources that the image's own apt will ask."""
    usual = sources.debian((), suite, mirror="http://d.example", security_mirror="http://d.example")
    got = [" ".join(source.suites) for source in those]
    yield (
        got != [" ".join(source.suites) for source in usual],
        f"Image-Sources of the suites {printable('; '.join(got[:8]), 200)}, which are not Debian's for {suite}",
    )
    for source in those:
        what = f"Image-Sources with {printable(source.uri, 200)}"
        yield not _is_place(_MIRROR, source.uri), f"{what}, which is no plain address of a mirror"
        yield source.expired and not expired, f"{what} whose indexes are taken after they have expired"


def _is_name(name: str) -> bool:
    try:
        return bool(names.word(name, "package")) and len(name) <= 200
    except Error:
        return False


def _is_version(version: str) -> bool:
    """Whether it is one that an index can name."""
    return len(version) <= _LONGEST_VERSION and bool(index.VERSION.fullmatch(version))


def _is_place(pattern: re.Pattern[str], uri: str) -> bool:
    return len(uri) <= _LINE and bool(pattern.fullmatch(uri))


def _is_line(text: str) -> bool:
    return 0 < len(text) <= _LINE and text.isprintable()
