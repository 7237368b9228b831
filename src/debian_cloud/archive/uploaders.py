# SPDX-License-Identifier: GPL-3.0-or-later
"""The uploader who signed an upload, or why there is not one good signature of an uploader.

This is checked before reprepro reads the upload: of an expired key, reprepro reports only that no rule accepts it.
The key must be valid today; only its owner knows whether the date in a signature is true.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_AGAIN: Final = "sign it with another key (debsign -k KEY FILE.changes), and upload it again"
_CHANGED: Final = "sign it as it is now, and upload it again"
_WEAK_DIGESTS: Final = ("1", "2", "3")
"""MD5, SHA-1 and RIPEMD-160 (RFC 4880, 9.4)."""
_NO_KEY: Final = "9"
"""gpg's reason code for a missing key (GnuPG, doc/DETAILS)."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key or subkey that signs: `owner` is its primary key, `weak` is less than 2048 bits."""

    owner: str
    weak: bool
    name: str

    def __str__(self) -> str:
        return f"{self.owner} {printable(self.name)}"


class NotSignedError(Error):
    """An upload without one good signature of an uploader; `key` is the key that it names, if known."""

    def __init__(self, message: str, hint: str, key: Key | None = None) -> None:
        super().__init__(message, hint)
        self.key = key


def keys(text: str) -> dict[str, Key]:
    """Fingerprint -> key, from the lines "SIGNER OWNER STATE NAME" that the archive's step `signing` writes."""
    found = {}
    # Not splitlines: a name may have a line separator in it.
    for line in filter(None, text.split("\n")):
        signer, owner, state, name = f"{line} ".split(" ", 3)
        found[signer] = Key(owner, state == "weak", name.strip())
    return found


def signer(home: Path, file: Path, known: Mapping[str, Key], allowed: frozenset[str]) -> Key:
    """The key that signed a file in cleartext, by gpg(1); NotSignedError unless one valid key signed it once.

    Rights to single packages are not checked here: `allowed` are the primary keys of all who may upload anything.
    """
    argv = (
        "gpg",
        "--homedir",
        str(home),
        "--no-autostart",
        "--batch",
        "--status-fd",
        "1",
        "--verify",
        "--",
        str(file),
    )
    lines = [line.split() for line in run.answer(argv).split("\n") if re.match(r"\[GNUPG:\] [A-Z]", line)]
    said: dict[str, list[str]] = {}
    for words in lines:
        said.setdefault(words[1], words[2:])
    count = sum(words[1] == "NEWSIG" for words in lines)
    if count == 0:
        raise NotSignedError(
            "it is not signed by an uploader: it has no signature",
            "run debsign -k KEY FILE.changes, and upload it again",
        )
    if count > 1:
        raise NotSignedError(f"the upload is signed by {count} keys", "sign it with the key of one uploader")
    by = (said.get("VALIDSIG") or ["none"])[0]
    if "VALIDSIG" not in said and len(said.get("ERRSIG", ())) > 6:
        by = said["ERRSIG"][6]
    key = known.get(by)

    if "ERRSIG" in said:
        _, _, digest, _, _, reason, *_ = [*said["ERRSIG"], *[""] * 6]
        if reason == _NO_KEY:
            raise NotSignedError(
                f"it is not signed by an uploader: the key {(said.get('NO_PUBKEY') or [by])[0]} is unknown",
                "the archive's operator must add it: debian-cloud-archive add-uploader DIR KEYFILE",
                key,
            )
        if digest in _WEAK_DIGESTS:
            raise NotSignedError(
                "its signature uses a weak digest (MD5, SHA-1 or RIPEMD-160)",
                "remove digest-algo from your gpg.conf, sign it again, and upload it again",
                key,
            )
        raise NotSignedError("its signature cannot be verified", _AGAIN, key)
    if "BADSIG" in said:
        raise NotSignedError("it was changed after it was signed", _CHANGED, key)
    if "REVKEYSIG" in said:
        raise NotSignedError(f"it is signed by a revoked key, {by}", _AGAIN, key)
    if "EXPKEYSIG" in said:
        raise NotSignedError(
            f"it is signed by a key that expired on {_day(said.get('KEYEXPIRED', []))}, {by}",
            f"run gpg --quick-set-expire {key.owner if key else by} 1y, and have the archive's operator add"
            " the output of gpg --export",
            key,
        )
    if "EXPSIG" in said:
        raise NotSignedError("its signature has expired", "sign it again, and upload it again", key)
    if key is None or sum(words[1] == "GOODSIG" for words in lines) != 1 or "VALIDSIG" not in said:
        raise NotSignedError("the signature does not cover all of it", _CHANGED, key)
    if key.weak:
        raise NotSignedError(f"it is signed by a weak key, {by}, with less than 2048 bits", _AGAIN, key)
    if key.owner not in allowed:
        raise NotSignedError(
            f"it is not signed by an uploader: {key.owner} may no longer upload",
            "conf/uploaders has no line for it",
            key,
        )
    return key


def _day(words: list[str]) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(int(words[0])))
    except (IndexError, ValueError, OverflowError):
        return "an unknown day"
