# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparison of what an archive serves with what it signed, and of what it will sign with its state.

`DIR/signed` has the text of each Release that the archive signed last, under the path of its directory in public/. It
is not part of public/: a file there may have been changed, and must not be signed again merely because it is there.

Before a publication is signed, its indexes must be complete and list what the state has; before any verb publishes
it, it must be as it was signed, and writable by no other user. `expire` also uses this module to find what is listed.
If a key is lost, another key signs only what is in DIR/signed: a thief may have signed more with the lost one.
"""

from __future__ import annotations

import calendar
import hashlib
import lzma
from dataclasses import dataclass
from email.utils import formatdate, parsedate
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.archive import lifecycle
from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.text import deb822

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

BACK: Final = 300
"""Seconds by which an index and its signature are dated back: apt 3 refuses a date 3 seconds ahead."""
LARGEST: Final = 2**28
"""Maximum bytes of an index; that of Debian's main has a fifth."""


@dataclass(frozen=True, slots=True)
class SignedRelease:
    """A release file: `text` as signed, dates in seconds since 1970, `indexes` name -> SHA-256 and size."""

    text: bytes
    fields: Mapping[str, str]
    date: int
    until: int
    indexes: Mapping[str, tuple[str, int]]

    @property
    def term(self) -> int:
        """Seconds for which its signature is valid."""
        return self.until - self.date


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: a path below the archive's public directory, and a sentence on what is wrong.

    `spare` is an intact file that can replace it.
    """

    path: Path
    sentence: str
    spare: Path | None = None


def release(text: bytes, what: object) -> SignedRelease:
    """Parse a release file; Error if it is not complete, with suite, codename, two dates and indexes."""
    try:
        (fields,) = deb822.canonical(text.decode("utf-8"))
        rows = [line.split() for line in fields["SHA256"].split("\n") if line]
        indexes = {name: (sha256, int(size)) for sha256, size, name in rows}
        known = {fields["Suite"], fields["Codename"]} and indexes
        date, until = (_seconds(fields[name]) for name in ("Date", "Valid-Until"))
    except (Error, KeyError, ValueError):
        raise Error(f"{what} is not a complete release file", "it was truncated or changed") from None
    if not known or until < date or not text.endswith(b"\n"):
        raise Error(f"{what} is not a complete release file", "it was truncated or changed")
    return SignedRelease(text, fields, date, until, indexes)


def dated(found: SignedRelease, date: int, term: int) -> bytes:
    """The text of a release file with another date, and a validity of `term` seconds from then."""
    new = {"Date": date, "Valid-Until": date + term}
    lines = found.text.decode().split("\n")
    heads = [line.partition(":")[0] for line in lines]
    for name, seconds in new.items():
        lines[heads.index(name)] = f"{name}: {_date(seconds)}"
    return "\n".join(lines).encode()


def signed_by(text: bytes, signers: str) -> bytes:
    """The text of a release file that names the keys of the next one.

    It is for an apt source without Signed-By; that of the keyring package has one.
    """
    lines = [line for line in text.decode().split("\n") if not line.startswith("Signed-By: ")]
    lines.insert(lines.index("SHA256:"), f"Signed-By: {signers}")
    return "\n".join(lines).encode()


def with_term(text: bytes, term: int) -> bytes:
    """The text of a release file with a Valid-Until, which is `term` seconds after its Date if it had none.

    A snapshot that an older version made has none, nor has a Release that reprepro writes without ValidFor.
    """
    lines = text.decode().split("\n")
    heads = [line.partition(":")[0] for line in lines]
    if "Valid-Until" not in heads and "Date" in heads:
        at = heads.index("Date")
        lines.insert(at + 1, f"Valid-Until: {_date(_seconds(lines[at].partition(':')[2]) + term)}")
    return "\n".join(lines).encode()


def signed_text(folder: Path, keyring: Path) -> tuple[bytes, list[Fault]]:
    """The text of a directory's InRelease if a key of the keyring signed it, and faults of its three files."""
    text, found = b"", []
    try:
        text = sign.verified(keyring, regular(folder / "InRelease")).content
    except (Error, FileNotFoundError):
        found.append(Fault(folder / "InRelease", "it is not signed by a key of the archive; publish"))
    file = folder / "Release"
    try:
        plain = regular(file).read_bytes()
        if text and _words(plain) != _words(text):
            found.append(Fault(file, "its text differs from that of InRelease; publish"))
        else:
            sign.verified(keyring, file, regular(folder / "Release.gpg"))
    except (Error, FileNotFoundError):
        found.append(Fault(folder / "Release.gpg", "it is not the archive's signature of Release; publish"))
    return text, found


def indexes(known: SignedRelease, folder: Path, *, byhash: bool) -> Iterator[Fault]:
    """Listed indexes that a directory lacks or has otherwise: by name, and by hash if `byhash` is true."""
    for name, (sha256, size) in known.indexes.items():
        hashed = folder / name.rpartition("/")[0] / "by-hash/SHA256" / sha256
        places = [folder / name, *((hashed,) if byhash else ())]
        good = [place for place in places if content(place, sha256, size) is not None]
        for place in places:
            if good and place not in good:
                yield Fault(place, "it was restored to what Release lists", good[0])
            elif not good and (place.exists() or place.is_symlink()):
                yield Fault(place, "it is not the index that Release lists; publish")
        # A listed variant may be absent (Packages beside Packages.xz).
        if not good and not (folder / name).exists() and not (folder / f"{name}.xz").exists():
            yield Fault(folder / name, "it is missing; publish")


def staged(known: SignedRelease, folder: Path, shown: Path) -> Iterator[Fault]:
    """Listed indexes that are neither intact in the directory to be published nor already published by hash."""
    for name, (sha256, size) in known.indexes.items():
        new, hashed = folder / name, shown / name.rpartition("/")[0] / "by-hash/SHA256" / sha256
        if new.exists() or new.is_symlink():
            if content(new, sha256, size) is None:
                yield Fault(new, "it is not the index that Release lists")
        elif ((shown / name).exists() or not any((place / f"{name}.xz").exists() for place in (folder, shown))) and (
            # What is not new is already published, under both names.
            content(hashed, sha256, size) is None or content(shown / name, sha256, size) is None
        ):
            yield Fault(new, "it is missing")


def content(file: Path, sha256: str, size: int) -> bytes | None:
    """The content of an index, if it is a regular file with this hash and size."""
    if file.is_symlink() or not file.is_file() or file.stat().st_size != size:
        return None
    data = file.read_bytes()
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def misnamed(folder: Path, listed: Collection[Path]) -> Iterator[Fault]:
    """By-hash files of a directory that have another hash; those in `listed` are checked elsewhere."""
    for file in sorted(folder.rglob("by-hash/SHA256/*")):
        if file in listed or file.name.startswith("."):
            continue
        if file.is_symlink() or not file.is_file():
            yield Fault(file, "it is not a regular file")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != file.name:
            yield Fault(file, "its content does not match its name; remove it")


def incomplete(
    known: SignedRelease, folder: Path, packages: Collection[tuple[str, str, str, str]]
) -> Iterator[Fault]:
    """Indexes to be signed that differ from the archive's state.

    `packages` are component, architecture, name and version of each package of the suite. If an index is there in
    several variants, all must have the same content.
    """
    there: set[tuple[str, str, str, str]] = set()
    kinds = [f"binary-{arch}/Packages" for arch in known.fields.get("Architectures", "").split()]
    for name in [f"{component}/{kind}" for component in known.fields.get("Components", "").split() for kind in kinds]:
        if not {name, f"{name}.xz"} & {*known.indexes}:
            yield Fault(folder / name, "Release does not list it")
    for name in known.indexes:
        if not (folder / name).exists():
            continue
        stem = name.removesuffix(".xz")
        if stem != name and (folder / stem).exists():
            if _unpacked(folder / name) != (folder / stem).read_bytes():
                yield Fault(folder / name, "it differs from the uncompressed file")
            continue
        component, _, rest = stem.partition("/")
        place, _, kind = rest.partition("/")
        if kind in ("Packages", "Sources"):
            data = _unpacked(folder / name) if stem != name else (folder / name).read_bytes()
            there |= {(component, place.removeprefix("binary-"), *found) for found in _named(data.decode())}
    for component, architecture, package, version in sorted(there ^ {*packages}):
        kind = "source/Sources" if architecture == "source" else f"binary-{architecture}/Packages"
        word = "does not list" if (component, architecture, package, version) in packages else "lists"
        yield Fault(folder / component / kind, f"it {word} {package} {version}, unlike the archive's state")


def terms(conf: str) -> dict[str, int]:
    """Suite -> seconds for which its signatures are valid, from ValidFor in conf/distributions."""
    return {
        names.word(stanza["Codename"], "suite"): lifecycle.valid_for(stanza.get("ValidFor", ""))
        for stanza in deb822.parse(conf)
    }


def remembered(text: str, now: int, *more: SignedRelease) -> dict[int, int]:
    """Term -> until when a signature with this term is valid, if it still is, from lines `TERM UNTIL`."""
    found: dict[int, int] = {}
    rows = [(int(term), int(until)) for term, until in (line.split() for line in text.splitlines())]
    for term, until in (*rows, *((one.term, one.until) for one in more)):
        if until >= now:
            found[term] = max(until, found.get(term, 0))
    # An entry is not needed if one with a longer term is valid for at least as long.
    return {t: u for t, u in found.items() if not any(t2 > t and u2 >= u for t2, u2 in found.items())}


def _named(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of each stanza of an index."""
    name = version = ""
    for line in (*text.split("\n"), ""):
        if line.startswith("Package: "):
            name = line[9:]
        elif line.startswith("Version: "):
            version = line[9:]
        elif not line and name:
            yield name, version
            name = version = ""


def _unpacked(file: Path) -> bytes:
    try:
        with lzma.open(file) as opened:
            return opened.read(LARGEST)
    except (lzma.LZMAError, EOFError):
        return b"damaged"


def regular(file: Path) -> Path:
    """The file itself; FileNotFoundError if it is not regular, such as a FIFO, which might block the reader."""
    if file.is_symlink() or not file.is_file():
        raise FileNotFoundError(file)
    return file


def _words(text: bytes) -> list[bytes]:
    """The lines of a text, without what a cleartext signature does not cover."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _seconds(date: str) -> int:
    parsed = parsedate(date)
    if parsed is None:
        raise ValueError(date)
    return calendar.timegm(parsed)


def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True).replace("GMT", "UTC")
