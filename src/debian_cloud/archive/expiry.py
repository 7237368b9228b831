# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive need not keep: computed here, and written to files for the script that removes it.

`expire` first publishes the indexes without an image. The image's files are removed when every signature on an older
index has expired and no kept snapshot lists it; those of a withdrawn image even if a snapshot lists it. The pool is
compared with what all published and kept indexes list, not with what reprepro knows: reprepro would keep the files of
each version that it tracks, and forget those of snapshots. By a new state, reprepro forgets a file before the file is
removed: a file that it knew but that is absent could be uploaded again without its absence being noticed. Directories
are removed by one rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.archive import lifecycle, served, state
from debian_cloud.errors import Error
from debian_cloud.host import files
from debian_cloud.image import index
from debian_cloud.image.id import ImageId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from debian_cloud.archive.served import SignedRelease
    from debian_cloud.image.index import ImageRecord

_LARGEST: Final = 2**28
"""Maximum bytes of an index of packages; that of Debian's main has a quarter."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What expires, and what is removed: paths below public/, or the ids of snapshots, all sorted.

    `waiting` are files that will leave the pool: path -> the day since which no index lists it, and `grace` is the
    number of days that it stays from then on. `images`, `staying` and `in_pool` are the numbers of images, snapshots
    and pool files that stay; `rules` is whether conf/expire exists.
    """

    expired: tuple[str, ...]
    folders: tuple[str, ...]
    snapshots: tuple[str, ...]
    pool: tuple[str, ...]
    waiting: Mapping[str, str]
    grace: int
    images: int
    staying: int
    in_pool: int
    rules: bool


def tracks(archive: Path, work: Path) -> None:
    """Write what signed indexes list to files below `work`, using its file `tracks` (reprepro's dumptracks).

    `listed`: files of the pool; `in-snapshots`: images; `snapshots`: those that the policy does not keep; `untrack`:
    versions that no suite has.
    """
    public = archive / "public"
    releases = _signed(archive, "dists")
    _refuse_early(releases.values())
    ids = [folder.name for folder in (public / "snap").glob("*")]
    gone = lifecycle.snapshots(ids, state.policy(archive))
    for found in ids:
        releases |= _signed(archive, f"snap/{found}/dists") if found not in gone else {}
    pool: set[str] = set()
    images: set[ImageId] = set()
    for path, content in _indexes(releases):
        if path.endswith("Images"):
            images |= lifecycle.images(content)
        else:
            pool.update(lifecycle.pool_files(content))
    tracks = lifecycle.parse_tracks((work / "tracks").read_text("utf-8"))
    _write(work / "listed", pool)
    _write(work / "in-snapshots", (image.path() for image in images))
    _write(work / "snapshots", gone)
    _write(work / "untrack", (f"{t.suite} {t.source} {t.version}" for t in lifecycle.unused(tracks, pool)))


def plan(archive: Path, work: Path) -> Plan:
    """What expires and what is removed today, from the files of `tracks`, and `unreferenced` and `known`.

    Those two are the output of reprepro's dumpunreferenced and _listchecksums. It writes below `work`: `state`, the
    files of the state that change; `expired`; `shown`, the withdrawn or expired images that an index still lists; and
    what is removed: `folders`, `forget` and `pool`.
    """
    today = date.fromisoformat(time.strftime("%Y-%m-%d", time.gmtime()))
    in_snapshots = {ImageId.parse(line, names.IMAGES) for line in _lines(work / "in-snapshots")}
    snapshots = sorted(_lines(work / "snapshots"))
    expired: list[str] = []
    gone: list[ImageId] = []
    shown: set[ImageId] = set()
    listed: set[ImageId] = set()
    for suite in state.suites(archive / "state"):
        before = state.records(archive / "state", suite)
        outdated = _outdated(archive, suite, before, today)
        records = lifecycle.expired(before, outdated, today)
        expired += [image.path() for image in outdated]
        if outdated:
            state.enter(work / "state", suite, records)
        grace = state.grace(archive, suite)
        # An index that lists it was signed since, for example if publication failed for a while.
        held = _held(archive / "public/dists" / suite, grace)
        gone += [image for image in lifecycle.due(records, in_snapshots, today, grace) if image not in held]
        listed |= {record.id for record in index.listed(records)}
        shown |= state.shown(archive / "public", suite) & {r.id for r in records if r.status in lifecycle.GONE}
    there = [
        folder
        for image in gone
        for tree in (names.IMAGES, names.CLOSURES, names.REBUILDS)
        if (archive / "public" / (folder := image.path(tree))).exists()
    ]
    known, in_pool = _lines(work / "known"), _pool(archive / "public")
    unlisted = (_lines(work / "unreferenced") | (in_pool - known)) - _lines(work / "listed")
    grace = state.grace(archive)
    after, pool = lifecycle.leaving(state.leaving(archive / "state"), unlisted, today, grace)
    (work / "state").mkdir(exist_ok=True)
    (work / "state" / "leaving").write_text(lifecycle.render_leaving(after), "utf-8")
    _write(work / "expired", expired)
    _write(work / "shown", (image.path() for image in shown))
    _write(work / "folders", there)
    _write(work / "forget", (path for path in pool if path in known))
    _write(work / "pool", pool)
    waiting = {path: day.isoformat() for path, day in after.items() if path not in pool}
    return Plan(
        expired=tuple(expired),
        folders=tuple(there),
        snapshots=tuple(snapshots),
        pool=pool,
        waiting=waiting,
        grace=grace.days,
        images=len(listed),
        staying=len([*(archive / "public/snap").glob("*")]),
        in_pool=len(in_pool),
        rules=(archive / "conf/expire").exists(),
    )


def as_json(found: Plan, *, dry_run: bool) -> str:
    """The report for programs."""
    removed = {"folders": found.folders, "snapshots": found.snapshots, "pool": found.pool}
    document = {"dry-run": dry_run, "expired": found.expired, "removed": removed, "leaving": dict(found.waiting)}
    return json.dumps(document, indent=2) + "\n"


def as_text(found: Plan, *, dry_run: bool) -> str:
    """The report for people."""
    word = "would be " if dry_run else ""
    gone = (*(f"snap/{name}" for name in found.snapshots), *found.folders, *found.pool)
    report = "".join(f"{word}expired: {directory}\n" for directory in found.expired)
    report += "".join(f"{word}removed: {path}\n" for path in gone)
    if not report:
        rules = "expires no more" if found.rules else "does not exist, so no image expires"
        report = (
            f"nothing to expire: {found.images} images, {found.staying} snapshots and {found.in_pool} files of the"
            f" pool stay; conf/expire {rules}\n"
        )
    if found.waiting:
        first = f"the first {found.grace + 1} days after {min(found.waiting.values())}"
        report += f"leaving: {len(found.waiting)} files of the pool, {first}\n"
    return report


def _signed(archive: Path, place: str) -> dict[Path, SignedRelease]:
    """Directory in public/ -> what the archive signed last for it, which clients have, whatever is served now.

    Error if the archive has no record of what it signed.
    """
    suites = served.terms((archive / "conf/distributions").read_text("utf-8"))
    names = {folder.name for folder in (archive / "public" / place).glob("[!.]*")}
    names |= {folder.name for folder in (archive / "signed" / place).glob("[!.]*") if folder.name in suites}
    found = {}
    for name in sorted(names):
        folder, record = archive / "public" / place / name, archive / "signed" / place / name / "Release"
        if not record.is_file():
            raise Error(
                f"the archive has no record of what it signed for {folder}, so nothing is removed",
                "run debian-cloud-archive check, which shows what differs; repair it, or remove it by hand",
            )
        # A snapshot made by an older version may have no Valid-Until yet.
        found[folder] = served.release(served.with_term(record.read_bytes(), lifecycle.VALID_FOR), record)
    return found


def _refuse_early(releases: Iterable[SignedRelease]) -> None:
    """Raise Error if something was published later than the time of the clock."""
    for release in releases:
        if release.date > time.time():
            raise Error(
                f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}, but"
                f" {release.fields['Codename']} was published later than that",
                "set the clock of this machine: expiry depends on the day",
            )


def _indexes(releases: Mapping[Path, SignedRelease]) -> Iterator[tuple[str, str]]:
    """Path and content of each index of packages, sources and images that the release files list, each once."""
    seen = set()
    for folder, release in releases.items():
        for path, (digest, _) in release.indexes.items():
            if path.rpartition("/")[2] in ("Packages", "Sources", "Images") and digest not in seen:
                seen.add(digest)
                yield path, _content(folder / path, digest)


def _content(path: Path, sha256: str) -> str:
    packed = path.with_name(f"{path.name}.xz")
    content = b""
    if path.exists():
        content = files.read(path, _LARGEST)
    elif packed.exists():
        content = files.unpacked(packed, _LARGEST)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Error(
            f"{path} is missing, or is not the file that its Release lists",
            "repair it, or remove that snapshot by hand: nothing is removed while its contents are unknown",
        )
    return content.decode()


def _held(dist: Path, grace: timedelta) -> set[ImageId]:
    """The images in indexes on which a signature may be valid, by the age of the index file."""
    found: set[ImageId] = set()
    for file in dist.glob("main/images/by-hash/SHA256/*"):
        if file.stat().st_mtime + grace.total_seconds() >= time.time() and not file.is_symlink() and file.is_file():
            # In a compressed index nothing is found, and nothing need be.
            found |= lifecycle.images(file.read_text("utf-8", "replace"))
    return found


def _outdated(archive: Path, suite: str, records: tuple[ImageRecord, ...], today: date) -> tuple[ImageId, ...]:
    return lifecycle.outdated(
        records,
        state.policy(archive),
        state.release_sets(archive / "conf/releases"),
        state.held(archive, suite, records),
        today,
        state.unkept(archive, suite, records),
    )


def _pool(public: Path) -> set[str]:
    """Paths of the files in the pool."""
    return {
        f"{Path(folder).relative_to(public)}/{name}"
        for folder, _, names in os.walk(public / "pool")
        for name in names
    }


def _lines(file: Path) -> set[str]:
    return {*file.read_text("utf-8").split("\n")} - {""}


def _write(file: Path, lines: Iterable[str]) -> None:
    file.write_text("".join(f"{line}\n" for line in sorted(lines)), "utf-8")
