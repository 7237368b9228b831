# SPDX-License-Identifier: GPL-3.0-or-later
"""The indexes of an archive's images, and of their files, as they will be signed."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.archive import lifecycle, state
from debian_cloud.host import checksums, files, run
from debian_cloud.image import index, inventory, staleness

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from debian_cloud.archive.lifecycle import Held
    from debian_cloud.image.index import ImageRecord
    from debian_cloud.image.inventory import Entry
    from debian_cloud.text.deb822 import Stanza


_FOLDER: Final = "main/images"
"""Directory of the indexes in that of a suite."""
_SUMS: Final = ("MD5Sum:", "SHA1:", "SHA256:")


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a suite's indexes: records with their status, withdrawn or expired records, and pending updates.

    `held` are images that wait for others, and are not in the indexes; `pending` is by the path of an image; `beside`
    are the files beside the listed images that no record lists.
    """

    held: tuple[Held, ...]
    listed: tuple[ImageRecord, ...]
    gone: tuple[ImageRecord, ...]
    pending: Mapping[str, Stanza]
    beside: tuple[Entry, ...] = ()


def listing(known: Path, suite: str, archive: Path) -> Listing:
    """The listing of a suite from a state; `archive` gives its release sets, and the closures it must keep."""
    records = state.records(known, suite)
    held = state.held(archive, suite, records)
    unkept = state.unkept(archive, suite, records)
    listed = lifecycle.published(records, held, unkept)
    directories = {record.directory for record in listed}
    return Listing(
        held,
        listed,
        tuple(record for record in records if record.status in lifecycle.GONE),
        state.pending(known, suite),
        tuple(entry for entry in state.files(known, suite) if entry.directory in directories),
    )


def enter(archive: Path, known: Path, dists: Path) -> tuple[Held, ...]:
    """Write the indexes of images of all suites, and list them in each Release; return the images that are held back.

    `known` is the archive's state, and DISTS/SUITE is as reprepro has written it, which knows neither images nor
    by-hash. MD5 and SHA-1 are removed from Release, as apt does not need them.
    """
    held: tuple[Held, ...] = ()
    address = files.text(archive / "conf/url").strip().rstrip("/") if (archive / "conf/url").is_file() else ""
    for suite in sorted(path for path in dists.iterdir() if path.is_dir()):
        found = listing(known, suite.name, archive)
        held += found.held
        folder = suite / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        write(found, folder)
        written = sorted(folder.iterdir())
        run.output(("xz", "--keep", "-1", "--threads=0", "--block-size=4MiB", *map(str, written)))
        rows = [_row(path, suite) for name in written for path in (name, name.with_name(f"{name.name}.xz"))]
        release = suite / "Release"
        release.write_text(_edited(files.text(release), address, rows), "utf-8")
    return held


def _row(path: Path, suite: Path) -> str:
    """The line of a file in Release."""
    digest = checksums.digest(path, ("sha256",))
    return f" {digest.hashes['sha256']} {digest.size} {path.relative_to(suite)}"


def _edited(release: str, address: str, rows: Iterable[str]) -> str:
    """A Release with more files, with SHA-256 alone, and with the address of snapshots (apt-get(8), --snapshot)."""
    lines = release.split("\n")
    sums = next((at for at, line in enumerate(lines) if line in _SUMS), len(lines))
    # If it was cut before them, it lists no packages, and is refused for that (`ready`).
    after = lines[lines.index("SHA256:") + 1 :] if "SHA256:" in lines else []
    hashes = itertools.takewhile(lambda line: line.startswith(" "), after)
    snapshots = (f"Snapshots: {address}/snap/@SNAPSHOTID@/",) if address else ()
    return "\n".join((*lines[:sums], *snapshots, "Acquire-By-Hash: yes", "SHA256:", *hashes, *rows, ""))


def write(found: Listing, folder: Path) -> None:
    """Write Images, Images-Status and Files into a directory; Error if a client would refuse one of them."""
    images = index.render(found.listed)
    became = staleness.render((*found.listed, *found.gone), found.pending)
    # apt fetches no empty file, and would not know the archive; an empty line is not a record for any reader.
    images, became = images or "\n", became or "\n"
    entries = [entry for record in found.listed for entry in inventory.of_record(record)]
    carried = inventory.render((*entries, *found.beside)) or "\n"
    # Only what clients and mirrors accept is signed.
    index.parse(images)
    staleness.parse(became)
    for _entry in inventory.read(io.BytesIO(carried.encode("ascii"))):
        pass
    (folder / "Images").write_text(images, "utf-8")
    (folder / "Images-Status").write_text(became, "utf-8")
    (folder / inventory.NAME).write_text(carried, "ascii")
