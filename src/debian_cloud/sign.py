# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPGP signatures, made and verified by gpg(1) and gpgv(1)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import openpgp, run
from .errors import USAGE, Error

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARMOUR: Final = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_STRICT: Final = ("--status-fd", "1", "--weak-digest", "SHA1")
_VERDICTS: Final = {"NEWSIG", "GOODSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "ERRSIG", "BADSIG"}


@dataclass(frozen=True, slots=True)
class Signed:
    """What a file says under a good signature, and who signed it: sorted fingerprints of primary keys."""

    content: bytes
    signers: tuple[str, ...]


def verified(keyring: Path, file: Path, signature: Path | None = None, *, signers: int = 1) -> Signed:
    """A file that so many keys of the keyring signed, clearly or in `signature`; Error when fewer did, or one badly.

    Of a clear signature, only what it is about is the content (RFC 9580, 7).
    Keys count by their primary: two subkeys of one are one. Those that the
    keyring has not do not count; expired ones and their signatures neither
    (gpgv(1)). What is not there at all is a wrong call.
    """
    for path, what in ((keyring, "keyring"), (file, "signed file")):
        if not path.exists():
            raise Error(f"{what} {path}: No such file or directory", f"give a {what} that is there", USAGE)
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as name:
        folder = Path(name)
        keys, content = folder / "keys.gpg", folder / "content"
        keys.write_bytes(binary(keyring.read_bytes()))
        where = ("--output", str(content), *((str(signature),) if signature else ()))
        said = run.answer(("gpgv", "--homedir", name, *_STRICT, "--keyring", str(keys), *where, str(file)))
        found, bad = _signers(said)
        if not found or bad:
            raise Error(f"{file} has no good signature by a key of {keyring}", "it was changed, or another signed it")
        if len(found) < signers:
            raise Error(
                f"{file} is signed by {len(found)} of the keys in {keyring}, and {signers} are demanded",
                "more of its maintainers must sign it, or their keys be in the keyring",
            )
        return Signed(file.read_bytes() if signature else content.read_bytes(), tuple(sorted(found)))


def _signers(said: str) -> tuple[set[str], bool]:
    """The primaries of all good signatures, and whether one is bad, by what gpgv says (gnupg, doc/DETAILS)."""
    found, good, bad = set(), False, False
    for line in said.splitlines():
        words = line.split()[1:] if line.startswith("[GNUPG:] ") else [""]
        if words[0] in _VERDICTS:
            good = words[0] == "GOODSIG"
            bad |= words[0] == "BADSIG"
        elif words[0] == "VALIDSIG" and good:
            # Said of expired keys, too; its last word is the primary key.
            found.add(words[-1])
    return found, bad


def clearly(file: Path, signed: Path, homedir: Path | None = None, signers: Sequence[str] = ()) -> None:
    """Sign a text with keys of a GnuPG home: by default the user's, and the first one that is secret (gpg(1))."""
    home = ("--homedir", str(homedir)) if homedir else ()
    users = tuple(f"--local-user={signer}" for signer in signers)
    run.output(
        ("gpg", *home, *users, "--batch", "--yes", "--quiet", "--output", str(signed), "--clearsign", str(file))
    )


def binary(keys: bytes) -> bytes:
    """Public keys without armour, as gpgv reads them (RFC 9580, 6.2)."""
    if not keys.startswith(_ARMOUR):
        return keys
    try:
        return openpgp.unarmoured(keys)
    except Error:
        raise Error("the keyring is damaged", "give the archive's public key file") from None
