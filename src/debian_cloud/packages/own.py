# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that the user configured: .sources files, as apt has them, in the user's configuration directory.

Such an archive is the user's choice, so it has priority over the machine's, and gives no right that `--archive` and
`--keyring` do not give. apt itself does not read these files, so no machine installs anything from there. They name
DIR/keyring.gpg, which `publish` keeps up to date, and not a key, which may be retired. A file or a keyring that
others can change, at any place of its path, could make other signatures count, and is refused. If there are several
keyrings, `verify` uses the one by which the image is signed, so that images of one archive can still be verified
after a second archive is added.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files
from debian_cloud.image import sources
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

_LARGEST: Final = 2**20
"""Largest .sources file, in bytes; one with a key in it has a few thousand."""
_FIELDS: Final = ("Types", "URIs", "Suites", "Components", "Signed-By", "Enabled")
"""Accepted fields (sources.list(5)): any other could disable verification, or is not supported here."""
_REQUIRED: Final = _FIELDS[:5]
_LINE: Final = re.compile(r"(?P<field>[A-Za-z][A-Za-z0-9-]*):.*|[ \t].*|")
_ARMOUR: Final = ("-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----")
_HINT: Final = "each stanza needs the format of sources.list(5) and its own Signed-By: see FILES in debian-cloud(1)"


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive from one stanza of a file, and the keys that may sign it, armoured or binary."""

    file: Path
    source: sources.Source
    keys: bytes


def directory() -> Path:
    """Return the directory of the files (XDG Base Directory Specification: a relative path is ignored)."""
    # Who has no home has no such files, which is no error (passwd(5) names this directory so).
    return (files.user_directory("XDG_CONFIG_HOME", ".config") or Path("/nonexistent")) / "debian-cloud"


def archives() -> tuple[Archive, ...]:
    """Return all enabled archives; raise Error at the first file with invalid or duplicate settings."""
    found: list[Archive] = []
    try:
        there = sorted(path for path in directory().iterdir() if path.name.endswith(".sources"))
    except OSError:
        return ()
    for file in there:
        files.refuse_changeable(directory())
        files.refuse_changeable(file)
        text = files.text(file, _LARGEST)
        try:
            found += [Archive(file, *_archive(stanza)) for stanza in _stanzas(text) if _enabled(stanza)]
        except Error as error:
            raise Error(f"{printable(str(file))}: {error.message}", error.hint or _HINT, USAGE) from None
    return tuple(found)


def archive(suite: str) -> Archive | None:
    """Return the archive that has a suite, or None; raise Error if several have it."""
    found = {one.source.uri.rstrip("/"): one for one in archives() if suite in one.source.suites}
    if len(found) > 1:
        where = " and ".join(f"{uri} ({printable(str(one.file))})" for uri, one in sorted(found.items()))
        raise Error(
            f"several archives of image configurations are known for {suite}: {where}",
            "choose one with --archive URL --keyring FILE, or write `Enabled: no` into a file",
            USAGE,
        )
    return next(iter(found.values()), None)


def _stanzas(text: str) -> tuple[deb822.Stanza, ...]:
    """Return the stanzas, without comments; raise Error for a duplicate field, or a line of another format."""
    lines: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise Error(f"line {number} is not a field and its value: {printable(line, 60)!r}")
        if not line:
            seen.clear()
        if field := (match["field"] or "").lower():
            if field in seen:
                raise Error(f"a stanza has the field {match['field']} twice", "remove one of them")
            seen.add(field)
        lines.append(line)
    known = {field.lower(): field for field in _FIELDS}
    stanzas = tuple(
        {known.get(field.lower(), field): value for field, value in stanza.items()}
        for stanza in deb822.parse("\n".join(lines))
    )
    for field in (field for stanza in stanzas for field in stanza):
        if field not in _FIELDS:
            raise Error(f"the field {printable(field)} is not accepted", f"accepted: {', '.join(_FIELDS)}")
    return stanzas


def _enabled(stanza: deb822.Stanza) -> bool:
    value = stanza.get("Enabled", "yes").strip().lower()
    if value not in ("yes", "no"):
        raise Error(f"Enabled is {printable(value)!r}", "it must be yes or no")
    return value == "yes"


def _archive(stanza: deb822.Stanza) -> tuple[sources.Source, bytes]:
    for field in _REQUIRED:
        if not stanza.get(field, "").strip():
            raise Error(f"a stanza has no field {field}")
    words = {field: tuple(stanza[field].split()) for field in _REQUIRED[:-1]}
    if not {"deb"} <= {*words["Types"]} <= {"deb", "deb-src"}:
        raise Error(f"Types is {printable(stanza['Types'])!r}", "it must be deb, or deb deb-src")
    if len(words["URIs"]) != 1 or not sources.ADDRESS.fullmatch(words["URIs"][0]):
        raise Error(
            f"URIs is not one plain address: {printable(stanza['URIs'])!r}", "give https://…, http://… or file:/…"
        )
    for suite in words["Suites"]:
        names.word(suite, "suite")
    if "main" not in words["Components"] or not {*words["Components"]} <= {*sources.ARCHIVE_COMPONENTS}:
        raise Error(f"Components is {printable(stanza['Components'])!r}", "it must be main, or main contrib")
    (uri,) = words["URIs"]
    return sources.Source(uri, words["Suites"], "", words["Components"]), _keys(stanza["Signed-By"])


def _keys(value: str) -> bytes:
    """Return the keys of a Signed-By, which is the path of a keyring or has the armoured keys."""
    lines = [line.strip() for line in value.split("\n") if line.strip()]
    if (lines[0], lines[-1]) == _ARMOUR:
        return "".join(f"{'' if line == '.' else line}\n" for line in lines).encode()
    if len(lines) != 1 or not lines[0].startswith("/"):
        raise Error(
            f"Signed-By is neither one path nor a key: {printable(lines[0], 60)!r}",
            "give the absolute path of a keyring, or the armoured key itself",
        )
    files.refuse_changeable(Path(lines[0]))
    return files.read(Path(lines[0]), what="keyring")
