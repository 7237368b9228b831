# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an archive in which its images are entered, and what it has shown of them; never changed in place.

Below a state (DIR/state, or the copy that a verb changes): images/SUITE, records; staleness/SUITE/ARCH, what has
newer versions; leaving, what goes from the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import index, lifecycle, names, staleness

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from pathlib import Path

    from .deb822 import Stanza
    from .index import ImageRecord
    from .lifecycle import Held, Policy, ReleaseSet


def suites(state: Path) -> tuple[str, ...]:
    """The suites that an image was ever entered for, sorted."""
    return tuple(sorted(names.word(file.name, "suite") for file in (state / "images").glob("*")))


def records(state: Path, suite: str) -> tuple[ImageRecord, ...]:
    """The records of all images that the archive ever took for a suite."""
    return index.parse(_text(state / "images" / names.word(suite, "suite")))


def enter(state: Path, suite: str, entered: Iterable[ImageRecord]) -> None:
    """Write the records of a suite; Error when one that is new or changed is none that a client would take."""
    file = state / "images" / names.word(suite, "suite")
    file.parent.mkdir(parents=True, exist_ok=True)
    text = index.render(entered)
    before = {*_stanzas(_text(file))}
    index.parse("\n\n".join(stanza for stanza in _stanzas(text) if stanza not in before))
    file.write_text(text, "utf-8")


def pending(state: Path, suite: str) -> dict[str, Stanza]:
    """Folder of an image -> which of its packages have a newer version."""
    found: dict[str, Stanza] = {}
    for file in sorted((state / "staleness" / names.word(suite, "suite")).glob("*")):
        found |= staleness.by_image(_text(file))
    return found


def release_sets(file: Path) -> tuple[ReleaseSet, ...]:
    """What conf/releases says, if it is there."""
    return lifecycle.release_sets(_text(file), str(file))


def shown(public: Path, suite: str) -> set[str]:
    """Folders of the images that the index lists which users see."""
    return lifecycle.directories(_text(public / "dists" / names.word(suite, "suite") / "main/images/Images"))


def held(archive: Path, suite: str, entered: Iterable[ImageRecord]) -> tuple[Held, ...]:
    """The releases of a suite that wait for images that are missing."""
    sets = release_sets(archive / "conf/releases")
    return lifecycle.held(entered, sets, shown(archive / "public", suite)) if sets else ()


def policy(archive: Path) -> Policy:
    """What conf/expire says, if it is there."""
    file = archive / "conf/expire"
    return lifecycle.policy(_text(file), str(file))


def leaving(state: Path) -> dict[str, date]:
    """What nothing lists any more, since when."""
    return lifecycle.parse_leaving(_text(state / "leaving"))


def _text(file: Path) -> str:
    # What is not UTF-8 the readers refuse, by their lines.
    return file.read_bytes().decode("utf-8", "surrogateescape") if file.exists() else ""


def _stanzas(text: str) -> list[str]:
    return text.rstrip("\n").split("\n\n")
