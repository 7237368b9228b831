# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebuilders' statements on an image, entered into the state of an archive."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import lifecycle, state
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, sign
from debian_cloud.image import index
from debian_cloud.projections import provenance

if TYPE_CHECKING:
    from pathlib import Path

    from debian_cloud.image.id import ImageId
    from debian_cloud.image.index import ImageRecord


def enter(archive: Path, following: Path, file: Path, keyring: Path) -> str:
    """Enter a rebuilder's signed statement into the next state, and return its path below the public directory.

    Error unless one key of the keyring signed it, it is about the same bytes of a published image, and that key has
    no statement on the image yet.
    """
    if not file.is_file():
        raise Error(f"there is no file {file}", "`debian-cloud rebuild --statement` writes one", USAGE)
    signed = sign.verified(keyring, file)
    if len(signed.signers) != 1:
        raise Error(f"{file} is signed by {len(signed.signers)} rebuilders", "each must sign a statement of its own")
    said = provenance.parse(signed.content.decode("utf-8", "replace"), file.name)
    if said.kind != provenance.REBUILT:
        raise Error(
            f"{file} states that an image was built, not that it was rebuilt",
            "`debian-cloud rebuild --statement` writes a statement",
        )
    image, records = _image(archive, following, said, file)
    name = f"{signed.signers[0].lower()}.asc"
    if any(known.suffix == name for record in records for known in record.rebuilds if record.id == image):
        raise Error(f"{signed.signers[0]} already has a statement on {image.path()}", "a statement is never replaced")
    digest = checksums.digest(file, ("sha256",))
    entry = index.Attestation(name, digest.size, digest.hashes["sha256"])
    records = tuple(
        replace(record, rebuilds=(*sorted((*record.rebuilds, entry), key=lambda found: found.suffix),))
        if record.id == image
        else record
        for record in records
    )
    state.enter(following, image.suite, records)
    return f"{image.path(names.REBUILDS)}/{name}"


def _image(
    archive: Path, following: Path, said: provenance.Statement, file: Path
) -> tuple[ImageId, tuple[ImageRecord, ...]]:
    """The image that a statement is about, and all records of its suite."""
    for suite in state.suites(following):
        records = state.records(following, suite)
        shown = {r.id for r in lifecycle.published(records, state.held(archive, suite, records))}
        about = [record for record in records if record.name in said.subjects]
        if not about:
            continue
        image = about[0].id
        if image not in shown:
            raise Error(
                f"{image.path()} is {about[0].status or 'not published yet'}",
                "statements are accepted for published images only",
            )
        for record in records:
            if record.id == image and (said.subjects.get(record.name, {}).get("sha256") != record.sha256):
                raise Error(
                    f"{file} describes other bytes than {record.name} has",
                    "if you got other bytes, report it to the archive's operator",
                )
        return image, records
    raise Error(f"{file} describes no image of the archive", f"it names {', '.join(sorted(said.subjects)[:3])}")
