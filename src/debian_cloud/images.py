# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that this machine's apt knows of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import index, names, openpgp, run, sign, sources, staleness
from .errors import USAGE, Error

_HELPER = "/usr/lib/apt/apt-helper"


@dataclass(frozen=True, slots=True)
class Image:
    """One record of the signed index, and the archive that it is from."""

    record: index.ImageRecord
    archive: str

    @property
    def url(self) -> str:
        """Where its file is; `copy:` for a folder, as apt's `file:` gives no file but a link to one."""
        archive = f"copy:{self.archive[5:]}" if self.archive.startswith("file:") else self.archive
        return f"{archive.rstrip('/')}/{self.record.filename}"


def known(suite: str, arch: str = "") -> tuple[Image, ...]:
    """The images of a suite (and an architecture) in the indexes that `apt update` verified, oldest first."""
    found: list[Image] = []
    targets = sources.verified_images(sources.targets(run.output(sources.INDEXTARGETS)))
    if not targets:
        raise Error(
            "this machine's apt has no index of images",
            "install the archive's debian-cloud-archive-keyring package, then run `apt-get update`",
        )
    for target in targets:
        _refuse_replayed(target)
        # cat-file, since apt may keep indexes compressed (Acquire::GzipIndexes).
        found.extend(
            Image(record, target.uri)
            for record in index.parse(run.output((_HELPER, "cat-file", target.filename)))
            if record.suite == names.word(suite, "suite") and arch in ("", record.architecture)
        )
    return tuple(
        sorted(found, key=lambda i: (i.record.config, i.record.architecture, names.serial_key(i.record.serial)))
    )


def statuses() -> tuple[staleness.ImageStatus, ...]:
    """What the archives of this machine say became of their images, in the indexes that `apt update` verified."""
    known = [
        target
        for target in sources.targets(run.output(sources.INDEXTARGETS))
        if (target.created_by, target.trusted) == ("Images-Status", "yes")
    ]
    if not known:
        raise Error(
            "this machine's apt knows no archive that says what became of its images",
            "install the archive's debian-cloud-archive-keyring package, then run `apt-get update`",
            USAGE,
        )
    for target in known:
        _refuse_replayed(target)
    return tuple(
        status for found in known for status in staleness.parse(run.output((_HELPER, "cat-file", found.filename)))
    )


def _refuse_replayed(target: sources.Target) -> None:
    """Error when apt took a snapshot in the place of the suite: it does not tell one from the other.

    Of an archive with another keyring than that of its package nothing is asked.
    """
    # …_dists_SUITE_COMPONENT_images_Images
    release = Path(f"{target.filename.rsplit('_', 3)[0]}_InRelease")
    try:
        text = sign.verified(Path(names.ARCHIVE_KEYRING), release).content
    except Error:
        return
    found = openpgp.field(text, "Snapshot")
    if found and names.snapshot_at(target.uri) != found:
        raise Error(
            f"{target.uri} shows, rightly signed, its snapshot {found} in the place of {target.codename}",
            "it keeps an old state before you: use another mirror, and run `apt-get update`",
        )


def fetch(image: Image, out: str) -> None:
    """Fetch an image by apt's own helper, which proves its SHA-512; Error when it is not to be had."""
    status = run.foreground((_HELPER, "download-file", image.url, out, f"SHA512:{image.record.sha512}"))
    if status:
        raise Error(
            f"{image.record.name} could not be fetched, or is not what the signed index says",
            "apt's words are above; `apt-get update` first, if the archive has changed",
        )
