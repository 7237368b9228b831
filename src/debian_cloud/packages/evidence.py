# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify by signatures, without network, each package of a closure, and what an archive says of an image."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files, sign
from debian_cloud.image import index, sources, staleness
from debian_cloud.packages import images, indextargets, releases
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.id import ImageId
    from debian_cloud.image.resolution import Package
    from debian_cloud.image.staleness import ImageStatus

_SHA256: Final = re.compile(rb"^SHA256: ([0-9a-f]{64})$", re.MULTILINE)
_NAME: Final = re.compile(rb"^Package: (\S+)$", re.MULTILINE)
_LARGEST: Final = 2**28
"""Largest uncompressed index, in bytes; that of Debian's main has a fifth of that."""
_MEMORY: Final = 2**28
"""Memory for decompression, in bytes; xz(1) needs a quarter of that for a file compressed with `-9`."""
_DAY: Final = 86400
_MOST: Final = 64
"""Most release files of an image, and most indexes of each; there are four, with a few indexes each."""
_DOMAIN: Final = ".debian.org"
"""Domain of Debian's hosts."""
_PATHS: Final = ("/debian", "/debian-security")
"""Paths of Debian and of its security updates on a mirror."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a .deb may be trusted: it is listed in a Packages index of a signed release file.

    `release` is the SHA-256 of the release file; `signers` are fingerprints.
    """

    suite: str
    origin: str
    release: str
    signers: tuple[str, ...]


_DEBIAN, _ARCHIVE, _OTHER = range(3)
"""The owner of a release file; a later owner does not vouch for a package that an earlier one has."""


@dataclass(frozen=True, slots=True)
class _ReleaseFile:
    proof: Proof
    rank: int
    suites: tuple[str, str]
    """Its Codename, and its Suite, such as stable."""
    date: int
    indexes: Mapping[str, tuple[str, int]]


def refuse_sources(buildinfo: Buildinfo, given: Iterable[str], *, expired: bool = False) -> None:
    """Raise Error if an image's apt has sources other than Debian's for its suite, or accepts expired indexes.

    Debian's are those at hosts below debian.org, those that this machine's apt takes for Debian's, and the URIs
    `given`. With `expired`, the image may accept indexes past their Valid-Until.
    """
    suite, wanted = buildinfo.id.suite, _of_debian(buildinfo.id.suite)
    found = [source.suites for source in buildinfo.sources]
    if found != wanted:
        raise Error(
            f"the image's apt uses {_listed(found)}, but an image of {suite} uses {_listed(wanted)}",
            "debian-cloud did not build the image of this .buildinfo",
        )
    known = {uri.rstrip("/") for uri in given if uri}
    for source in buildinfo.sources:
        uri = source.uri.rstrip("/")
        if uri not in known and not _is_debian(uri) and uri not in _of_machine():
            raise Error(
                f"the image's apt uses {source.uri}, which is not a known mirror of Debian",
                "give it with --mirror URL or --security-mirror URL, if you trust it",
            )
        if source.expired and not expired:
            raise Error(
                f"the image's apt accepts the indexes of {source.uri} after their Valid-Until",
                "an image built from a snapshot needs that: give --allow-expired to accept it",
            )


def _of_debian(suite: str) -> list[tuple[str, ...]]:
    """Return the suites of each of an image's Debian sources."""
    if suite in sources.WITHOUT_SECURITY:
        return [(suite,)]
    return [(suite, f"{suite}-updates"), (f"{suite}-security",)]


def _listed(suites: Iterable[tuple[str, ...]]) -> str:
    return ", ".join(" ".join(some) for some in suites)


def _is_debian(uri: str) -> bool:
    parts = urlsplit(uri)
    return (
        parts.scheme in ("http", "https")
        and parts.netloc.endswith(_DOMAIN)
        and not set("@:\\%") & {*parts.netloc}
        and parts.path.rstrip("/") in _PATHS
        and not {"?", "#"} & {*uri}
    )


def _of_machine() -> set[str]:
    """Return the URIs from which this machine's apt takes Debian."""
    known = indextargets.known()
    wanted = ("Packages", "Debian", "yes")
    return {
        target.uri.rstrip("/") for target in known if (target.created_by, target.origin, target.trusted) == wanted
    }


@dataclass(frozen=True, slots=True)
class Word:
    """What an archive says of an image, and where; `said` is None if it does not know the image.

    `problem` shows which index that may list the image could not be read.
    """

    where: str
    said: ImageStatus | None = None
    problem: str = ""


def of_machine(image: ImageId) -> Word | None:
    """Return the worst that an archive of this machine's apt says of an image; None if apt knows no archive."""
    where = "this machine's apt"
    try:
        found = images.statuses(lambda _: False)
    except Error as error:
        return None if error.status == USAGE else Word(where, problem=error.message)
    return Word(where, _worst(found.statuses, image), "; ".join(found.refused))


def of_archive(folder: Path, buildinfo: Buildinfo, keyring: Path, *, signers: int = 1) -> Word:
    """Return what an archive says of an image, in the signed and still valid index of a copy of the archive.

    Raise Error if the index does not have the image, or lists other files under its name.
    """
    suite = buildinfo.id.suite
    place = folder / "dists" / suite
    release = place / "InRelease"
    fields = releases.fields(sign.verified(keyring, release, signers=signers))
    if suite not in (fields.get("Codename"), fields.get("Suite")):
        raise Error(f"{release} belongs to the suite {fields.get('Codename', '')!r}, not to {suite}", "get it again")
    if "Snapshot" in fields:
        raise Error(f"{release} belongs to the snapshot {fields['Snapshot']!r}, an old state", "get it again")
    if "Valid-Until" not in fields or releases.seconds(fields["Valid-Until"], release) < time.time():
        raise Error(
            f"{release} has expired: {fields.get('Valid-Until', 'it has no Valid-Until')!r}", "get a newer copy of it"
        )
    if releases.seconds(fields.get("Date", ""), release) > time.time() + _DAY:
        raise Error(f"{release} has a date in the future", "is this machine's clock right?")
    listed = releases.rows(fields)
    texts = []
    for name in ("main/images/Images", "main/images/Images-Status"):
        if name not in listed or listed[name][1] > _LARGEST:
            raise Error(f"{release} lists no {name}", "is it a copy of an archive of images?")
        texts.append(_text_of(place / name, listed[name]))
    for record in index.parse(texts[0]):
        if record.stem == buildinfo.stem and buildinfo.digests.get(record.name) != (record.sha256, record.size):
            raise Error(
                f"the archive lists another {record.name} than the .buildinfo describes",
                "it is another image with the same name: get both from the archive",
            )
    word = Word(str(folder), _worst(staleness.parse(texts[1]), buildinfo.id))
    if not word.said:
        raise Error(
            f"the archive in {folder} never published {buildinfo.stem}",
            "get a newer copy of the archive, or the copy of another archive",
        )
    return word


def _text_of(file: Path, listed: tuple[str, int]) -> str:
    """Return the text of an index, plain or compressed, that a release file lists."""
    if not file.exists():
        file = file.with_name(f"{file.name}.xz")
        found = files.unpacked(file, listed[1])
    else:
        found = files.read(file, listed[1])
    if (hashlib.sha256(found).hexdigest(), len(found)) != listed:
        raise Error(f"{file} is not the index that its signed release file lists", "it was swapped or changed")
    return found.decode("utf-8", "replace")


def _worst(known: Iterable[ImageStatus], image: ImageId) -> ImageStatus | None:
    """Return the worst status of an image, or None."""
    same = [said for said in known if said.id == image]
    order = ("withdrawn", "expired", "deprecated")
    same.sort(key=lambda said: order.index(said.status) if said.status in order else len(order))
    return same[0] if same else None


def proofs(
    folder: Path,
    buildinfo: Buildinfo,
    debian: Path,
    archive: Path,
    *,
    signers: int = 1,
    others: Sequence[sources.Source] = (),
) -> dict[Package, Proof]:
    """Return the proof of each package of a .buildinfo, tools included; Error names the first that has none.

    `folder` is a closure's evidence, `debian` and `archive` are the keyrings of Debian and of the archive of
    configurations. A release file must be of the image's suite or of its updates, and must not have expired before
    the image's day; all of Debian's must be present. The archive vouches for no package that Debian has, and for
    others only if `signers` keys of its keyring have signed. `others` are the sources that the user added and the
    verifier trusts: each vouches for what neither Debian nor the archive has, by exactly the release file that the
    .buildinfo names.
    """
    trusted = {(source.uri, suite) for source in others for suite in source.suites}
    for uri, suite in buildinfo.others:
        if (uri, suite) not in trusted:
            raise Error(
                f"the image has packages from {uri} {suite}, whose keys are unknown",
                "give --source FILE.sources as for the build, if you trust that source",
                USAGE,
            )
    everything = (*buildinfo.packages, *buildinfo.tools)
    wanted = {package.sha256.encode(): package for package in everything}
    listed: dict[Package, tuple[Proof, int]] = {}
    had: tuple[set[bytes], ...] = (set(), set(), set())
    dates = []
    missing = set(itertools.chain.from_iterable(_of_debian(buildinfo.id.suite)))
    for place in _few(folder, "*"):
        release = _release(place, buildinfo, debian, archive, signers, others)
        dates.append(release.date)
        if release.rank == _DEBIAN:
            missing.difference_update(release.suites)
        for file in _few(place, "*_Packages.xz"):
            content = _index(file, release)
            had[release.rank].update(_NAME.findall(content))
            for package in _found(content, wanted):
                if package not in listed or release.rank < listed[package][1]:
                    listed[package] = (release.proof, release.rank)
    if not dates or buildinfo.epoch > max(dates):
        raise Error(
            "the evidence is older than the image: no release file has the image's date",
            "give the closure of the same image",
        )
    if missing:
        # Without them, it is unknown which packages have updates, and which are Debian's.
        raise Error(
            f"the evidence has no release file of Debian's {min(missing)}", "the closure is incomplete: get it again"
        )
    for package in everything:
        if package not in listed:
            raise Error(
                f"no signed index lists {package.name} {package.version} with the SHA-256 {package.sha256}",
                "the .buildinfo or the closure was tampered with, or belongs to another image",
            )
        name, rank = package.name.encode(), listed[package][1]
        if rank == _OTHER and (package.name.startswith(names.OURS) or name in had[_DEBIAN] | had[_ARCHIVE]):
            raise Error(
                f"{listed[package][0].origin or 'another source'} provides {package.name} {package.version}, which is"
                " not its own package",
                "an added source may not replace packages of Debian or of the archive",
            )
        if rank == _ARCHIVE and name in had[_DEBIAN]:
            raise Error(
                f"the archive of configurations provides {package.name} {package.version}, which is Debian's package",
                "an archive of configurations may not replace Debian's packages",
            )
    return {package: listed[package][0] for package in everything}


def _few(folder: Path, pattern: str) -> list[Path]:
    """Return the matching paths in a directory, sorted; raise Error if there are too many."""
    found = sorted(itertools.islice(folder.glob(pattern), _MOST + 1))
    if len(found) > _MOST:
        raise Error(
            f"{folder} has more than {_MOST} files or directories", "the closure was tampered with: get it again"
        )
    return found


def _of_the_archive(keyring: Path, file: Path, signature: Path | None, signers: int) -> sign.Signed:
    try:
        return sign.verified(keyring, file, signature, signers=signers)
    except Error as error:
        # If several signers are required, this error says how many are missing.
        if error.status == USAGE or signers > 1:
            raise
        raise Error(
            f"{file} has no valid signature by a key of Debian or of the archive",
            "it was changed, or another key signed it: get it again",
        ) from None


def _of_another(
    file: Path, signature: Path | None, buildinfo: Buildinfo, digest: str, others: Sequence[sources.Source]
) -> tuple[sign.Signed, str] | None:
    """Verify a release file by the keys of the added source that it is from; return it and its suite, or None."""
    for release in buildinfo.releases:
        named = (release.uri, release.suite)
        for source in others:
            if (
                release.sha256 == digest
                and named in buildinfo.others
                and named in {(source.uri, s) for s in source.suites}
            ):
                return sign.verified(Path(source.signed_by), file, signature), release.suite
    return None


def _release(
    place: Path, buildinfo: Buildinfo, debian: Path, archive: Path, signers: int, others: Sequence[sources.Source]
) -> _ReleaseFile:
    file, signature = place / "InRelease", None
    if not file.exists():
        file, signature = place / "Release", place / "Release.gpg"
    if not file.exists() or (signature and not signature.exists()):
        raise Error(f"{place} has no signed release file", "the closure is incomplete")
    digest = hashlib.sha256(files.read(file)).hexdigest()
    rank = _DEBIAN
    suites = {buildinfo.id.suite, f"{buildinfo.id.suite}-updates", f"{buildinfo.id.suite}-security"}
    if other := _of_another(file, signature, buildinfo, digest, others):
        rank = _OTHER
        signed, suites = other[0], {other[1]}
    else:
        try:
            signed = sign.verified(debian, file, signature)
        except Error as error:
            if error.status == USAGE:
                raise
            rank = _ARCHIVE
            signed = _of_the_archive(archive, file, signature, signers)
    fields = releases.fields(signed)
    named = fields.get("Codename", "")
    own = (named, fields.get("Suite", ""))
    if not suites & {*own}:
        raise Error(
            f"{file} belongs to the suite {printable(named)}, but the image to {buildinfo.id.suite}",
            "give the evidence of the image's suite",
        )
    asked = {names.snapshot_at(release.uri) for release in buildinfo.releases}
    if rank == _ARCHIVE and fields.get("Snapshot", "") not in asked:
        raise Error(
            f"{file} belongs to the archive's snapshot {printable(fields.get('Snapshot', ''))}, from which the image"
            " was not made",
            "an older index hides later updates",
        )
    if not (rank != _ARCHIVE or "Snapshot" in fields or "Valid-Until" in fields):
        # For example a closure's own release file, which also lists Debian's packages.
        raise Error(f"{file} is not the archive's own release file: it has no Valid-Until", "get it again")
    date = releases.seconds(fields.get("Date", ""), file)
    if date > time.time() + _DAY:
        raise Error(f"{file} has a date in the future", "is this machine's clock right?")
    if "Valid-Until" in fields and releases.seconds(fields["Valid-Until"], file) < buildinfo.epoch:
        raise Error(
            f"{file} had expired when the image was made: {fields['Valid-Until']}",
            "an older index hides later updates",
        )
    proof = Proof(named, fields.get("Origin", ""), digest, signed.signers)
    return _ReleaseFile(proof, rank, own, date, releases.rows(fields))


def _index(file: Path, release: _ReleaseFile) -> bytes:
    """Return the content of an index; raise Error if it is not the one that the release file lists."""
    name = file.name.removesuffix(".xz").replace("_", "/")
    sha256, size = release.indexes.get(name, ("", -1))
    content = files.unpacked(file, size) if 0 <= size <= _LARGEST else b""
    if (hashlib.sha256(content).hexdigest(), len(content)) != (sha256, size):
        raise Error(f"{file} is not the index that its signed release file lists", "it was swapped or changed")
    return content


def _found(content: bytes, wanted: Mapping[bytes, Package]) -> Iterator[Package]:
    """Yield the wanted packages that an index lists with the same name, version, architecture and size."""
    for match in _SHA256.finditer(content):
        package = wanted.get(match[1])
        if package is None:
            continue
        begin, end = content.rfind(b"\n\n", 0, match.start()) + 2, content.find(b"\n\n", match.end())
        if begin == 1:
            begin = 0
        for stanza in deb822.parse(content[begin : end if end >= 0 else None].decode("utf-8", "replace")):
            named = tuple(stanza.get(field) for field in ("Package", "Version", "Architecture", "Size"))
            if named == (package.name, package.version, package.architecture, str(package.size)):
                yield package
