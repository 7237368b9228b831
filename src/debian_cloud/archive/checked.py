# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparison of all that an archive serves with what it signed: indexes, images and closures."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.archive import lifecycle, served, signed, state
from debian_cloud.archive.served import Fault
from debian_cloud.errors import Error
from debian_cloud.host import checksums, files, sign
from debian_cloud.image import inventory
from debian_cloud.text import deb822, openpgp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from debian_cloud.image.id import ImageId
    from debian_cloud.image.index import ImageRecord
    from debian_cloud.image.inventory import Entry

_SOON: Final = 3 * 86400
"""Seconds before an index expires from which a warning is given."""
_AHEAD: Final = 600
"""Seconds by which the date of an index may be ahead of the clock."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference: a word for its severity, a path below public/, and a sentence.

    For indexes the word is `problem`, `warning`, or `mended` if `spare` is a file that can replace it; for images it
    is `damaged`, or `unknown` for a directory without a record.
    """

    word: str
    path: str
    sentence: str
    spare: Path | None = None


def indexes(archive: Path, keyring: Path, *, fast: bool) -> Iterator[Difference]:
    """Differences in the served indexes and in closures, and indexes that expire or are dated in the future.

    `fast` compares packages of closures by size only.
    """
    public = archive / "public"
    for finding in (*signed.shown(archive, keyring), *_beside(archive, keyring, fast=fast)):
        word = "mended" if finding.spare else "problem"
        yield Difference(word, str(finding.path.relative_to(public)), finding.sentence, finding.spare)
    yield from _times(archive)


def _beside(archive: Path, keyring: Path, *, fast: bool) -> Iterator[Fault]:
    public = archive / "public"
    for folder in signed.folders(public, "dists/*"):
        record = signed.entry(archive, folder.relative_to(public))
        listed = served.release(record.read_bytes(), record).indexes if record.is_file() else {}
        yield from served.misnamed(
            folder,
            {folder / name.rpartition("/")[0] / "by-hash/SHA256" / sha256 for name, (sha256, _) in listed.items()},
        )
    for folder in signed.folders(public, "snap/*/dists/*"):
        place = folder.relative_to(public)
        text = signed.entry(archive, place)
        if text.is_file() and not openpgp.field(text.read_bytes(), "Valid-Until"):
            yield Fault(folder / "InRelease", "it has no Valid-Until, and passes for the suite itself; publish")
        else:
            yield from signed.differing(archive, place, keyring, byhash=False)
    seen: dict[tuple[int, int], str] = {}
    for folder in signed.folders(public, "closures/*/*/*/*"):
        yield from _closure(archive, folder, keyring, {} if fast else seen, fast=fast)


def _closure(
    archive: Path, folder: Path, keyring: Path, seen: dict[tuple[int, int], str], *, fast: bool
) -> Iterator[Fault]:
    """Faults of a closure: in its index, its packages, and the indexes that prove them.

    The signatures on the evidence are not verified here: `debian-cloud verify` does that.
    """
    for dist in signed.folders(folder, "dists/*"):
        text = signed.clear(dist / "InRelease", keyring)
        record = signed.entry(archive, dist.relative_to(archive / "public"))
        if not text or (record.is_file() and record.read_bytes() != text):
            yield Fault(dist / "InRelease", "it is not the text that the archive signed")
            continue
        for name, (sha256, size) in _listed(text).items():
            index = served.content(dist / name, sha256, size)
            if index is None:
                yield Fault(dist / name, "it is not the index that InRelease lists")
                continue
            for stanza in deb822.parse(index.decode()):
                file, wanted = folder / stanza["Filename"], stanza["SHA256"]
                if file.is_symlink() or not file.is_file() or str(file.stat().st_size) != stanza["Size"]:
                    yield Fault(file, f"it is missing, or has other than {stanza['Size']} bytes")
                elif not fast and _digest(file, seen) != wanted:
                    yield Fault(file, f"it is not the file with the SHA-256 {wanted}")
    for place in signed.folders(folder, "evidence/*"):
        yield from _evidence(place)


def _evidence(place: Path) -> Iterator[Fault]:
    file = place / "InRelease" if (place / "InRelease").exists() else place / "Release"
    try:
        listed = _listed(openpgp.inner(files.read(served.regular(file))))
    except (Error, ValueError, KeyError):
        listed = {}
    if not listed:
        yield Fault(file, "it is not a release file")
        return
    for index in sorted(place.glob("*_Packages.xz")):
        name = index.name.removesuffix(".xz").replace("_", "/")
        try:
            found = files.unpacked(index, min(listed.get(name, ("", 0))[1], served.LARGEST))
        except Error:
            found = b""
        if listed.get(name) != (hashlib.sha256(found).hexdigest(), len(found)):
            yield Fault(index, f"it is not the index that {file.name} lists")


def _listed(text: bytes) -> dict[str, tuple[str, int]]:
    """Name -> SHA-256 and size of each file that a release file lists."""
    fields = deb822.parse(text.decode("utf-8", "replace"))[0]
    rows = (line.split() for line in fields["SHA256"].splitlines() if line.strip())
    return {name: (sha256, int(size)) for sha256, size, name in rows}


def _digest(file: Path, seen: dict[tuple[int, int], str]) -> str:
    """The SHA-256 of a file; a file with several hard links is read once."""
    key = (file.stat().st_dev, file.stat().st_ino)
    if key not in seen:
        seen[key] = checksums.digest(file, ("sha256",)).hashes["sha256"]
    return seen[key]


def _times(archive: Path) -> Iterator[Difference]:
    """Indexes that have expired, expire soon, or are dated in the future."""
    now = time.time()
    for record in sorted((archive / "signed/dists").glob("*/Release")):
        known = served.release(record.read_bytes(), record)
        where, until = f"dists/{names.word(record.parent.name, 'suite')}/InRelease", known.fields["Valid-Until"]
        if known.until < now:
            yield Difference("problem", where, f"it expired on {until}; resign")
        elif known.until < now + _SOON:
            yield Difference("warning", where, f"expires on {until}: resign")
        if known.date > now + _AHEAD:
            why = "it is dated in the future: check this machine's clock, then publish --after-wrong-clock"
            yield Difference("problem", where, why)


def images(archive: Path, keyring: Path, *, fast: bool) -> tuple[Difference, ...]:
    """Differences in the images whose files are still kept; `fast` compares disks by size only."""
    return tuple(_images(archive, keyring, fast=fast))


def _images(archive: Path, keyring: Path, *, fast: bool) -> Iterator[Difference]:
    public = archive / "public"
    known: dict[ImageId, list[ImageRecord]] = {}
    for suite in state.suites(archive / "state"):
        for record in state.records(archive / "state", suite):
            known.setdefault(record.id, []).append(record)
    beside: dict[str, list[Entry]] = {}
    for suite in state.suites(archive / "state"):
        for entry in state.files(archive / "state", suite):
            beside.setdefault(entry.directory, []).append(entry)
    for image, records in known.items():
        # `expire` removes the files of a withdrawn or expired image at some time.
        if records[0].status not in lifecycle.GONE or (public / image.path()).exists():
            for path, why in _damaged(public, records, beside.get(image.path(), []), keyring, fast=fast):
                yield Difference("damaged", path, why)
    # An image has the same path below each of these trees.
    for tree in (names.IMAGES, names.CLOSURES, names.REBUILDS):
        there = {image.path(tree) for image in known}
        for folder in sorted(public.glob(f"{tree}/*/*/*/*/")):
            path = str(folder.relative_to(public))
            if not folder.is_symlink() and path not in there:
                yield Difference("unknown", path, "it has no record")


def _damaged(
    public: Path, records: list[ImageRecord], beside: list[Entry], keyring: Path, *, fast: bool
) -> Iterator[tuple[str, str]]:
    folder = public / records[0].directory
    disks = {record.name: record for record in records}
    try:
        sums = sign.verified(keyring, folder / "SHA512SUMS", folder / "SHA512SUMS.gpg").content.decode("ascii")
    except (Error, OSError):
        yield f"{records[0].directory}/SHA512SUMS", "it is not the file that the archive signed"
        return
    links = {record.id.stable(record.format): record for record in records}
    wanted = {name: sha512 for sha512, _, name in (line.partition("  ") for line in sums.splitlines())}
    there = {path.name for path in folder.iterdir() if not path.name.startswith("SHA")}
    for name in sorted(there | {*wanted} | {*disks}):
        path, at = folder / name, f"{records[0].directory}/{name}"
        record = disks.get(name)
        if name not in there:
            yield at, "it is missing"
        elif name not in wanted:
            yield at, "the archive never signed it"
        elif to := links.get(name):
            if not path.is_symlink() or str(path.readlink()) != to.name or to.sha512 != wanted[name]:
                yield at, f"it is not a link to {to.name}"
        elif path.is_symlink() or not path.is_file():
            yield at, "it is not a regular file"
        elif record and path.stat().st_size != record.size:
            yield at, f"it has {path.stat().st_size} bytes, but the index says {record.size}"
        elif not (fast and record) and checksums.digest(path, ("sha512",)).hashes["sha512"] != wanted[name]:
            yield at, "it is not the file that the archive signed"
        elif record and record.sha512 != wanted[name]:
            yield at, "its hash in the index differs from the one that the archive signed"
    listed = {records[0].id.file(a.suffix): a.sha256 for a in records[0].attestations}
    listed |= {records[0].id.file("buildinfo"): records[0].buildinfo_sha256}
    for name, sha256 in listed.items():
        path = folder / name
        if name in there & {*wanted} and checksums.digest(path, ("sha256",)).hashes["sha256"] != sha256:
            yield f"{records[0].directory}/{name}", "it is not the file that the index lists"
    for entry in beside:
        path = public / entry.path
        if path.name not in inventory.SUMS:
            continue
        if path.is_symlink() or not path.is_file():
            yield entry.path, "it is missing"
        elif checksums.digest(path, ("sha256",)).hashes["sha256"] != entry.sha256:
            yield entry.path, "it is not the file that the index of all files lists"
