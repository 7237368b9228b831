# SPDX-License-Identifier: GPL-3.0-or-later
"""Pending updates of published images: the packages with a newer version, and the index `Images-Status`.

`Images-Status` has one stanza for each image, not for each file, and keeps images that are no longer offered:

```
Image: debian-cloud-config-ec2
Version: 20261120.0
Suite: trixie
Architecture: amd64
Status: withdrawn
Status-Date: 2026-11-21
Status-Reason: its kernel does not boot on …
CVEs: CVE-2026-12345
Pending-Date: 2026-11-21
Pending-Security:
 openssl 3.5.1-1 3.5.4-1~deb13u1
Pending:
 tzdata 2026a-0+deb13u1 2026b-0+deb13u1
```

Pending-Date is the day of the newest release file that was read; an image that was never checked has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import Error
from debian_cloud.image import index
from debian_cloud.image.id import ImageId
from debian_cloud.image.installed import Installed
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from debian_cloud.image.index import ImageRecord

_IMAGE: Final = "Image"
_DATE: Final = "Pending-Date"
SECURITY: Final = "Pending-Security"
"""Field that lists the security updates."""
_OTHERS: Final = "Pending"
_FOUND: Final = (_DATE, SECURITY, _OTHERS)
_UPDATE: Final = re.compile(
    rf" (?P<package>[a-z0-9][a-z0-9+.-]{{1,254}}) (?P<have>{index.VERSION.pattern}) (?P<new>{index.VERSION.pattern})"
)
MOST_UPDATES: Final = 4000
"""Maximum number of updates listed for one image, so that readers accept its stanza (`deb822.MOST_LINES`)."""
_LONGEST_UPDATE: Final = deb822.LARGEST_STANZA // deb822.MOST_LINES
_SHA256: Final = 64
_SINGLE: Final = (
    _IMAGE, "Version", "Suite", "Architecture", "Status", "Status-Date", "Status-Reason", "CVEs", _DATE,
)  # fmt: skip
_GONE: Final = "withdraw it (debian-cloud-archive withdraw); the other images are not affected"
_AGAIN: Final = "run `apt-get update` and try again; if that does not help, the archive must be repaired"


@dataclass(frozen=True, slots=True)
class Update:
    """A package of an image, its version there, and the newest version."""

    package: str
    have: str
    new: str


@dataclass(frozen=True, slots=True)
class Pending:
    """An update that a machine has not installed, and the version that is installed there."""

    package: str
    installed: str
    new: str
    security: bool


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """The status of one image in an archive; `date` and `pending_date` are YYYY-MM-DD, or "" if unknown."""

    id: ImageId
    status: str
    date: str = ""
    reason: str = ""
    cves: tuple[str, ...] = ()
    pending_date: str = ""
    security: tuple[Update, ...] = ()
    others: tuple[Update, ...] = ()


def found(
    image: ImageId, installed: Iterable[Installed], newest: Callable[[Installed], tuple[str, bool] | None], day: str
) -> str:
    """The stanza of an image for `render`, with the updates that `newest` reports for its packages.

    `newest` returns a newer version, and whether that version or one between is a security update; None if there is
    no newer version. Error if no reader would accept the stanza, because the state goes into every later index.
    """
    updates: dict[bool, list[str]] = {True: [], False: []}
    for package in sorted(installed, key=lambda one: (one.name, one.version, one.architecture)):
        if answer := newest(package):
            line = f" {package.name} {package.version} {answer[0]}"
            if len(line) > _LONGEST_UPDATE or not _UPDATE.fullmatch(line):
                raise Error(f"{image.path()} has a package that no index can list: {printable(line.strip())}", _GONE)
            updates[answer[1]].append(f"\n{line}")
    if sum(map(len, updates.values())) > MOST_UPDATES:
        raise Error(f"{image.path()} has more than {MOST_UPDATES} packages with updates", _GONE)
    fields = ((SECURITY, "".join(updates[True])), (_OTHERS, "".join(updates[False])))
    return deb822.render(((_IMAGE, image.path()), (_DATE, day), *((name, value) for name, value in fields if value)))


def remembered(known: Mapping[str, Iterable[Installed]]) -> str:
    """The packages of images by the hash of their .buildinfo, as text: first each package once, then each image."""
    numbers: dict[Installed, int] = {}
    lines = []
    for sha256, packages in known.items():
        own = " ".join(str(numbers.setdefault(package, len(numbers))) for package in packages)
        lines.append(f"{sha256} {own}\n")
    heads = (f"{package.name} {package.version} {package.architecture}\n" for package in numbers)
    return f"{''.join(heads)}\n{''.join(lines)}"


def recalled(text: str) -> dict[str, tuple[Installed, ...]]:
    """Parse what `remembered` wrote; ValueError if it is something else."""
    head, found, tail = text.partition("\n\n")
    if not found or not tail.endswith("\n"):
        raise ValueError(text[:60])
    packages: list[Installed] = []
    for line in head.split("\n"):
        name, version, architecture = line.split(" ")
        packages.append(Installed(name, version, architecture))
    known = {}
    for line in tail.splitlines():
        sha256, *numbers = line.split()
        if len(sha256) != _SHA256 or not all(0 <= int(number) < len(packages) for number in numbers):
            raise ValueError(line[:60])
        known[sha256] = tuple(packages[int(number)] for number in numbers)
    return known


def by_image(text: str) -> dict[str, deb822.Stanza]:
    """Directory of an image -> its stanza, from stanzas that `found` wrote, separated by empty lines."""
    return {stanza[_IMAGE]: stanza for stanza in deb822.canonical(text)}


def render(records: Iterable[ImageRecord], pending: Mapping[str, deb822.Stanza]) -> str:
    """The text of `Images-Status` for records with statuses; `pending` is keyed by directory.

    Withdrawn and expired images get no updates.
    """
    first: dict[ImageId, ImageRecord] = {}
    for record in records:
        first.setdefault(record.id, record)
    stanzas = []
    for image, record in sorted(first.items(), key=lambda item: _order(item[0])):
        fields = [
            (_IMAGE, image.package),
            ("Version", image.serial),
            ("Suite", image.suite),
            ("Architecture", image.architecture),
            ("Status", record.status),
            ("Status-Date", record.status_date),
            ("Status-Reason", record.status_reason),
            ("CVEs", " ".join(record.cves)),
        ]
        if record.status not in ("withdrawn", "expired"):
            stanza = pending.get(image.path(), {})
            fields += [(name, stanza.get(name, "")) for name in _FOUND]
        stanzas.append(deb822.render(field for field in fields if field[1]))
    return "\n".join(stanzas)


def parse(text: str) -> tuple[ImageStatus, ...]:
    """The images of an `Images-Status`, each once; fields that a newer archive adds are ignored."""
    return tuple(_statuses(deb822.canonical(text)))


def read(file: IO[bytes]) -> Iterator[ImageStatus]:
    """The same for an open `Images-Status`, one image after another as it is read."""
    return _statuses(deb822.stanzas(file))


def _statuses(stanzas: Iterable[deb822.Stanza]) -> Iterator[ImageStatus]:
    seen: set[ImageId] = set()
    current: dict[str, str] = {}
    for stanza in stanzas:
        try:
            found = _status(stanza)
        except KeyError as error:
            raise Error(f"a stanza of Images-Status has no field {error.args[0]}", "it may be truncated") from None
        except Error as error:
            raise Error(error.message, error.hint) from None
        series, serial = found.id.series, found.id.serial
        if found.id in seen:
            raise Error(f"Images-Status has two stanzas of {found.id.path()}", _AGAIN)
        seen.add(found.id)
        if found.status == index.STATUS[0] and current.setdefault(series, serial) != serial:
            raise Error(f"Images-Status has two serials of {series} that are current", _AGAIN)
        yield found


def on_machine(status: ImageStatus, installed: Mapping[str, str]) -> tuple[tuple[Pending, ...], tuple[Pending, ...]]:
    """The updates of an image that a machine lacks, security updates first, and those that it already has.

    `installed` are the versions of the machine's packages; a package that was removed there needs no update.
    """
    lacking: list[Pending] = []
    there: list[Pending] = []
    for updates, security in ((status.security, True), (status.others, False)):
        for update in updates:
            if version := installed.get(update.package):
                it = Pending(update.package, version, update.new, security)
                (lacking if _is_older(version, update) else there).append(it)
    return tuple(lacking), tuple(there)


def _is_older(version: str, update: Update) -> bool:
    try:
        return bool(deb822.version(version) < deb822.version(update.new))
    except ValueError:
        raise Error(f"{update.new!r} in Images-Status is not a version", _AGAIN) from None


def _status(stanza: deb822.Stanza) -> ImageStatus:
    for field in _SINGLE:
        if "\n" in stanza.get(field, ""):
            raise Error(f"{field} in Images-Status has more than one line", _AGAIN)
    image = ImageId(stanza["Suite"], names.config(stanza[_IMAGE]), stanza["Architecture"], stanza["Version"])
    cves = tuple(stanza.get("CVEs", "").split())
    for field, bad in (
        (_IMAGE, not stanza[_IMAGE].startswith(names.PACKAGE_PREFIX)),
        ("Status", stanza["Status"] not in index.STATUS),
        ("CVEs", not all(map(index.CVE.fullmatch, cves))),
        *((f, f in stanza and not index.is_day(stanza[f])) for f in (_DATE, "Status-Date")),
    ):
        if bad:
            raise Error(f"{field} in Images-Status is {stanza[field]!r}", _AGAIN)
    return ImageStatus(
        image,
        stanza["Status"],
        stanza.get("Status-Date", ""),
        stanza.get("Status-Reason", ""),
        cves,
        stanza.get(_DATE, ""),
        _updates(stanza, SECURITY),
        _updates(stanza, _OTHERS),
    )


def _updates(stanza: deb822.Stanza, field: str) -> tuple[Update, ...]:
    matches = [
        (line, _UPDATE.fullmatch(line)) for line in stanza.get(field, "").removeprefix("\n").split("\n") if line
    ]
    for line, match in matches:
        if not match:
            raise Error(f"{field} in Images-Status has the line {line!r}", "a line is a package and two versions")
    return tuple(Update(*match.groups()) for _, match in matches if match)


def _order(image: ImageId) -> tuple[str, str, str, tuple[int, int]]:
    return image.suite, image.config, image.architecture, image.number
