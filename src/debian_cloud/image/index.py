# SPDX-License-Identifier: GPL-3.0-or-later
"""The signed image index: records <-> the deb822 file `Images`.

Archive, mirror and client read it here, so that they have the same rules. `deb822.stanzas` reads an index with bounds
for a line, a stanza and the file; this module and `staleness` refuse contradictions and unknown values. The archive
parses what it is about to sign, and records when they are added; `tests/malformed.py` is the corpus. An unknown field
is ignored, so that older clients can read newer archives. An unknown status is refused, because it is unknown whether
such an image may be started: a newer archive uses new fields for new information.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date
from typing import IO, TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import Error, did_you_mean
from debian_cloud.image import machine
from debian_cloud.image.id import ImageId
from debian_cloud.text import deb822

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from debian_cloud.host.checksums import Digest
    from debian_cloud.image.machine import Machine

_FIELDS: Final = (
    "Image", "Version", "Suite", "Architecture", "Format", "Config-Version", "Filename", "Size",
    "Virtual-Size", "SHA256", "SHA512", "Buildinfo",
)  # fmt: skip
_OFFICIAL: Final = "Official"
"""`no` if the user changed something; an official image has no such field, nor do records older than the field."""
_OTHERS: Final = "Other-Sources"
"""Address and suite of each package source that the user added; only for an unofficial image."""
_OTHER: Final = re.compile(r"(https?://|file:/)[A-Za-z0-9._~:/%+,=-]+ [a-z0-9][a-z0-9+.-]*")
_OF_A_TRY: Final = (_OFFICIAL, _OTHERS)
_UPLOADED: Final = (*_FIELDS, *_OF_A_TRY, *machine.FIELDS)
"""All fields that a builder writes."""
_ATTESTATIONS: Final = "Attestations"
_REBUILDS: Final = "Rebuilds"
_LISTS: Final = (_ATTESTATIONS, _REBUILDS)
"""The only multi-line fields: SHA-256, size and path in each line."""
_OF_THE_ARCHIVE: Final = (
    "Buildinfo-SHA256", "Buildinfo-SHA512", *_LISTS, "Partial", "Status", "Status-Date", "Status-Reason", "CVEs",
)  # fmt: skip
"""Fields that an archive adds: debsign(1) changes the .buildinfo after the record was written."""
STATUS: Final = ("current", "superseded", "deprecated", "withdrawn", "expired")
"""The first two follow from the other records; the last two are in no index."""
GONE: Final = ("withdrawn", "expired")
"""Statuses of images that no index lists any more."""
REASON: Final = 500
"""Maximum characters of a reason: it is shown on terminals, and is in every later index."""
LARGEST_FILE: Final = 2**40
"""Maximum bytes of a published file; a usual one has a few hundred megabytes."""
LARGEST_DISK: Final = 2**46
"""Maximum bytes of a disk, as for Image-Size; a root file system without a disk has 0."""
_LONGEST_NAME: Final = 255
_WHICH: Final = "the archive must be repaired: it is unknown which one is right"
_NEWER: Final = "install a newer debian-cloud: a newer archive may have new statuses"
_HEX = {"SHA256": re.compile("[0-9a-f]{64}"), "SHA512": re.compile("[0-9a-f]{128}")}
_ATTESTATION = re.compile(r" (?P<sha256>[0-9a-f]{64}) (?P<size>[0-9]{1,15}) (?P<path>\S+)")
VERSION: Final = re.compile(r"(?:[0-9]{1,9}:)?[0-9A-Za-z][0-9A-Za-z.+~-]{0,244}")
"""A version (Debian Policy 5.6.12) without a colon after that of the epoch."""
# https://www.cve.org/ResourcesSupport/AllResources/CNARules, 5.1: the number has four digits or more.
CVE: Final = re.compile(r"CVE-[0-9]{4}-[0-9]{4,}")


@dataclass(frozen=True, slots=True)
class Attestation:
    """A file about an image, beside it; `suffix` is its name after the stem, `size` is in bytes."""

    suffix: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One published file of one image; sizes in bytes, hashes in lower-case hexadecimal.

    `rebuilds` are statements of others that they rebuilt the same bytes, each named by its signer's fingerprint.
    `partial` means published although other images of its serial are missing. `status_date` is YYYY-MM-DD. `others`
    are address and suite of each package source that the user added. `machine` is what a machine of it must have.
    """

    id: ImageId
    format: str
    config_version: str
    size: int
    virtual_size: int
    sha256: str
    sha512: str
    official: bool = True
    buildinfo_sha256: str = ""
    buildinfo_sha512: str = ""
    attestations: tuple[Attestation, ...] = ()
    rebuilds: tuple[Attestation, ...] = ()
    partial: bool = False
    status: str = ""
    status_date: str = ""
    status_reason: str = ""
    cves: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    machine: Machine = machine.UNKNOWN

    @property
    def directory(self) -> str:
        """The directory of the image, relative to the archive's root."""
        return self.id.path()

    @property
    def stem(self) -> str:
        """The common part of the image's file names."""
        return self.id.stem

    @property
    def name(self) -> str:
        """The file's name."""
        return self.id.file(self.format)

    @property
    def filename(self) -> str:
        """The file's path, relative to the archive's root."""
        return f"{self.directory}/{self.name}"

    @property
    def stable(self) -> str:
        """The path of the link to the file that has no serial in its name, if the image's directory has one."""
        return f"{self.directory}/{self.id.stable(self.format)}"

    @property
    def rebuilds_directory(self) -> str:
        """The directory of others' statements about the image, whose own directory never changes."""
        return self.id.path(names.REBUILDS)

    @property
    def buildinfo(self) -> str:
        """The path of the image's .buildinfo, relative to the archive's root."""
        return f"{self.directory}/{self.id.file('buildinfo')}"


def parse(text: str, *, strict: bool = False) -> tuple[ImageRecord, ...]:
    """The records of an `Images` file or of one `.image` file.

    Paths are not trusted: they must be those that the other fields give, and no two records may have the same path.
    With `strict`, as for an upload, a field that no builder writes is an error; otherwise it is ignored, so that an
    older client can read a newer archive. An unknown status is always an error, because it is unknown whether the
    image may be started; a newer archive uses new fields for new information.
    """
    return tuple(_records(deb822.canonical(text), strict=strict))


def read(file: IO[bytes]) -> Iterator[ImageRecord]:
    """The same for an open `Images`, one record after another as it is read; only names are kept of those before."""
    return _records(deb822.stanzas(file), strict=False)


def _records(stanzas: Iterable[deb822.Stanza], *, strict: bool) -> Iterator[ImageRecord]:
    files: set[str] = set()
    current: dict[str, str] = {}
    described: dict[str, tuple[str | int, ...]] = {}
    machines: dict[ImageId, Machine] = {}
    for stanza in stanzas:
        try:
            record = _record(stanza, strict=strict)
        except Error as error:
            # A bad word in a record is bad data, not wrong use.
            raise Error(error.message, error.hint) from None
        if record.filename in files:
            raise Error(f"two image records describe {record.filename}", _WHICH)
        files.add(record.filename)
        series, serial = record.id.series, record.id.serial
        if record.status == STATUS[0] and current.setdefault(series, serial) != serial:
            raise Error(
                f"two serials of {series} are current: {current[series]} and {serial}",
                "only one serial can be the newest",
            )
        for path, said in _files(record):
            if described.setdefault(path, said) != said:
                raise Error(f"two image records disagree on {path}", _WHICH)
        if machines.setdefault(record.id, record.machine) != record.machine:
            raise Error(f"two image records disagree on the machine of {record.stem}", _WHICH)
        yield record


def _files(record: ImageRecord) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """The path of each file that a record names, with its size, if known, and hashes."""
    yield record.filename, (record.size, record.sha256)
    yield record.buildinfo, (record.buildinfo_sha256, record.buildinfo_sha512)
    for found in record.attestations:
        yield _beside(record, found.suffix), (found.size, found.sha256)
    for found in record.rebuilds:
        yield f"{record.rebuilds_directory}/{found.suffix}", (found.size, found.sha256)


def render(records: Iterable[ImageRecord]) -> str:
    """The text of records, sorted, each with its status if it has one."""
    return "\n".join(deb822.render(_stanza(record)) for record in sorted(records, key=_order))


def with_files(record: ImageRecord, digests: Mapping[str, Digest]) -> ImageRecord:
    """The same record with the hashes of its .buildinfo, and with every other file as an attestation.

    `digests` is keyed by the names of files beside the image.
    """
    buildinfo = digests[record.id.file("buildinfo")]
    return replace(
        record,
        buildinfo_sha256=buildinfo.hashes["sha256"],
        buildinfo_sha512=buildinfo.hashes["sha512"],
        attestations=tuple(
            Attestation(name.removeprefix(f"{record.stem}."), digests[name].size, digests[name].hashes["sha256"])
            for name in sorted(digests)
            if digests[name] is not buildinfo
        ),
    )


def listed(records: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """The records that an index lists."""
    return tuple(record for record in records if record.status not in GONE)


def with_status(records: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """The same records; the newest serial of each series is `current`, the others `superseded`.

    An unofficial image is current only if there is no official one. A deprecated, withdrawn or expired image keeps
    its status and is never current.
    """
    records = tuple(records)
    given = {record.id for record in records if record.status in STATUS[2:]}
    newest: dict[str, tuple[bool, tuple[int, int]]] = {}
    for record in records:
        if record.id in given:
            continue
        series = record.id.series
        newest[series] = max(newest.get(series, (False, (0, 0))), _rank(record))
    return tuple(
        record
        if record.id in given
        else replace(record, status="current" if _rank(record) == newest[record.id.series] else "superseded")
        for record in records
    )


def _rank(record: ImageRecord) -> tuple[bool, tuple[int, int]]:
    return record.official, record.id.number


def _order(record: ImageRecord) -> tuple[str, str, str, tuple[int, int], str]:
    return record.id.suite, record.id.config, record.id.architecture, record.id.number, record.format


def _stanza(record: ImageRecord) -> list[tuple[str, str]]:
    values = (
        *(record.id.package, record.id.serial, record.id.suite, record.id.architecture, record.format),
        *(record.config_version, record.filename, str(record.size), str(record.virtual_size)),
        *(record.sha256, record.sha512, record.buildinfo, "" if record.official else "no", ", ".join(record.others)),
        *(value for _, value in record.machine.fields()),
        *(record.buildinfo_sha256, record.buildinfo_sha512),
        "".join(f"\n {a.sha256} {a.size} {_beside(record, a.suffix)}" for a in record.attestations),
        "".join(f"\n {a.sha256} {a.size} {record.rebuilds_directory}/{a.suffix}" for a in record.rebuilds),
        *("yes" if record.partial else "", record.status, record.status_date, record.status_reason),
        " ".join(record.cves),
    )
    return [(field, value) for field, value in zip((*_UPLOADED, *_OF_THE_ARCHIVE), values, strict=True) if value]


def _record(stanza: deb822.Stanza, *, strict: bool) -> ImageRecord:
    for field in _FIELDS:
        if field not in stanza:
            raise Error(f"an image record has no field {field}", "it may be truncated: get it again")
    if strict:
        for field in stanza:
            if field not in _UPLOADED:
                raise Error(f"an image record has the unknown field {field}", did_you_mean(field, _FIELDS))
    for field in (*_UPLOADED, *_OF_THE_ARCHIVE):
        if "\n" in stanza.get(field, "") and field not in _LISTS:
            raise Error(f"field {field} of an image record has more than one line")
    size = _size(stanza["Size"], "Size", 1, LARGEST_FILE)
    virtual_size = _size(stanza["Virtual-Size"], "Virtual-Size", 0, LARGEST_DISK)
    for field in ("SHA256", "SHA512", "Buildinfo-SHA256", "Buildinfo-SHA512"):
        if field in stanza and not _HEX[field.removeprefix("Buildinfo-")].fullmatch(stanza[field]):
            raise Error(f"field {field} of an image record is not a hash: {stanza[field]!r}")
    if not VERSION.fullmatch(stanza["Config-Version"]):
        raise Error(f"Config-Version of an image record is not a version: {stanza['Config-Version']!r}")
    if stanza.get(_OFFICIAL, "yes") not in ("yes", "no"):
        raise Error(f"{_OFFICIAL} of an image record is neither yes nor no: {stanza[_OFFICIAL]!r}")
    others = tuple(stanza[_OTHERS].split(", ")) if _OTHERS in stanza else ()
    if others and (stanza.get(_OFFICIAL) != "no" or not all(map(_OTHER.fullmatch, others))):
        raise Error(
            f"{_OTHERS} of an image record is {stanza[_OTHERS]!r}",
            f"it lists address and suite of each source, separated by commas, and needs `{_OFFICIAL}: no`",
        )
    if stanza.get("Partial", "yes") != "yes":
        raise Error(f"Partial of an image record is not yes: {stanza['Partial']!r}")
    if stanza.get("Status", STATUS[0]) not in STATUS:
        raise Error(f"an image record has the unknown status {stanza['Status']!r}", _NEWER)
    if not stanza["Image"].startswith(names.PACKAGE_PREFIX):
        raise Error(f"Image of an image record is not an image configuration: {stanza['Image']!r}")
    record = ImageRecord(
        ImageId(stanza["Suite"], names.config(stanza["Image"]), stanza["Architecture"], stanza["Version"]),
        names.word(stanza["Format"], "format"),
        stanza["Config-Version"],
        size,
        virtual_size,
        stanza["SHA256"],
        stanza["SHA512"],
        stanza.get(_OFFICIAL, "yes") == "yes",
        buildinfo_sha256=stanza.get("Buildinfo-SHA256", ""),
        buildinfo_sha512=stanza.get("Buildinfo-SHA512", ""),
        partial=stanza.get("Partial") == "yes",
        status=stanza.get("Status", ""),
        status_date=stanza.get("Status-Date", ""),
        status_reason=stanza.get("Status-Reason", ""),
        cves=(*stanza.get("CVEs", "").split(),),
        others=others,
        machine=machine.read(stanza, strict=strict),
    )
    for field, path in (("Filename", record.filename), ("Buildinfo", record.buildinfo)):
        if stanza[field] != path:
            raise Error(
                f"{field} of an image record is {stanza[field]!r} instead of {path!r}",
                "the path follows from the other fields; any other could lead out of the archive",
            )
    _refuse_long(record.name)
    if record.status_date and not is_day(record.status_date):
        raise Error(f"Status-Date of an image record is not a day: {record.status_date!r}")
    for cve in record.cves:
        if not CVE.fullmatch(cve):
            raise Error(f"CVEs of an image record has {cve!r}", "an identifier looks like CVE-2026-12345")
    record = replace(
        record,
        attestations=tuple(_beside_it(_ATTESTATIONS, _beside(record, ""), stanza.get(_ATTESTATIONS, ""))),
        rebuilds=tuple(_beside_it(_REBUILDS, f"{record.rebuilds_directory}/", stanza.get(_REBUILDS, ""))),
    )
    paths = [path for path, _ in _files(record)]
    if len(set(paths)) != len(paths):
        raise Error(f"the record of {record.filename} names a file twice", _WHICH)
    return record


def is_day(value: str) -> bool:
    """Whether a text is a day, YYYY-MM-DD."""
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _beside_it(field: str, place: str, value: str) -> Iterable[Attestation]:
    # An archive may add files that this program does not know, but none of another directory.
    for line in value.removeprefix("\n").split("\n") if value else ():
        match = _ATTESTATION.fullmatch(line)
        if not match or not match["path"].startswith(place):
            raise Error(
                f"{field} of an image record has the line {line.strip()!r}",
                f"it must be a SHA-256, a size and a path that begins with {place}",
            )
        suffix = names.word(match["path"].removeprefix(place), "attestation")
        _refuse_long(match["path"].rpartition("/")[2])
        yield Attestation(suffix, _size(match["size"], field, 1, LARGEST_FILE), match["sha256"])


def _size(value: str, field: str, least: int, most: int) -> int:
    """A number of bytes from `least` to `most`; Error for anything else."""
    # A number with more digits is too large, and may be more than Python accepts.
    if not re.fullmatch("[0-9]{1,15}", value) or not least <= int(value) <= most:
        raise Error(
            f"field {field} of an image record is not a number of bytes: {value[:60]!r}",
            f"it must be from {least} to {most}",
        )
    return int(value)


def _refuse_long(name: str) -> None:
    if len(name) > _LONGEST_NAME:
        raise Error(f"an image record has a file name of {len(name)} characters", "the limit is 255 (limits.h)")


def _beside(record: ImageRecord, suffix: str) -> str:
    """The path of a file beside the image, relative to the archive's root."""
    return f"{record.directory}/{record.id.file(suffix)}"
