# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of uploaders, besides those that all tests share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.archive.conftest import Key

NO_QUESTIONS = ("--passphrase", "", "--pinentry-mode", "loopback")


def key_of(short_path: Path, name: str, *generate: str) -> Key:
    """Make a new key; `generate` are the options of gpg --quick-generate-key after the name."""
    home = short_path / name
    home.mkdir(mode=0o700)
    key = Key(home, short_path / f"{name}.asc", "")
    options = [word for word in generate if word.startswith("--") or word.endswith("T000000")]
    rest = [word for word in generate if word not in options]
    key.gpg(*NO_QUESTIONS, *options, "--quick-generate-key", f"{name} <{name}@example.org>", *rest)
    return exported(key)


def exported(key: Key) -> Key:
    """Export the public part of the key again, as it is now."""
    key.gpg("--armor", "--export", "--output", key.public)
    listing = key.gpg("--with-colons", "--list-keys")
    return replace(key, fingerprint=next(line.split(":")[9] for line in listing.splitlines() if line[:4] == "fpr:"))
