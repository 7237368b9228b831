# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of an archive, as conf/keys and gpg list them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Part:
    """A primary key or a subkey: its capabilities (gnupg, doc/DETAILS, field 12) and its expiry; None is never."""

    fingerprint: str
    capabilities: str
    expires: int | None

    @property
    def signs(self) -> bool:
        """Whether it may sign; a capital letter is a capability of the complete key."""
        return "s" in self.capabilities


@dataclass(frozen=True, slots=True)
class Listed:
    """A key with its subkeys, the primary key first, and its first user ID."""

    owner: str
    parts: tuple[Part, ...]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the primary key."""
        return self.parts[0].fingerprint

    @property
    def until(self) -> int | None:
        """When the last part that may sign expires, or the primary key if earlier; None is never, or if none may."""
        ends = [_NEVER if part.expires is None else part.expires for part in self.parts]
        signing = [min(ends[0], end) for end, part in zip(ends, self.parts, strict=True) if part.signs]
        last = max(signing, default=_NEVER)
        return None if last == _NEVER else int(last)


def states(text: str) -> dict[str, str]:
    """Fingerprint -> state, from lines of conf/keys."""
    # Not splitlines: an owner's name may have a line separator.
    rows = (line.split() for line in text.split("\n") if not line.startswith("#"))
    return {words[0].upper(): words[1] for words in rows if len(words) > 1}


def listed(text: str) -> tuple[Listed, ...]:
    """The keys that `gpg --with-colons --list-keys` prints."""
    found: list[Listed] = []
    owner, parts = "", list[Part]()

    def end() -> None:
        if parts:
            found.append(Listed(owner, tuple(parts)))

    kind = capabilities = expires = ""
    # Not splitlines, as above.
    for line in (line.split(":") for line in text.split("\n")):
        if line[0] == "pub":
            end()
            owner, parts = "", []
        if line[0] in ("pub", "sub"):
            kind, capabilities, expires = line[0], line[11], line[6]
        elif line[0] == "fpr" and kind:
            parts.append(Part(line[9], capabilities, int(expires) if expires else None))
            kind = ""
        elif line[0] == "uid" and not owner:
            # gpg writes a colon as \x3a.
            owner = line[9].replace("\\x3a", ":")
    end()
    return tuple(found)
