# SPDX-License-Identifier: GPL-3.0-or-later
"""The files beside an image that no record lists, entered into an archive's state for the index of all files.

They are entered when an image is accepted. `publish` enters them again from what is served, and only if the archive's
signatures say that it is right, after checksums were signed again (`steps/vouch`), and once for the images that an
older version has accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from debian_cloud.archive import state
from debian_cloud.errors import Error
from debian_cloud.host import checksums, files, sign
from debian_cloud.image import index, inventory
from debian_cloud.image.inventory import Entry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from debian_cloud.host.checksums import Digest
    from debian_cloud.image.id import ImageId
    from debian_cloud.image.index import ImageRecord


def beside(
    image: ImageId, records: Collection[ImageRecord], found: Collection[Path], digests: Mapping[str, Digest]
) -> Iterator[Entry]:
    """The entries of those files and links of an image that its records do not list; `digests` is by name."""
    listed = {image.file(one.suffix) for record in records for one in record.attestations}
    for path in found:
        name, place = path.name, f"{image.path()}/{path.name}"
        if path.is_symlink():
            yield Entry(place, target=str(path.readlink()))
        elif name not in listed:
            yield Entry(place, digests[name].hashes["sha256"], digests[name].size)


def enter(archive: Path, following: Path, keyring: Path) -> Iterator[str]:
    """Enter the files of each listed image as they are served; a sentence for each image of which that is refused."""
    for suite in state.suites(following):
        known = state.records(following, suite)
        images: dict[ImageId, list[ImageRecord]] = {}
        for record in index.listed(known):
            images.setdefault(record.id, []).append(record)
        entered: list[Entry] = []
        for image, records in images.items():
            try:
                entered += _served(archive / "public" / image.path(), image, records, keyring)
            except (Error, OSError) as error:
                reason = error.message if isinstance(error, Error) else error.strerror
                yield f"{image.path()}: mirrors get no checksums of it: {reason}"
        state.enter_files(following, suite, known, entered)


def _served(folder: Path, image: ImageId, records: Collection[ImageRecord], keyring: Path) -> tuple[Entry, ...]:
    """The entries of an image's directory; Error unless a key of the keyring has signed the checksums there."""
    for name in ("SHA256SUMS", "SHA512SUMS"):
        for end in (".sign", ".gpg"):
            sign.verified(keyring, folder / name, folder / f"{name}{end}")
    sums = (
        line.partition("  ") for line in files.read(folder / "SHA256SUMS").decode("utf-8", "replace").splitlines()
    )
    wanted = {name: sha256 for sha256, _, name in sums}
    links = {record.id.stable(record.format): record.name for record in records}
    disks = {record.name for record in records}
    found = [folder / name for name in sorted({*wanted, *inventory.SUMS} - disks) if "/" not in name]
    digests = {path.name: checksums.digest(path, ("sha256",)) for path in found if not path.is_symlink()}
    for path in found:
        if path.is_symlink():
            right = links.get(path.name) == str(path.readlink())
        else:
            right = digests[path.name].hashes["sha256"] == wanted.get(path.name, digests[path.name].hashes["sha256"])
        if not right:
            raise Error(f"{path.name} is not the file that the archive signed", "run debian-cloud-archive check")
    return tuple(beside(image, records, found, digests))
