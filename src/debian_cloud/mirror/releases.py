# SPDX-License-Identifier: GPL-3.0-or-later
"""The signed release files of a source, verified before anything in them is believed."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import files, sign
from debian_cloud.mirror import LocalError, contradicted, faulty, listed, refused
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debian_cloud.mirror.listed import Listed

_LARGEST_KEYRING: Final = 2**24
_FAST: Final = 600
"""Seconds by which the clock of an archive may be ahead."""
_LONGEST_DATE: Final = 64
_LONGEST: Final = 100


@dataclass(frozen=True, slots=True)
class Release:
    """The verified release file of a suite: its dates in seconds since 1970, and its indexes by name.

    `sha256` is that of the whole InRelease.
    """

    suite: str
    sha256: str
    content: bytes
    date: int
    until: int
    indexes: Mapping[str, Listed]


def keyring(path: Path) -> bytes:
    """The content of a keyring; Error if it has no keys, or if the tool that uses it is missing."""
    sign.refuse_missing()
    content = files.read(path, _LARGEST_KEYRING, what="keyring")
    sign.binary(content)
    return content


def verified(tree: Path, suite: str, keyring: Path, source: str, signers: int) -> Release:
    """Verify the InRelease of a suite in a directory, as it was fetched from `source`.

    Error if fewer than `signers` keys of the keyring have signed it, if it is not the suite's, as a snapshot is not,
    if it has expired, would never expire, or is dated in the future.
    """
    name = f"dists/{suite}/InRelease"
    signed = _signed(tree / name, keyring, f"{name} at {source}")
    if len(signed.signers) < signers:
        raise refused(
            f"{name} at {source} is signed by {len(signed.signers)} of the keys in {keyring}, and {signers} are "
            "required",
            "wait until its maintainers have signed it",
        )
    said = fields(signed.content)
    title, date, until = (" ".join(said.get(field, [""])[:1]) for field in ("suite", "date", "valid-until"))
    if suite not in (title, *said.get("codename", [""])):
        raise refused(
            f"{name} is the index of suite {printable(repr(title), _LONGEST)}",
            "it is in the wrong place at the source: use another source",
        )
    # A snapshot is only for requests by its id. Each index of a suite has an expiry date; without one, an old index
    # would be accepted for ever.
    if "snapshot" in said:
        raise refused(
            f"{name} has a good signature, but is the archive's snapshot {printable(said['snapshot'][0], _LONGEST)}, "
            "not the suite",
            "the source replays an old state: use another source",
        )
    if not until:
        raise refused(
            f"{name} has no Valid-Until: it would never expire",
            "the source replays an old state, or serves something that is not a suite: use another source",
        )
    dated, ends, now = _seconds(date, name), _seconds(until, name), time.time()
    if dated > now + _FAST:
        raise refused(f"{name} is dated in the future: {date}", "set the clock of this machine")
    if ends < now:
        raise refused(
            f"{name} expired: it was valid until {until}", "the source is not updated any more: use another source"
        )
    return Release(
        suite, signed.sha256, signed.content, dated, ends, listed.release(said.get("sha256", [])[1:], suite)
    )


def refuse_older(found: Release, shown: Path) -> None:
    """Raise Error if a release file is older than the one that a mirror shows, if it shows one."""
    name = f"dists/{found.suite}/InRelease"
    try:
        text = shown.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    # It was verified when it was shown, and only its date is compared.
    before = " ".join(fields(text).get("date", [""])[:1])
    try:
        seconds = _seconds(before, name)
    except Error:
        raise LocalError(
            f"{shown} is damaged",
            "remove it, and run again: the mirror then shows what the source has, whatever its age",
        ) from None
    if found.date < seconds:
        raise refused(
            f"{name} of {dated(found)} is older than that of this mirror, of {before}",
            "the source is behind or replays an old state: use another source",
        )


def refuse_other(found: Release, tree: Path, keyring: Path) -> None:
    """Raise Error if Release was fetched, but not with the text of InRelease and a good signature in Release.gpg."""
    folder = tree / "dists" / found.suite
    release, signature = folder / "Release", folder / "Release.gpg"
    if not release.exists():
        return
    with contextlib.suppress(Error, FileNotFoundError):
        beside = sign.verified(keyring, release, signature).content
        # A clear signature ignores blanks at the ends of lines.
        if _words(beside) == _words(found.content):
            return
    raise contradicted(f"dists/{found.suite}/Release and Release.gpg do not agree with dists/{found.suite}/InRelease")


def of_closure(file: Path, path: str, keyring: Path, source: str) -> tuple[Mapping[str, list[str]], Listed]:
    """The fields of a release file in a closure, and the file; Error if no key of the keyring has signed it."""
    signed = _signed(file, keyring, f"{path} at {source}")
    return fields(signed.content), listed.Listed(path, signed.sha256, signed.size)


def fields(content: bytes) -> dict[str, list[str]]:
    """The lines of each field of a release file, the first without the name; names are in lower case."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in content.decode("utf-8", "replace").split("\n"):
        if line[:1] in (" ", "\t"):
            lines.append(line.strip())
        elif ":" in line:
            name, _, value = line.partition(":")
            # Of a field that is there twice, the first counts.
            lines = []
            found.setdefault(name.lower(), lines)
            lines.append(value.strip())
    return found


def _signed(file: Path, keyring: Path, what: str) -> sign.Signed:
    try:
        return sign.verified(keyring, file)
    except Error:
        raise refused(
            f"{what} is not signed by a key in {keyring}", "if the archive has a new key, install its new keyring"
        ) from None


def _seconds(date: str, name: str) -> int:
    parsed = parsedate_tz(date[:_LONGEST_DATE])
    with contextlib.suppress(ValueError, OverflowError):
        if parsed:
            # Without a zone, it is UTC.
            return mktime_tz((*parsed[:9], parsed[9] or 0))
    raise faulty(f"{name} has an invalid date: {printable(repr(date), _LONGEST)}")


def _words(content: bytes) -> list[bytes]:
    return [line for line in re.sub(rb"[ \t\r]+$", b"", content, flags=re.MULTILINE).split(b"\n") if line]


def dated(found: Release) -> str:
    """The date of a release file, for a message."""
    return time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(found.date))
