# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys that may sign for an archive, each ring in a file that apt's own user can read."""

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
    """The archive that the user has made known for a suite, if there is one."""
    found = own.archive(suite)
    if found is None:
        return None
    return replace(found.source, suites=(suite,), signed_by=str(copy_of(found.keys)))


def of_archive(keyring: Path | None, suite: str) -> tuple[Path, ...]:
    """The keys that may sign for the archive: those given, else the user's own archive's, and its keyring package's.

    They are of different archives: what is verified is verified by one of them.
    """
    if keyring:
        found = [copy(keyring)]
    else:
        mine = own_archive(suite) if suite else None
        found = [Path(mine.signed_by)] if mine else []
        found += [package] if (package := Path(names.ARCHIVE_KEYRING)).exists() else []
    if not found:
        raise Error(
            "the archive's key is not known",
            f"install its {names.KEYRING_PACKAGE} package, or give --keyring FILE",
            USAGE,
        )
    return (*found,)


def copy(file: Path) -> Path:
    """A copy of a keyring under the name of its content.

    apt's own user must be able to read it, and may not look into the folder
    that it is given in; and a plan that names it means these very keys.
    """
    return copy_of(files.read(file, what="keyring"))


def copy_of(content: bytes) -> Path:
    """The same of the keys themselves, armoured or binary."""
    # apt tells armoured keys from binary ones by the name (sources.list(5), Signed-By).
    extension = "asc" if content.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----") else "gpg"
    kept = cache.directory() / cache.KEYRINGS / f"{hashlib.sha256(content).hexdigest()}.{extension}"
    try:
        os.utime(kept)
    except FileNotFoundError:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.chmod(0o644)
        partial.rename(kept)
    return kept
