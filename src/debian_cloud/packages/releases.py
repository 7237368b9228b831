# SPDX-License-Identifier: GPL-3.0-or-later
"""The signed release files that a private apt has fetched, verified again as they are read."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.image.resolution import ReleaseFile
from debian_cloud.text import deb822, openpgp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from debian_cloud.image.sources import Source

_QUOTED: Final = frozenset(b'\\|{}[]<>"^~_=!@#$%^&*')
"""Characters, besides blanks and those that are not ASCII, that apt quotes in the name of a list."""
_ROW: Final = re.compile(" +([0-9a-f]{64}) +([0-9]{1,15}) +(\\S+)")
_LONGEST_DATE: Final = 64
"""Longest date, in characters."""
_FAST: Final = 10
"""Seconds by which the clock of an archive may be ahead, as for apt (apt.conf(5), Acquire::Max-FutureTime)."""
_ONCE: Final = "run it once without --offline"


@dataclass(frozen=True, slots=True)
class Release:
    """The release file of one suite of a source, with the content that a key of the source signed."""

    source: Source
    suite: str
    file: Path
    signed: sign.Signed

    def field(self, name: str) -> str:
        """Return the value of a field of one line; "" if there is no such field."""
        return openpgp.field(self.signed.content, name)

    @property
    def record(self) -> ReleaseFile:
        """The release file as a .buildinfo names it."""
        signed = self.signed
        return ReleaseFile(self.source.uri, self.suite, signed.size, signed.sha256, signed.signers)


def read(lists: Path, sources: Iterable[Source], *, offline: bool = False) -> tuple[Release, ...]:
    """Verify the release file of each suite of the sources, in their order, and return them.

    Raise Error if a file is missing, has no valid signature by a key of its source, has no Date, or is another
    suite's: of the last, apt only warns. `offline` is as for `of`.
    """
    return tuple(_checked(of(lists, source, suite, offline=offline)) for source in sources for suite in source.suites)


def of(lists: Path, source: Source, suite: str, *, offline: bool = False) -> Release:
    """Verify the release file of one suite, and return it, whatever it says of itself.

    With `offline`, apt has not fetched it now: raise Error also if apt would refuse its dates by now.
    """
    file = _file(lists, source, suite)
    if file is None and offline:
        raise Error(f"the cache has no index of {suite} from {source.uri}", _ONCE)
    if file is None:
        raise Error(
            f"apt has no signed release file of {suite} from {source.uri}",
            "choose another mirror: this one may be incomplete",
        )
    # InRelease contains its signature; that of Release is in Release.gpg.
    signature = None if file.name.endswith("_InRelease") else file.with_name(f"{file.name}.gpg")
    found = Release(source, suite, file, sign.verified(Path(source.signed_by), file, signature))
    if offline:
        _refuse_dates(found)
    return found


def refuse_other(lists: Path, found: Release, names: Iterable[str]) -> None:
    """Raise Error if an index in the cache is missing, or is not the one that its signed release file lists.

    `names` are paths of indexes in the suite; what the release file does not list is ignored, as by apt.
    """
    rows = _rows_of(found)
    base = f"{found.source.uri.rstrip('/')}/dists/{found.suite}"
    for name in names:
        packed = any(row.startswith(f"{name}.") for row in rows)
        sha256, size = rows.get(name, ("", -1 if packed else 0))
        # apt does not fetch an empty file.
        if not size:
            continue
        file = lists / list_name(f"{base}/{name}")
        if not file.exists():
            raise Error(f"the cache has no index {name} of {found.suite} from {found.source.uri}", _ONCE)
        # apt has verified the compressed file, if the release file lists only that.
        if sha256 and not _same(file, sha256, size):
            # Otherwise apt might take it for the file that it would fetch.
            file.unlink()
            raise Error(
                f"the index {name} of {found.suite} in the cache is not the one that {found.source.uri} has signed",
                f"it was damaged, and is removed: {_ONCE}",
            )


def of_packages(found: Release, architecture: str) -> tuple[str, ...]:
    """Return the names of the indexes of packages that apt reads of a suite."""
    everywhere = "all" in found.field("Architectures").split()
    apart = everywhere and "Packages" not in found.field("No-Support-for-Architecture-all").split()
    architectures = (architecture, "all") if apart else (architecture,)
    return tuple(f"{part}/binary-{arch}/Packages" for part in found.source.components for arch in architectures)


def fields(signed: sign.Signed) -> dict[str, str]:
    """Return the signed fields of a release file."""
    return dict((deb822.parse(signed.content.decode("utf-8", "replace"))[:1] or ({},))[0])


def rows(fields: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return name -> SHA-256 and size of each file that a release file lists; ignore malformed lines."""
    found = (_ROW.fullmatch(line) for line in fields.get("SHA256", "").split("\n"))
    return {row[3]: (row[1], int(row[2])) for row in found if row}


def seconds(date: str, file: Path) -> int:
    """Return a date of a release file in seconds since 1970; raise Error if it is none."""
    from email.utils import mktime_tz, parsedate_tz

    parsed = parsedate_tz(date[:_LONGEST_DATE])
    with contextlib.suppress(ValueError, OverflowError):
        if parsed:
            # Without a zone, it is UTC.
            return mktime_tz((*parsed[:9], parsed[9] or 0))
    raise Error(f"{file} has an invalid date: {date[:_LONGEST_DATE]!r}", "its archive must be repaired")


def identity(releases: Iterable[Release]) -> str:
    """Return the SHA-256 of which release files these are: their sources, suites, and their own SHA-256."""
    lines = (f"{found.signed.sha256} {found.suite} {found.source.uri}\n" for found in releases)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def list_name(uri: str) -> str:
    """Return the beginning of the names of the lists that apt fetched from a URI, as apt_pkg.uri_to_filename does.

    So a kept answer (`packages.kept`) is found without apt.
    """
    rest = uri.partition(":")[2]
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        # A user and a password are not part of the name, nor are the brackets of an IPv6 address.
        rest = f"{host.rpartition('@')[2].replace('[', '').replace(']', '')}/{path}"
    quoted = (chr(c) if 0x20 < c < 0x7F and c not in _QUOTED else f"%{c:02x}" for c in rest.encode())
    return "".join(quoted).replace("/", "_")


def _rows_of(found: Release) -> dict[str, tuple[str, int]]:
    return rows(fields(found.signed))


def _same(file: Path, sha256: str, size: int) -> bool:
    with file.open("rb") as content:
        return file.stat().st_size == size and hashlib.file_digest(content, "sha256").hexdigest() == sha256


def _refuse_dates(found: Release) -> None:
    what = f"the index of {found.suite} from {found.source.uri} in the cache"
    date, until, now = found.field("Date"), found.field("Valid-Until"), time.time()
    if date and seconds(date, found.file) > now + _FAST:
        raise Error(f"{what} is not valid yet: its date is {date}", "check this machine's clock")
    if until and not found.source.expired and seconds(until, found.file) < now:
        raise Error(f"{what} was valid until {until}", f"{_ONCE}; --allow-expired accepts an old index of Debian")


def _file(lists: Path, source: Source, suite: str) -> Path | None:
    uri = f"{source.uri.rstrip('/')}/dists/{suite}"
    # apt takes Release with Release.gpg if there is no InRelease.
    paths = (lists / list_name(f"{uri}/{name}") for name in ("InRelease", "Release"))
    return next((path for path in paths if path.exists()), None)


def _checked(found: Release) -> Release:
    """Return a release file; raise Error if it has no Date, or is another suite's."""
    if not found.field("Date"):
        raise Error(
            f"the release file of {found.suite} from {found.source.uri} has no Date", "its archive must be repaired"
        )
    suite, codename = found.field("Suite"), found.field("Codename")
    if found.suite not in (suite, codename):
        raise Error(
            f"{found.source.uri} serves the suite {codename or suite} instead of {found.suite}",
            "its InRelease is signed, but it belongs to another archive: choose another mirror",
        )
    return found
