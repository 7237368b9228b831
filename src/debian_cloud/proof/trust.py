# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose signatures on an image are trusted, and what they prove: its .buildinfo, and that others rebuilt it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import sign
from debian_cloud.packages import described, evidence, keyrings
from debian_cloud.projections import provenance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debian_cloud.image.sources import Source
    from debian_cloud.packages.described import Described

_STATEMENTS: Final = 1000
"""Most statements about one image that are read."""


@dataclass(frozen=True, slots=True)
class Rebuilders:
    """How many rebuilders must state that they got the same bytes, their keys, and the directory of statements."""

    number: int
    keys: Path | None = None
    statements: Path | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures on an image are trusted.

    `keyring` has the keys of the archive; if it is not given, they are those of the user's own archive, and of the
    keyring package. `debian` has those of Debian, `others` those of sources that the user added, each for its own
    packages. `signers` is how many keys of the archive must have signed its indexes.

    `signed_by` has the keys of others that may have signed the .buildinfo; with `unsigned`, it need not be signed.
    Its image may also take Debian from `mirrors`, and, with `expired`, accept indexes past their Valid-Until.
    """

    keyring: Path | None = None
    debian: Path = Path(names.DEBIAN_KEYRING)
    others: tuple[Source, ...] = ()
    signers: int = 1
    signed_by: Path | None = None
    unsigned: bool = False
    mirrors: tuple[str, ...] = ()
    expired: bool = False
    rebuilders: Rebuilders | None = None

    @property
    def said(self) -> bool:
        """Whether the user chose who may sign the .buildinfo; if not, the user's own archive also may."""
        return bool(self.unsigned or self.signed_by or self.keyring)


def believed(file: Path, trust: Trust) -> Described:
    """Return a .buildinfo after verifying its signature, and that its image's apt has only Debian's sources.

    If several archives are known, its keyring is that of the image's archive.
    """
    found = _described(file, trust, keyrings.of_archive(trust.keyring, _suite(file)))
    evidence.refuse_sources(found.buildinfo, trust.mirrors, expired=trust.expired)
    return found


def _suite(file: Path) -> str:
    """Return the suite that an unverified .buildinfo names, only to choose the keyrings; "" if it cannot be read.

    The verification then reports why.
    """
    try:
        return described.of(file).id.suite
    except Error:
        return ""


def _described(file: Path, trust: Trust, rings: tuple[Path, ...]) -> Described:
    failed: Error | None = None
    for ring in rings:
        try:
            return described.verified(file, ring, trust.signed_by, unsigned=trust.unsigned)
        except Error as error:
            failed = failed or error
    assert failed
    raise failed


def rebuilders(demanded: Rebuilders, wanted: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """Return the fingerprints of those who rebuilt the same image; raise Error if they are fewer than demanded.

    `wanted` are its files, any of which counts: name, and algorithm and digest.
    """
    keys, statements = demanded.keys, demanded.statements
    if not (keys and keys.is_file() and statements and statements.is_dir()):
        raise Error(
            "--rebuilders needs --rebuilder-keys FILE and --statements DIR",
            "give the keys of the rebuilders, and the directory of their statements",
            USAGE,
        )
    found: set[str] = set()
    unheard = []
    files = sorted(itertools.islice(statements.glob("*.asc"), _STATEMENTS + 1))
    if len(files) > _STATEMENTS:
        raise Error(
            f"{statements} has more than {_STATEMENTS} statements", "give a directory with fewer statements", USAGE
        )
    for file in files:
        try:
            signed = sign.verified(keys, file)
            statement = provenance.parse(signed.content.decode("utf-8", "replace"), file.name)
        except Error as error:
            unheard.append(error.message)
            continue
        same = (statement.subjects.get(name, {}).get(how) == digest for name, (how, digest) in wanted.items())
        if statement.kind == provenance.REBUILT and any(same):
            # A rebuilder with two keys counts twice only if both are trusted; two signatures by one key count once.
            found |= {*signed.signers}
        else:
            unheard.append(f"{file.name} describes other bytes")
    if len(found) < demanded.number:
        raise Error(
            f"only {len(found)} of {demanded.number} rebuilders state that they got the same bytes",
            "; ".join(unheard) or f"{statements} has no other statement",
        )
    return tuple(sorted(found))
