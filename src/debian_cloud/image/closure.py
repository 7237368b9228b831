# SPDX-License-Identifier: GPL-3.0-or-later
"""An image's closure: all packages it was made of and with, as an apt suite of its own, with evidence of origin.

```
dists/SUITE/InRelease                      signed by the archive; it lists all other files
dists/SUITE/main/binary-ARCH/Packages      the stanzas of Debian's and the archive's indexes
pool/NAME_VERSION_ARCH.deb
evidence/N/InRelease                       of each source, as it was signed (or Release and Release.gpg)
evidence/N/COMPONENT_binary-ARCH_Packages.xz
```
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debian_cloud.image.resolution import Package

COMPONENT: Final = "main"
"""A closure's only component, whatever components its packages are from."""
_MOST: Final = 200
"""Maximum number of evidence files: four release files have about twenty."""
_ROW: Final = re.compile(
    r" *(?:(?P<sha256>[0-9a-f]{64}) [0-9]{1,13}|- -)"
    r" (?:(?P<evidence>evidence/[0-9]{1,3}/[A-Za-z][A-Za-z0-9_.+-]*)|pool/[A-Za-z0-9][A-Za-z0-9_.+~-]*)"
)
_FILENAME: Final = re.compile("^Filename:.*$", re.MULTILINE)


def filename(package: Package) -> str:
    """The path of a package in a closure; as in every pool, without the version's epoch."""
    return f"pool/{package.name}_{package.version.partition(':')[2] or package.version}_{package.architecture}.deb"


def release_path(suite: str) -> str:
    """The path of a closure's release file."""
    return f"dists/{suite}/InRelease"


def evidence(release: str) -> dict[str, str]:
    """Path -> SHA-256 of the evidence that a release file of a closure lists; "" if the archive may sign it again.

    Empty if the release file lists no files, as one of an older archive does. Error if a path is invalid.
    """
    rows = next((stanza["Closure-Files"] for stanza in deb822.parse(release) if "Closure-Files" in stanza), "")
    found: dict[str, str] = {}
    for row in rows.split("\n"):
        match = _ROW.fullmatch(row)
        if not match and row.strip():
            raise Error(f"a closure lists {printable(row.strip(), 60)!r}", "it was changed: use another mirror")
        if match and match["evidence"]:
            found[match["evidence"]] = match["sha256"] or ""
    if len(found) > _MOST:
        raise Error(f"a closure lists more than {_MOST} files as evidence", "it was changed: use another mirror")
    return found


def packages_path(suite: str, architecture: str) -> str:
    """The path of a closure's package index."""
    return f"dists/{suite}/{COMPONENT}/binary-{architecture}/Packages"


def packages_text(stanzas: Mapping[Package, str]) -> str:
    """The package index, sorted by name; the stanzas are those of the sources, except for Filename."""
    return "\n".join(
        _FILENAME.sub(f"Filename: {filename(package)}", stanzas[package].strip("\n"), count=1) + "\n"
        for package in sorted(stanzas, key=lambda package: package.name)
    )


def release_text(
    suite: str,
    architecture: str,
    epoch: int,
    packages: str,
    place: str = "",
    listed: Mapping[str, tuple[str, int] | None] = MappingProxyType({}),
) -> str:
    """The release file, to be signed: with the image's date and without Valid-Until.

    If `place`, the closure's path in the archive, is given, it also lists each other file of the closure with SHA-256
    and size, so that mirrors can carry it; a file that the archive itself signed, and may sign again, has None in
    `listed`.
    """
    content = packages.encode()
    rows = "".join(
        f" {found[0]} {found[1]} {path}\n" if found else f" - - {path}\n" for path, found in listed.items()
    )
    return (
        f"Origin: debian-cloud\nLabel: closure\nSuite: {suite}\nCodename: {suite}\n"
        f"Date: {format_datetime(datetime.fromtimestamp(epoch, UTC)).replace('+0000', 'UTC')}\n"
        f"Architectures: {architecture}\nComponents: {COMPONENT}\n"
        f"Description: what one image was made of\n"
        + (f"Closure: {place}\nClosure-Files:\n{rows}" if place else "")
        + "SHA256:\n"
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {COMPONENT}/binary-{architecture}/Packages\n"
    )
