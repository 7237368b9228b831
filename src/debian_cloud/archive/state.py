# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an archive's state: records of its images, and what was published; never changed in place.

Below a state (DIR/state, or the copy that a verb changes): images/SUITE, records; files/SUITE, the files beside
images that no record lists (`image.inventory`); staleness/SUITE/ARCH, packages that have newer versions; leaving,
files that will leave the pool. Beside it, DIR/cache/closures has why a closure could not be made; without it, all are
tried again.

reprepro's database has no transactions, so a verb copies the state, changes the copy, and makes it the state by
renaming one link. A file in public/ that the state does not have is an orphan: the next `accept` decides its upload
again, and `check` moves it to lost/.
"""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import lifecycle, served
from debian_cloud.errors import Error
from debian_cloud.image import index, inventory, staleness
from debian_cloud.image.id import ImageId

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from pathlib import Path

    from debian_cloud.archive.lifecycle import Failure, Held, Policy, ReleaseSet
    from debian_cloud.image.index import ImageRecord
    from debian_cloud.image.inventory import Entry
    from debian_cloud.text.deb822 import Stanza


def suites(state: Path) -> tuple[str, ...]:
    """The suites for which an image was ever entered, sorted."""
    return tuple(sorted(names.word(file.name, "suite") for file in (state / "images").glob("*")))


def records(state: Path, suite: str) -> tuple[ImageRecord, ...]:
    """The records of all images that the archive ever accepted for a suite."""
    return index.parse(_text(state / "images" / names.word(suite, "suite")))


def enter(state: Path, suite: str, entered: Iterable[ImageRecord]) -> None:
    """Write the records of a suite; Error if a client would refuse one that is new or changed."""
    file = state / "images" / names.word(suite, "suite")
    file.parent.mkdir(parents=True, exist_ok=True)
    text = index.render(entered)
    before = {*_stanzas(_text(file))}
    index.parse("\n\n".join(stanza for stanza in _stanzas(text) if stanza not in before))
    file.write_text(text, "utf-8")


def files(state: Path, suite: str) -> tuple[Entry, ...]:
    """The files beside a suite's images that no record lists."""
    file = state / "files" / names.word(suite, "suite")
    if not file.exists():
        return ()
    with file.open("rb") as lines:
        return tuple(inventory.read(lines))


def has_files(state: Path) -> bool:
    """Whether the state lists such files: that of an older version does not, and `publish` enters them."""
    return (state / "files").is_dir()


def enter_files(following: Path, suite: str, known: Iterable[ImageRecord], entered: Iterable[Entry]) -> None:
    """Write the files of some images anew, and remove those of images that no index lists.

    `known` are all records of the suite.
    """
    entered = tuple(entered)
    kept = {record.directory for record in index.listed(known)} - {entry.directory for entry in entered}
    found = (*(entry for entry in files(following, suite) if entry.directory in kept), *entered)
    (following / "files").mkdir(exist_ok=True)
    (following / "files" / names.word(suite, "suite")).write_text(inventory.render(found), "ascii")


def pending(state: Path, suite: str) -> dict[str, Stanza]:
    """Path of an image -> its packages that have a newer version."""
    found: dict[str, Stanza] = {}
    for file in sorted((state / "staleness" / names.word(suite, "suite")).glob("*")):
        found |= staleness.by_image(_text(file))
    return found


def release_sets(file: Path) -> tuple[ReleaseSet, ...]:
    """The release sets of conf/releases, if it exists."""
    return lifecycle.release_sets(_text(file), str(file))


def shown(public: Path, suite: str) -> set[ImageId]:
    """The images that the published index lists."""
    return lifecycle.images(_text(public / "dists" / names.word(suite, "suite") / "main/images/Images"))


def held(archive: Path, suite: str, entered: Iterable[ImageRecord]) -> tuple[Held, ...]:
    """The releases of a suite that wait for missing images."""
    sets = release_sets(archive / "conf/releases")
    if not sets:
        return ()
    entered = tuple(entered)
    return lifecycle.held(entered, sets, shown(archive / "public", suite), unkept(archive, suite, entered))


def without_closure(archive: Path, entered: Iterable[ImageRecord]) -> tuple[ImageId, ...]:
    """The images that an index may list, and whose closures the archive must keep but does not have."""
    if not (archive / "conf/closures").exists():
        return ()
    found = dict.fromkeys(record.id for record in index.listed(entered))
    return tuple(image for image in found if not (archive / "public" / image.path(names.CLOSURES)).exists())


def unkept(archive: Path, suite: str, entered: Iterable[ImageRecord]) -> frozenset[ImageId]:
    """Images without a closure that no index lists yet; none does before the closure is kept."""
    missing = without_closure(archive, entered)
    return frozenset(missing) - shown(archive / "public", suite) if missing else frozenset()


def failure(archive: Path, image: ImageId) -> Failure | None:
    """Why the closure of an image could not be made, if that was tried."""
    try:
        return lifecycle.parse_failure(_note(archive, image).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def note_failure(archive: Path, image: ImageId, found: Failure | None) -> None:
    """Note a failure for an image; None removes it, if the closure is kept or no longer needed."""
    file = _note(archive, image)
    if found is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}")
    partial.write_text(lifecycle.render_failure(found), "utf-8")
    partial.replace(file)


def failures(archive: Path) -> tuple[ImageId, ...]:
    """The images for which a failure is noted; other files are ignored."""
    place, found = archive / "cache", []
    for file in sorted(place.glob(f"{names.CLOSURES}/*/*/*/[0-9]*")):
        with contextlib.suppress(Error):
            found.append(ImageId.parse(str(file.relative_to(place)), names.CLOSURES))
    return tuple(found)


def _note(archive: Path, image: ImageId) -> Path:
    return archive / "cache" / image.path(names.CLOSURES)


def policy(archive: Path) -> Policy:
    """The policy of conf/expire, if it exists."""
    file = archive / "conf/expire"
    return lifecycle.policy(_text(file), str(file))


def grace(archive: Path, suite: str = "") -> timedelta:
    """The days, rounded up, until every signature over what the index lists today has expired.

    It is that of one suite, or the longest of all. ValidFor may have been longer before: the term of such a signature
    is recorded as long as the signature is valid.
    """
    found = {0}
    for one, term in served.terms(_text(archive / "conf/distributions")).items():
        if suite in ("", one):
            kept = served.remembered(_text(archive / "signed/dists" / one / "terms"), int(time.time()))
            found |= {term, *kept}
    return timedelta(days=-(-(max(found) or lifecycle.VALID_FOR) // 86400))


def leaving(state: Path) -> dict[str, date]:
    """Files that no index lists any more -> the day since which that is so."""
    return lifecycle.parse_leaving(_text(state / "leaving"))


def _text(file: Path) -> str:
    # The parsers refuse a line that is not UTF-8, and name it.
    return file.read_bytes().decode("utf-8", "surrogateescape") if file.exists() else ""


def _stanzas(text: str) -> list[str]:
    return text.rstrip("\n").split("\n\n")
