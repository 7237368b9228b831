# SPDX-License-Identifier: GPL-3.0-or-later
"""From each package of a closure to the signature that vouches for it, without any network."""

from __future__ import annotations

import calendar
import hashlib
import re
import time
from dataclasses import dataclass
from email.utils import parsedate
from typing import TYPE_CHECKING, Final

from . import deb822, files, names, sign
from .errors import USAGE, Error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .lock import Lock
    from .resolution import Package

_SHA256: Final = re.compile(rb"^SHA256: ([0-9a-f]{64})$", re.MULTILINE)
_NAME: Final = re.compile(rb"^Package: (\S+)$", re.MULTILINE)
_LARGEST: Final = 2**28
"""Bytes of an index, uncompressed; Debian's main has a fifth of that."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a .deb may be trusted: it is listed in Packages of a release file that keys signed.

    `release` is the SHA-256 of what was signed; `signers` are fingerprints.
    """

    suite: str
    origin: str
    release: str
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Release:
    proof: Proof
    debian: bool
    date: int
    indexes: Mapping[str, tuple[str, int]]


def proofs(folder: Path, kept: Lock, debian: Path, archive: Path, *, signers: int = 1) -> dict[Package, Proof]:
    """The proof of each package of a lock, and of each that it was made with; Error names the first that has none.

    `folder` is a closure's evidence, `debian` and `archive` are the keyrings by
    which Debian and the archive of configurations are trusted. A release file
    must be of the image's suite or of its updates, and must not have expired
    before the image's day. The archive vouches for no package that Debian has,
    and for others only when `signers` keys of its keyring have signed.
    """
    everything = (*kept.packages, *kept.tools)
    wanted = {package.sha256.encode(): package for package in everything}
    listed: dict[Package, tuple[Proof, bool]] = {}
    debian_s: set[bytes] = set()
    dates = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        release = _release(place, kept, debian, archive, signers)
        dates.append(release.date)
        for index in sorted(place.glob("*_Packages.xz")):
            content = _index(index, release)
            if release.debian:
                debian_s.update(_NAME.findall(content))
            for package in _found(content, wanted):
                if package not in listed or release.debian:
                    listed[package] = (release.proof, release.debian)
    if not dates or kept.epoch > max(dates):
        raise Error(
            "the evidence is older than the image: no release file is of its day",
            "it must be the closure of the same image",
        )
    for package in everything:
        if package not in listed:
            raise Error(
                f"no signed index lists {package.name} {package.version} with the SHA-256 {package.sha256}",
                "the .buildinfo or the closure was tampered with, or is another image's",
            )
        if not listed[package][1] and package.name.encode() in debian_s:
            raise Error(
                f"the archive of configurations gives {package.name} {package.version}, which is Debian's package",
                "it adds packages and replaces none",
            )
    return {package: listed[package][0] for package in everything}


def _of_the_archive(keyring: Path, file: Path, signature: Path | None, signers: int) -> sign.Signed:
    try:
        return sign.verified(keyring, file, signature, signers=signers)
    except Error as error:
        # Of several demanded, it matters who is missing.
        if error.status == USAGE or signers > 1:
            raise
        raise Error(
            f"{file} has no good signature by a key of Debian or of the archive",
            "it was changed, or another signed it",
        ) from None


def _release(place: Path, kept: Lock, debian: Path, archive: Path, signers: int) -> _Release:
    file, signature = place / "InRelease", None
    if not file.exists():
        file, signature = place / "Release", place / "Release.gpg"
    if not file.exists() or (signature and not signature.exists()):
        raise Error(f"{place} has no signed release file", "the closure is not whole")
    # Before gpgv opens them: of a FIFO it would wait for ever.
    content = files.read(file)
    if signature:
        files.read(signature)
    is_debian = True
    try:
        signed = sign.verified(debian, file, signature)
    except Error as error:
        if error.status == USAGE:
            raise
        is_debian = False
        signed = _of_the_archive(archive, file, signature, signers)
    (fields,) = deb822.parse(signed.content.decode("utf-8", "replace"))[:1] or ({},)
    suites = {kept.suite, f"{kept.suite}-updates", f"{kept.suite}-security"}
    named = fields.get("Codename", "")
    if not suites & {named, fields.get("Suite", "")}:
        raise Error(f"{file} is of the suite {named}, and the image of {kept.suite}", "it is another's evidence")
    asked = {names.snapshot_at(release.uri) for release in kept.releases}
    if not is_debian and fields.get("Snapshot", "") not in asked:
        raise Error(
            f"{file} is of the archive's snapshot {fields.get('Snapshot', '')}, of which the image was not made",
            "an older index hides the updates since",
        )
    date = _seconds(fields.get("Date", ""), file)
    if date > time.time() + 86400:
        raise Error(f"{file} is of a day that has not come", "is this machine's clock right?")
    if "Valid-Until" in fields and _seconds(fields["Valid-Until"], file) < kept.epoch:
        raise Error(
            f"{file} had expired when the image was made: {fields['Valid-Until']}",
            "an older index hides the updates since",
        )
    rows = (line.split() for line in fields.get("SHA256", "").splitlines() if line.strip())
    indexes = {name: (sha256, int(size)) for sha256, size, name in rows}
    digest = hashlib.sha256(content).hexdigest()
    return _Release(Proof(named, fields.get("Origin", ""), digest, signed.signers), is_debian, date, indexes)


def _seconds(date: str, file: Path) -> int:
    parsed = parsedate(date)
    if parsed is None:
        raise Error(f"{file} has no date that can be read: {date!r}", "its archive must be mended")
    return calendar.timegm(parsed)


def _index(file: Path, release: _Release) -> bytes:
    """The content of an index that the release file lists; Error when it is another."""
    name = file.name.removesuffix(".xz").replace("_", "/")
    sha256, size = release.indexes.get(name, ("", -1))
    content = files.unpacked(file, size) if 0 <= size <= _LARGEST else b""
    if (hashlib.sha256(content).hexdigest(), len(content)) != (sha256, size):
        raise Error(f"{file} is not the index that its signed release file lists", "it was swapped or changed")
    return content


def _found(content: bytes, wanted: Mapping[bytes, Package]) -> Iterator[Package]:
    """The wanted packages that an index lists under their own names, versions and architectures."""
    for match in _SHA256.finditer(content):
        package = wanted.get(match[1])
        if package is None:
            continue
        begin, end = content.rfind(b"\n\n", 0, match.start()) + 2, content.find(b"\n\n", match.end())
        if begin == 1:
            begin = 0
        (stanza,) = deb822.parse(content[begin : end if end >= 0 else None].decode())
        named = (stanza["Package"], stanza["Version"], stanza["Architecture"], int(stanza["Size"]))
        if named == (package.name, package.version, package.architecture, package.size):
            yield package
