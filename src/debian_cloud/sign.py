# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPGP signatures, made and verified by gpg(1) and gpgv(1)."""

from __future__ import annotations

import base64
import binascii
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import run
from .errors import USAGE, Error

_ARMOUR: Final = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True, slots=True)
class Signed:
    """What a file says under a good signature, and who signed it: sorted fingerprints of primary keys."""

    content: bytes
    signers: tuple[str, ...]


def verified(keyring: Path, file: Path, signature: Path | None = None) -> Signed:
    """A file that a key of the keyring signed, clearly or in `signature`; Error when none did.

    Of a clear signature, only what it is about is the content (RFC 9580, 7).
    Keys that the keyring has not do not count; expired ones and their
    signatures neither (gpgv(1)). What is not there at all is a wrong call.
    """
    for path, what in ((keyring, "keyring"), (file, "signed file")):
        if not path.exists():
            raise Error(f"{what} {path}: No such file or directory", f"give a {what} that is there", USAGE)
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as name:
        folder = Path(name)
        keys, content = folder / "keys.gpg", folder / "content"
        keys.write_bytes(binary(keyring.read_bytes()))
        where = ("--output", str(content), *((str(signature),) if signature else ()))
        said = run.answer(("gpgv", "--homedir", name, "--status-fd", "1", "--keyring", str(keys), *where, str(file)))
        lines = [line.split()[1:] for line in said.splitlines() if line.startswith("[GNUPG:] ")]
        # VALIDSIG alone is said of expired keys, too; its last word is the primary key (gnupg, doc/DETAILS).
        found = {
            then[-1] for line, then in itertools.pairwise(lines) if (line[0], then[0]) == ("GOODSIG", "VALIDSIG")
        }
        if not found or any(line[0] == "BADSIG" for line in lines):
            raise Error(f"{file} has no good signature by a key of {keyring}", "it was changed, or another signed it")
        return Signed(file.read_bytes() if signature else content.read_bytes(), tuple(sorted(found)))


def clearly(file: Path, signed: Path, homedir: Path | None = None) -> None:
    """Sign a text with the first secret key of a GnuPG home, by default the user's (gpg(1), --clearsign)."""
    home = ("--homedir", str(homedir)) if homedir else ()
    run.output(("gpg", *home, "--batch", "--yes", "--quiet", "--output", str(signed), "--clearsign", str(file)))


def binary(keys: bytes) -> bytes:
    """Public keys without armour, as gpgv reads them (RFC 9580, 6.2)."""
    if not keys.startswith(_ARMOUR):
        return keys
    body = keys.partition(b"\n\n")[2].partition(b"-----END")[0]
    lines = [line for line in body.splitlines() if not line.startswith(b"=")]
    try:
        return base64.b64decode(b"".join(lines))
    except binascii.Error:
        raise Error("the keyring is damaged", "give the archive's public key file") from None
