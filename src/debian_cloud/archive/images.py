# SPDX-License-Identifier: GPL-3.0-or-later
"""Admission of an uploaded image: it is checked against its record, attested, and entered into an archive's state.

The bills of materials and the statement are made from the .buildinfo only: an upload that has its own is refused, and
so is one whose .buildinfo is not a lock. The builder in the statement is the key that signed the upload; the
archive's key signs the statement in a file beside it, like the sums. The record, with the hashes of all that, is
entered once and never read from DIR/public again: publishing hashes nothing that did not change, and `check` compares
what is served with what was entered and signed.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud import formats, projections
from debian_cloud.archive import admission, carried, state
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, files, sign
from debian_cloud.image import config, index, inventory
from debian_cloud.packages import described
from debian_cloud.projections import provenance
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable
from debian_cloud.view import View

if TYPE_CHECKING:
    from pathlib import Path

    from debian_cloud.host.checksums import Digest
    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.resolution import Package

_SLACK: Final = 86400
"""Seconds by which a builder's clock may be ahead."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """The inputs of an archive that keeps closures: its public directory, and two files.

    `known` lists the suite's packages (name, version, architecture, size and SHA-256, one a line), `keys` the
    fingerprints of the archive's keys.
    """

    public: Path
    known: Path
    keys: Path


@dataclass(frozen=True, slots=True)
class Terms:
    """What an archive accepts for a suite: the keyring of its uploaders, and the exceptions that the suite allows."""

    uploaders: Path
    unofficial: bool = False
    allow_expired: bool = False
    keeping: Keeping | None = None


def admit(folder: Path, suite: str, terms: Terms) -> str:
    """Check the files of one upload, write attestations and sums beside them, and return their published path.

    Error if the archive does not accept the upload.
    """
    if not folder.is_dir():
        raise Error(f"{folder} is not a directory", "give the directory that has the files of one upload", USAGE)
    present = {path.name for path in folder.iterdir()}
    found = sorted(name for name in present if name.endswith(".image"))
    if len(found) != 1:
        raise Error(f"the upload has {len(found)} .image records instead of one")
    _refuse_special(folder, found[0], admission.RECORD)
    try:
        records = index.parse((folder / found[0]).read_text("utf-8"), strict=True)
    except UnicodeDecodeError:
        raise Error(f"{found[0]} is not UTF-8 text") from None
    if not records:
        raise Error(f"{found[0]} has no record")
    if len({record.id for record in records}) != 1 or len({r.name for r in records}) != len(records):
        raise Error(f"{found[0]} has records of several images, or one record twice", "upload each image by itself")
    first = records[0]
    if first.id.suite != suite:
        raise Error(f"the image is for {first.id.suite}, but the upload for {suite}", "upload it to its own suite")

    if first.id.serial > time.strftime("%Y%m%d.9999", time.gmtime(time.time() + _SLACK)):
        raise Error(f"the serial {first.id.serial} is in the future", "build it again with a serial of today")
    expected = {first.id.file(extension) for extension in ("image", "buildinfo", "changes")}
    expected |= {*(record.name for record in records)}
    for name in sorted(expected - present):
        raise Error(f"the upload has no file {name}, which its record names")
    for name in sorted(present - expected):
        raise Error(f"the upload has a file {name} that its record does not name")
    for name in sorted(expected):
        _refuse_special(folder, name, admission.BUILDINFO if name.endswith(".buildinfo") else None)
    buildinfo = described.of(folder / first.id.file("buildinfo"))
    if {(r.id, r.config_version) for r in records} != {(buildinfo.id, buildinfo.config_version)}:
        raise Error(
            f"the record describes {first.stem}, but its .buildinfo {buildinfo.stem}, or another version of it",
            "upload them as the builder wrote them",
        )
    admission.check(buildinfo, time.time(), expired=terms.allow_expired or terms.unofficial)
    _refuse_unofficial(buildinfo, records, suite, too=terms.unofficial)
    if terms.keeping:
        keys = {*terms.keeping.keys.read_text("utf-8").split()}
        admission.check_kept(buildinfo, _known(terms.keeping, buildinfo), keys)
    builders = sign.verified(terms.uploaders, folder / first.id.file("changes")).signers
    if len(builders) != 1:
        raise Error(f"the upload is signed by {len(builders)} keys", "sign it with the key of one builder")

    digests = {name: checksums.digest(folder / name) for name in expected}
    for record in records:
        got = digests[record.name]
        if (got.size, got.hashes["sha256"], got.hashes["sha512"]) != (record.size, record.sha256, record.sha512):
            raise Error(f"{record.name} is not the file that its record describes", "build and sign it again")
        _refuse_format(folder, record)
    for name, text in _attestations(buildinfo, {record.name for record in records}, digests, *builders).items():
        (folder / name).write_text(text, "utf-8")
        digests[name] = checksums.digest(folder / name)
    # Templates for other tools name an image by current/ and a name that stays; its checksum must stand there.
    for record in records:
        link = folder / record.id.stable(record.format)
        link.symlink_to(record.name)
        digests[link.name] = digests[record.name]
    for name, text in checksums.sums(digests).items():
        (folder / name).write_text(text, "utf-8")
    return first.directory


def enter(folder: Path, following: Path, suite: str) -> None:
    """Enter an admitted and signed image into the next state; Error if the archive has or ever had it."""
    known = state.records(following, suite)
    (path,) = folder.glob("*.image")
    added = index.parse(files.text(path), strict=True)
    image = added[0].id
    if any(record.id == image for record in known):
        raise Error(f"the archive has or had {image.path()}, and no path is used twice", "build it with a new serial")
    disks = {record.name for record in added}
    found = [path for path in sorted(folder.iterdir()) if path.name not in disks]
    digests = {path.name: checksums.digest(path) for path in found if not path.is_symlink()}
    others = {image.file("image"), image.file("changes"), *inventory.SUMS}
    attested = {name: digest for name, digest in digests.items() if name not in others}
    added = tuple(index.with_files(record, attested) for record in added)
    known = (*known, *added)
    state.enter(following, suite, known)
    if state.has_files(following):
        state.enter_files(following, suite, known, carried.beside(image, added, found, digests))


def _refuse_special(folder: Path, name: str, most: int | None) -> None:
    """Raise Error unless a file is regular and has at most `most` bytes."""
    if (folder / name).is_symlink() or not (folder / name).is_file():
        raise Error(f"{name} is not a regular file", "upload the file itself")
    if most and (folder / name).stat().st_size > most:
        raise Error(f"{name} has more than {most} bytes", "upload it as `debian-cloud build` writes it")


def _refuse_format(folder: Path, record: index.ImageRecord) -> None:
    """Raise Error unless a file has the format, and its disk the size, that its record gives."""
    form = formats.find(record.format)
    if not form.PUBLISHED:
        raise Error(f"{record.name} is {record.format}, which no archive accepts", "upload it in another format")
    most = config.size(config.FIELDS["Image-Size"].sizes[1], record.name)
    if record.virtual_size > most:
        raise Error(f"{record.name} is a disk of {record.virtual_size} bytes by its record", f"the limit is {most}")
    with (folder / record.name).open("rb") as file:
        descriptor = file.fileno()
        view = View(lambda offset, size: os.pread(descriptor, size, offset), 0, record.size, ())
        form.check(record.name, view, record.virtual_size)


def _known(archive: Keeping, buildinfo: Buildinfo) -> frozenset[Package]:
    """The packages of the archive, or of the snapshot that an image was made of; Error if it does not exist."""
    identifier = admission.snapshot_of(buildinfo)
    if not identifier:
        return frozenset(admission.known(archive.known.read_text("utf-8").splitlines()))
    dist = archive.public / "snap" / identifier / "dists" / buildinfo.id.suite
    if not dist.is_dir():
        raise Error(
            f"the image was made from the snapshot {identifier} of {buildinfo.id.suite}, which this archive lacks",
            "debian-cloud-archive snapshot DIR --list shows its snapshots",
        )
    stanzas = (
        stanza
        for path in sorted(dist.glob(f"*/binary-{buildinfo.id.architecture}/Packages"))
        for stanza in deb822.canonical(path.read_text("utf-8"))
    )
    wanted = ("Package", "Version", "Architecture", "Size", "SHA256")
    return frozenset(admission.known(" ".join(stanza.get(name, "") for name in wanted) for stanza in stanzas))


def _attestations(buildinfo: Buildinfo, disks: set[str], digests: dict[str, Digest], builder: str) -> dict[str, str]:
    """File name -> text of each attestation; Error if the files are not those that the .buildinfo names."""
    itself = buildinfo.id.file("buildinfo")
    subjects, byproducts = ({name: digests[name].hashes for name in some} for some in (disks, (itself,)))
    built = provenance.built(buildinfo, subjects, builder, byproducts)
    bills = {
        found.SUFFIX: found.document(buildinfo) for found in map(projections.find, projections.names()) if found.SBOM
    }
    documents = {**bills, provenance.SUFFIX: built}
    return {buildinfo.id.file(suffix): projections.text(document) for suffix, document in documents.items()}


def _refuse_unofficial(
    buildinfo: Buildinfo, records: tuple[index.ImageRecord, ...], suite: str, *, too: bool
) -> None:
    """Raise Error if the suite refuses an unofficial image, or if the record disagrees with the .buildinfo."""
    others = tuple(f"{uri} {of_source}" for uri, of_source in buildinfo.others)
    if {(record.official, record.others) for record in records} != {(not buildinfo.changes, others)}:
        raise Error(
            f"the record and {buildinfo.stem}.buildinfo disagree on whether the image is official, or on its sources",
            "upload them as the builder wrote them",
        )
    if buildinfo.changes and not too:
        changes = printable(", ".join(buildinfo.changes))
        raise Error(
            f"the image is not official ({changes}), but {suite} accepts only official images",
            "put the changes into a configuration (debian-cloud new), or upload to a suite that accepts such images",
        )
