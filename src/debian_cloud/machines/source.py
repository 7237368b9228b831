# SPDX-License-Identifier: GPL-3.0-or-later
"""Which image an instance is started from: one of a signed index, or a file that was fetched or built before.

A file is the image that its .buildinfo describes, and that must be signed, or the user says otherwise. What a machine
of it must have is in the record beside it, or in its proof (`fetch --proof`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.formats import SHA256
from debian_cloud.host import checksums, sign
from debian_cloud.image import index
from debian_cloud.packages import offers, origin
from debian_cloud.proof import verify
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from debian_cloud.image.index import ImageRecord
    from debian_cloud.image.staleness import ImageStatus
    from debian_cloud.packages.images import Image
    from debian_cloud.packages.offers import Wanted
    from debian_cloud.proof.trust import Trust
    from debian_cloud.proof.verify import Identified

_SUMS: Final = "SHA512SUMS"


@dataclass(frozen=True, slots=True)
class Source:
    """An image: its record, and where its file is, in the archive or here.

    `digest` names the bytes of the file, with the algorithm before it: `sha512-…`.
    """

    record: ImageRecord
    digest: str
    image: Image | None = None
    file: Path | None = None


def of_index(wanted: Wanted, warn: Callable[[str], None]) -> Source:
    """The image that an archive's signed index has; Error if there is none, or it was withdrawn."""
    image = offers.choose(wanted, warn)
    return Source(image.record, f"sha512-{image.record.sha512}", image=image)


def of_file(file: Path, trust: Trust, warn: Callable[[str], None], *, anyway: bool = False) -> Source:
    """An image's file, verified by its .buildinfo; Error if it is another file, or was withdrawn and not `anyway`."""
    found = verify.identified(file, trust)
    if not found.signers:
        warn(f"no signature of {printable(file.name)} was verified, so nothing says where it is from")
    for status in _statuses(found, warn):
        why = f": {printable(status.reason, index.REASON)}" if status.reason else ""
        if not anyway:
            raise Error(f"{found.buildinfo.stem} is {status.status}{why}", "use a newer image, or give --anyway")
        warn(f"{found.buildinfo.stem} is {status.status}{why}")
    record = _record(file, found, warn)
    form = found.file.described.removeprefix(f"{record.stem}.") or record.format
    algorithm = "sha256" if found.file.algorithm == SHA256 else "blocks"
    return Source(
        replace(record, format=form, size=found.file.size), f"{algorithm}-{found.file.digest}", file=file.absolute()
    )


def _statuses(found: Identified, warn: Callable[[str], None]) -> Iterator[ImageStatus]:
    """What archives say of an image that is no longer offered: those of this machine's apt, and the user's own."""
    if found.word and found.word.problem:
        warn(f"whether {found.buildinfo.stem} was withdrawn is not known for sure: {found.word.problem}")
    if found.word and found.word.said and found.word.said.status in index.GONE:
        yield found.word.said
    of = found.buildinfo.id
    try:
        mine = origin.offered(of.suite, of.architecture)
    except Error as error:
        warn(f"whether {found.buildinfo.stem} was withdrawn is not known for sure: {error.message}")
        return
    # What the archive offers and what became of its images are two indexes.
    for problem in dict.fromkeys((*mine.known.refused, *mine.said.refused)) if mine else ():
        warn(f"whether {found.buildinfo.stem} was withdrawn is not known for sure: {problem}")
    for status in mine.said.statuses if mine else ():
        if status.id == of and status.status in index.GONE:
            yield status


def _record(file: Path, found: Identified, warn: Callable[[str], None]) -> ImageRecord:
    """The record of a file's image, beside its .buildinfo or itself; Error if there is none, or it was changed."""
    stem = found.buildinfo.stem
    for path in (folder / f"{stem}.image" for folder in (found.place.parent, file.parent)):
        if not path.is_file():
            continue
        text = sign.text(path)
        sums = path.with_name(_SUMS)
        # The .buildinfo beside it was verified by the same list (`packages.described`).
        if path.parent == found.place.parent and found.signers and sums.is_file():
            if checksums.digest(path, ("sha512",)).hashes["sha512"] != checksums.find(sign.text(sums), path.name):
                raise Error(f"{printable(path.name)} is not the record in {_SUMS}", "get both again")
        elif found.signers:
            warn(f"{printable(path.name)} is not signed: what it says of user, firmware and memory is taken as it is")
        records = index.parse(text)
        if len({record.id for record in records}) != 1 or records[0].stem != stem:
            raise Error(f"{printable(path.name)} is the record of another image", "get it again")
        return records[0]
    raise Error(
        f"the record of {printable(file.name)} is not beside it",
        f"it is the file {stem}.image, as `build` and `fetch --proof` write it",
        USAGE,
    )
