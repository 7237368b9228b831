# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys that may sign for an archive, each keyring in a file that apt's sandbox user can read."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files
from debian_cloud.packages import cache, own

if TYPE_CHECKING:
    from debian_cloud.image.sources import Source


def own_archive(suite: str) -> Source | None:
    """Return the archive that the user configured for a suite, or None."""
    found = own.archive(suite)
    if found is None:
        return None
    return replace(found.source, suites=(suite,), signed_by=str(copy_of(found.keys)))


def of_archive(keyring: Path | None, suite: str) -> tuple[Path, ...]:
    """Return the archive's keyrings: the given one, else those of the user's own archive and the keyring package.

    They belong to different archives: a file is verified by one of them.
    """
    if keyring:
        found = [copy(keyring)]
    else:
        mine = own_archive(suite) if suite else None
        found = [Path(mine.signed_by)] if mine else []
        found += [package] if (package := Path(names.ARCHIVE_KEYRING)).exists() else []
    if not found:
        raise Error(
            "the archive's key is unknown",
            f"install its {names.KEYRING_PACKAGE} package, or give --keyring FILE",
            USAGE,
        )
    return (*found,)


def copy(file: Path) -> Path:
    """Copy a keyring to a file named after its content, and return the copy.

    apt's sandbox user must be able to read it, and may have no access to the directory of the original; and a plan
    that names the copy refers to exactly these keys.
    """
    return copy_of(files.read(file, what="keyring"))


def problem(path: Path) -> str:
    """Return what is wrong with the content of a copy, or an empty string."""
    if path.suffix not in (".asc", ".gpg") or not path.stem:
        return "its name is not that of a keyring"
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == path.stem
    return "" if same else "its content is not what its name says"


def copy_of(content: bytes) -> Path:
    """Write keys, armoured or binary, to a file named after their content, and return it."""
    # apt distinguishes armoured from binary keys by the file name (sources.list(5), Signed-By).
    extension = "asc" if content.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----") else "gpg"
    kept = cache.directory() / cache.KEYRINGS / f"{hashlib.sha256(content).hexdigest()}.{extension}"
    try:
        os.utime(kept)
    except FileNotFoundError:
        kept.parent.mkdir(mode=0o755, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.chmod(0o644)
        partial.rename(kept)
    return kept
