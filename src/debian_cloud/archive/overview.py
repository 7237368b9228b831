# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of an archive: what is published, until when it is valid, and what waits."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import keys, lifecycle, state
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.image import index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debian_cloud.image.id import ImageId


@dataclass(frozen=True, slots=True)
class Unkept:
    """An image without a closure, and the failures to make it.

    `next` is the time of the next try, in seconds since 1970; None is at once.
    """

    image: str
    shown: bool
    tries: int
    next: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is not published yet: accepted packages and images, and held back releases; and the missing closures."""

    packages: tuple[str, ...]
    images: tuple[str, ...]
    held: tuple[str, ...]
    closures: tuple[Unkept, ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """What is published of a suite; dates are in seconds since 1970, `images` is status -> number of images."""

    suite: str
    date: int | None
    valid_until: int | None
    packages: int
    images: Mapping[str, int]
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the archive; `until` is when its last part that may sign expires, None is never."""

    fingerprint: str
    owner: str
    state: str
    until: int | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The status of a complete archive; `incoming`, `undecided` and `rejected` are numbers of uploads."""

    archive: str
    url: str
    serial: str
    snapshot: str
    incoming: int
    undecided: int
    rejected: int
    suites: tuple[Suite, ...]
    keys: tuple[Key, ...]


def overview(archive: Path) -> Overview:
    """The status of an archive; nothing is changed, and no lock is taken."""
    if not (archive / "state").is_dir():
        raise Error(f"{archive} is not an archive", f"create one: debian-cloud-archive init {archive}", USAGE)
    for _ in range(3):
        try:
            return _overview(archive)
        except FileNotFoundError as error:
            # A new state has replaced the one that was being read.
            gone = error
    raise Error(f"{gone.filename} is missing", f"run debian-cloud-archive check {archive}")


def _overview(archive: Path) -> Overview:
    public = archive / "public"
    known = (archive / "state").resolve()
    accepted = _accepted(archive, known / "db")
    trace = public / "project/trace/master"
    return Overview(
        archive=str(archive.resolve()),
        url=_text(archive / "conf/url").strip(),
        serial=next(iter(_fields(trace, "Archive serial")), ""),
        snapshot=max((found.name for found in public.glob("snap/[0-9]*Z")), default=""),
        incoming=len([*(archive / "incoming").glob("*.changes")]),
        undecided=len([*(archive / "tmp/upload").glob("*.changes")]),
        rejected=len([*(archive / "rejected").iterdir()]),
        suites=tuple(
            _suite(archive, known, suite, accepted.get(suite, set()))
            for suite in _fields(archive / "conf/distributions", "Codename")
        ),
        keys=_keys(archive),
    )


def _suite(archive: Path, known: Path, suite: str, accepted: set[tuple[str, ...]]) -> Suite:
    """What of a suite is published, and what is accepted but not published."""
    dist = archive / "public/dists" / suite
    records = state.records(known, suite)
    held = state.held(archive, suite, records)
    missing = state.without_closure(archive, records)
    unkept = state.unkept(archive, suite, records)
    shown = index.parse(_text(dist / "main/images/Images"))
    published = {record.id for record in shown}
    packages = _published(dist)
    statuses = Counter({record.id: record.status for record in shown}.values())
    return Suite(
        suite=suite,
        date=_seconds(dist / "Release", "Date"),
        valid_until=_seconds(dist / "Release", "Valid-Until"),
        packages=len({(name, version) for architecture, name, version in packages if architecture != "source"}),
        images=dict(sorted(statuses.items())),
        waiting=Waiting(
            packages=tuple(sorted({f"{name} {version}" for _, name, version in accepted - packages})),
            images=tuple(
                image.path()
                for image in sorted({r.id for r in lifecycle.published(records, held, unkept)} - published, key=str)
            ),
            held=tuple(one.release for one in held),
            closures=tuple(_closure(archive, image, shown=image not in unkept) for image in missing),
        ),
    )


def _closure(archive: Path, image: ImageId, *, shown: bool) -> Unkept:
    failure = state.failure(archive, image)
    if not failure:
        return Unkept(image.path(), shown, 0, None, "")
    return Unkept(image.path(), shown, failure.tries, failure.next, failure.reason)


def _accepted(archive: Path, database: Path) -> dict[str, set[tuple[str, ...]]]:
    """Suite -> architecture, name and version of each package that it has, published or not."""
    found: dict[str, set[tuple[str, ...]]] = {}
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as name:
        # reprepro locks a database even to read it.
        copy = shutil.copytree(database, Path(name) / "db", ignore=shutil.ignore_patterns("lockfile"))
        for suite in _fields(archive / "conf/distributions", "Codename"):
            # SUITE|COMPONENT|ARCHITECTURE: NAME VERSION
            listed = run.output(("reprepro", "--basedir", str(archive), "--dbdir", str(copy), "list", suite))
            lines = (line.rpartition("|")[2].partition(":") for line in listed.splitlines())
            found[suite] = {(architecture, *rest.split()) for architecture, _, rest in lines}
    return found


def _published(dist: Path) -> set[tuple[str, ...]]:
    """Architecture, name and version of each package that the indexes list."""
    found: set[tuple[str, ...]] = set()
    for path in (*dist.glob("*/binary-*/Packages"), *dist.glob("*/source/Sources")):
        architecture = path.parent.name.removeprefix("binary-")
        # Each stanza has one of each field.
        found.update(
            (architecture, *pair) for pair in zip(_fields(path, "Package"), _fields(path, "Version"), strict=True)
        )
    return found


def _keys(archive: Path) -> tuple[Key, ...]:
    states = keys.states(_text(archive / "conf/keys"))
    listing = run.output(
        ("gpg", "--homedir", str(archive / "gnupg"), "--no-autostart", "--batch", "--with-colons", "--list-keys")
    )
    return tuple(
        Key(found.fingerprint, found.owner, states.get(found.fingerprint, "active"), found.until)
        for found in keys.listed(listing)
    )


def _text(file: Path) -> str:
    return file.read_text("utf-8") if file.exists() else ""


def _fields(file: Path, name: str) -> list[str]:
    """The values of a field, in the order of the file."""
    return [line.partition(":")[2].strip() for line in _text(file).splitlines() if line.startswith(f"{name}:")]


def _seconds(release: Path, name: str) -> int | None:
    value = next(iter(_fields(release, name)), "")
    return int(parsedate_to_datetime(value).timestamp()) if value else None
