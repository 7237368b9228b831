# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a .buildinfo beside an image, read it, and verify its signature.

This module does not import apt: a .buildinfo can be read without it.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, files, sign
from debian_cloud.image.buildinfo import Buildinfo
from debian_cloud.text import openpgp

if TYPE_CHECKING:
    from pathlib import Path

_DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Described:
    """A .buildinfo: its name, bytes and content, the fingerprints of its signers, and the archive's keyring."""

    name: str
    data: bytes
    buildinfo: Buildinfo
    signers: tuple[str, ...]
    keyring: Path


def verified(file: Path, keyring: Path, signed_by: Path | None = None, *, unsigned: bool = False) -> Described:
    """Return a .buildinfo that a key of `signed_by` signed, or of `keyring`: the file, or the sums beside it.

    Raise Error if there is no such signature, unless `unsigned` is set. Only the signed part of the file is read.
    """
    data = files.read(file)
    signers: tuple[str, ...] = ()
    sums = file.parent / "SHA512SUMS"
    if unsigned:
        if signed_by:
            raise Error("--unsigned and --signed-by contradict each other", "give one of them", USAGE)
        text = sign.decoded(data, str(file))
    elif signed_by or (openpgp.is_cleartext(data) and not sums.exists()):
        try:
            signed = sign.verified(signed_by or keyring, file)
        except Error as error:
            if signed_by or error.status == USAGE:
                raise
            raise Error(
                f"{file} is signed, but by an unknown key",
                "give its builder's keys with --signed-by FILE,"
                " or put the archive's SHA512SUMS and SHA512SUMS.gpg beside it",
            ) from None
        if openpgp.inner(data) != signed.content:
            raise Error(f"{file} was changed while it was read", "verify a copy that no other process writes to")
        text, signers = signed.content.decode("utf-8", "replace"), signed.signers
    elif sums.exists():
        # The archive signed the sums of the files that it published.
        listed = sign.verified(keyring, sums, sums.with_name("SHA512SUMS.gpg"))
        if hashlib.sha512(data).hexdigest() != checksums.find(listed.content.decode("ascii", "replace"), file.name):
            raise Error(f"{file} is not the file that the archive signed", "it was changed: get it again")
        text, signers = sign.decoded(data, str(file)), listed.signers
    else:
        raise Error(
            f"{file} is not signed, so it proves nothing: the author of the image may have written it",
            "put the archive's SHA512SUMS and SHA512SUMS.gpg beside it; or give --unsigned, if it is your own",
        )
    return Described(file.name, data, read(text, str(file)), signers, keyring)


def read(text: str, name: str) -> Buildinfo:
    """Parse the text of a .buildinfo; raise Error if its date is in the future. `name` is the file's name."""
    buildinfo = Buildinfo.parse(text, name)
    if buildinfo.epoch > time.time() + _DAY:
        raise Error(f"{name} has a date in the future", "is this machine's clock right?")
    return buildinfo


def of(path: Path) -> Buildinfo:
    """Read a .buildinfo without verifying it: callers that have not verified it must not take it as facts."""
    return read(sign.text(path), str(path))


def beside(file: Path) -> Path:
    """Return the .buildinfo of an image's file: itself or the one beside it; raise Error if there is none."""
    if file.suffix == ".buildinfo" or not file.exists():
        return file
    found = [path for path in file.parent.glob("*.buildinfo") if file.name.startswith(f"{path.stem}.")]
    if len(found) != 1:
        raise Error(
            f"{file} has no .buildinfo beside it",
            "give the image's .buildinfo, or put both into one directory",
            USAGE,
        )
    return found[0]
