# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPGP signatures, made and verified by gpg(1) and gpgv(1)."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files, run
from debian_cloud.text import openpgp

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARMOUR: Final = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_STRICT: Final = ("--status-fd", "1", "--weak-digest", "SHA1")
_VERDICTS: Final = {"NEWSIG", "GOODSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "ERRSIG", "BADSIG"}
_FINGERPRINT: Final = re.compile("[0-9A-F]{40,64}")


@dataclass(frozen=True, slots=True)
class Signed:
    """The content of a file with a good signature, and its signers: sorted fingerprints of primary keys.

    `size` in bytes and `sha256` are those of the whole file, a clear signature included.
    """

    content: bytes
    signers: tuple[str, ...]
    size: int
    sha256: str


def refuse_missing() -> None:
    """Raise Error if the tool that verifies signatures is not installed."""
    run.need("gpgv")


def verified(keyring: Path, file: Path, signature: Path | None = None, *, signers: int = 1) -> Signed:
    """Verify a file that at least `signers` keys of a keyring have signed, clearly or in `signature`.

    Error if fewer did, or a signature is bad. Each file is read once, and what was verified is returned. A
    clear-signed text must be the only content of its file (`openpgp.cleartext`), and only the signed text is returned
    (RFC 9580, 7); gpgv(1) must read the same. Keys are counted by their primary key: two subkeys of one count once.
    Keys that are not in the keyring do not count; nor do expired keys and expired signatures (gpgv(1)). A missing
    file is wrong use.
    """
    keys, data = binary(files.read(keyring, what="keyring")), files.read(file, what="signed file")
    beside = files.read(signature, what="signature") if signature else b""
    none = f"{file} has no valid signature by a key of {keyring}"
    try:
        if signature:
            said, theirs = _gpgv(keys, b"".join(openpgp.signatures(beside)), data)
        else:
            own = openpgp.cleartext(data).content + b"\n"
            said, theirs = _gpgv(keys, data)
    except Error as error:
        raise Error(none, f"{error.message}; {error.hint}") from None
    found, bad = _signers(said)
    if not found or bad:
        raise Error(none, "it was changed, or another key signed it: get it again")
    if not signature and theirs != own:
        raise Error(none, "gpgv finds another text in it: get it again as it was signed")
    if len(found) < signers:
        raise Error(
            f"{file} is signed by {len(found)} of the keys in {keyring}, but {signers} are required",
            "ask more of its maintainers to sign it, or add their keys to the keyring",
        )
    return Signed(data if signature else own, tuple(sorted(found)), len(data), hashlib.sha256(data).hexdigest())


def text(file: Path) -> str:
    """The text of a file that may be clear-signed, by any key: no signature is verified.

    Error if there is anything around the signed text, so that it is not taken for signed.
    """
    return decoded(files.read(file), str(file))


def decoded(data: bytes, name: str) -> str:
    """The same for data that was already read from a file of this name."""
    try:
        data.decode("utf-8")
        return openpgp.inner(data).decode("utf-8")
    except UnicodeDecodeError:
        raise Error(f"{name} is not UTF-8 text", "convert it to UTF-8 (Debian Policy 5.1)", USAGE) from None
    except Error as error:
        raise Error(f"{name} is neither plain nor signed text: {error.message}", error.hint, USAGE) from None


def _gpgv(keys: bytes, signed: bytes, data: bytes | None = None) -> tuple[str, bytes]:
    """The status output of gpgv for a clear-signed text, or for a signature of data, and the text that it finds."""
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as name:
        folder = Path(name)
        (folder / "keys.gpg").write_bytes(keys)
        (folder / "signed").write_bytes(signed)
        files = [str(folder / "signed")]
        if data is not None:
            (folder / "data").write_bytes(data)
            files.append(str(folder / "data"))
        where = ("--homedir", name, *_STRICT, "--keyring", str(folder / "keys.gpg"))
        said = run.answer(("gpgv", *where, "--output", str(folder / "found"), *files))
        found = folder / "found"
        return said, found.read_bytes() if found.exists() else b""


def _signers(said: str) -> tuple[set[str], bool]:
    """The primary keys of all good signatures, and whether one is bad, from gpgv's output (gnupg, doc/DETAILS)."""
    found, good, bad = set(), False, False
    # Not splitlines(): the name of a key's owner may have a line separator.
    for line in said.split("\n"):
        words = line.split(" ")[1:] if line.startswith("[GNUPG:] ") else [""]
        if words[0] in _VERDICTS:
            good = words[0] == "GOODSIG"
            bad |= words[0] == "BADSIG"
        elif words[0] == "VALIDSIG" and good and _FINGERPRINT.fullmatch(words[-1]):
            # Also printed for expired keys; its last word is the primary key.
            found.add(words[-1])
    return found, bad


def clearly(file: Path, signed: Path, homedir: Path | None = None, signers: Sequence[str] = ()) -> None:
    """Clear-sign a text with keys of a GnuPG home: by default the user's home and its first secret key (gpg(1))."""
    home = ("--homedir", str(homedir)) if homedir else ()
    users = tuple(f"--local-user={signer}" for signer in signers)
    run.output(
        ("gpg", *home, *users, "--batch", "--yes", "--quiet", "--output", str(signed), "--clearsign", str(file))
    )


def binary(keys: bytes) -> bytes:
    """Public keys without armour, as gpgv reads them (RFC 9580, 6.2)."""
    # The first octet of a packet has its highest bit set (RFC 9580, 4.2); before an armour there may be other text.
    if keys[:1] >= b"\x80":
        return keys
    begin = keys.find(_ARMOUR)
    try:
        found = openpgp.unarmoured(keys[begin:]) if begin >= 0 else b""
    except Error:
        found = b""
    if not found:
        raise Error("the keyring is damaged", "give a file with the public keys")
    return found
