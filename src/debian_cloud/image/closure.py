# SPDX-License-Identifier: GPL-3.0-or-later
"""An image's closure: all that it was made of, as an apt suite of its own, with the proof of where that is from.

```
dists/SUITE/InRelease                      signed by the archive; it lists all other files
dists/SUITE/main/binary-ARCH/Packages      the stanzas that Debian's and the archive's indexes have
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
"""A closure has one component, whatever its packages are of."""
_MOST: Final = 200
"""Files of evidence: four release files have some twenty."""
_ROW: Final = re.compile(
    r" *(?:(?P<sha256>[0-9a-f]{64}) [0-9]{1,13}|- -)"
    r" (?:(?P<evidence>evidence/[0-9]{1,3}/[A-Za-z][A-Za-z0-9_.+-]*)|pool/[A-Za-z0-9][A-Za-z0-9_.+~-]*)"
)
_FILENAME: Final = re.compile("^Filename:.*$", re.MULTILINE)


def filename(package: Package) -> str:
    """Where a closure has a package; as in every pool, without the version's epoch."""
    return f"pool/{package.name}_{package.version.partition(':')[2] or package.version}_{package.architecture}.deb"


def release_path(suite: str) -> str:
    """Where a closure has its release file."""
    return f"dists/{suite}/InRelease"


def evidence(release: str) -> dict[str, str]:
    """Path -> SHA-256 of the evidence that a closure's release file lists, "" of what the archive may sign anew.

    Nothing where it lists no files, as of an older archive. Error at a path that can be none.
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
    """Where a closure has its index."""
    return f"dists/{suite}/{COMPONENT}/binary-{architecture}/Packages"


def packages_text(stanzas: Mapping[Package, str]) -> str:
    """The index, in the order of names; the stanzas are their sources' own, but for where the file is."""
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
    """The release file, to be signed: of the image's day, and without an end to its validity.

    It lists each other file of the closure, too, whose place in the archive it names, so that mirrors can carry it:
    SHA-256 and size; None of those that the archive itself signed, and may sign anew.
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
