# SPDX-License-Identifier: GPL-3.0-or-later
"""The signed release files that a private apt has fetched, verified again as they are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.image.resolution import ReleaseFile
from debian_cloud.text import openpgp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from debian_cloud.image.sources import Source

_QUOTED: Final = frozenset(b'\\|{}[]<>"^~_=!@#$%^&*')
"""Characters, besides blanks and those that are not ASCII, that apt quotes in the name of a list."""


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


def read(lists: Path, sources: Iterable[Source]) -> tuple[Release, ...]:
    """Verify the release file of each suite of the sources, in their order, and return them.

    Raise Error if a file is missing, has no valid signature by a key of its source, has no Date, or is another
    suite's: of the last, apt only warns.
    """
    return tuple(_checked(of(lists, source, suite)) for source in sources for suite in source.suites)


def of(lists: Path, source: Source, suite: str) -> Release:
    """Verify the release file of one suite, and return it, whatever it says of itself."""
    file = _file(lists, source, suite)
    # InRelease contains its signature; that of Release is in Release.gpg.
    signature = None if file.name.endswith("_InRelease") else file.with_name(f"{file.name}.gpg")
    return Release(source, suite, file, sign.verified(Path(source.signed_by), file, signature))


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


def _file(lists: Path, source: Source, suite: str) -> Path:
    uri = f"{source.uri.rstrip('/')}/dists/{suite}"
    # apt takes Release with Release.gpg if there is no InRelease.
    paths = (lists / list_name(f"{uri}/{name}") for name in ("InRelease", "Release"))
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise Error(
            f"apt has no signed release file of {suite} from {source.uri}",
            "choose another mirror: this one may be incomplete",
        )
    return path


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
