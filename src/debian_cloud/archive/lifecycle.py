# SPDX-License-Identifier: GPL-3.0-or-later
"""Lifecycle of images in an archive: incomplete releases are held back, statuses are set, old images expire.

An image is named SUITE/CONFIG/ARCH/SERIAL, like its directory below images/; the images of one suite with one serial
are a release, SUITE/SERIAL. Days are `date`s; the caller gives the current day.

The status of an image is changed by a new state, which is then published; `current` and `superseded` follow from the
other records. A release waits until all images that conf/releases names exist; a withdrawn image counts as existing,
and a new rule does not remove an image that is already published.

ValidFor in conf/distributions gives how long a signature is valid (`VALID_FOR` if it is absent). A verb that removes
files uses the longest of it and of the terms of signatures that are still valid (DIR/signed/dists/SUITE/terms); the
mirror uses the longest term of the InReleases that it published.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.image import index
from debian_cloud.image.id import ImageId
from debian_cloud.text import deb822
from debian_cloud.text.printable import LONGEST, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from debian_cloud.image.index import ImageRecord

VALID_FOR: Final = 14 * 86400
"""Seconds for which a signature on an index is valid, if conf/distributions has no ValidFor."""

_TERM: Final = re.compile("([0-9]{1,5}) *([dmy])")
_UNITS: Final = {"d": 1, "m": 31, "y": 365}
"""Days of the units of ValidFor (reprepro(1))."""

GONE: Final = index.GONE
REASON: Final = index.REASON
_CVES: Final = 100
_CVE: Final = 24
"""Maximum characters of a CVE identifier, whose number may have many digits."""

FIRST_DELAY: Final = 3600
"""Seconds until the next try after a closure could not be made; each further failure doubles them."""
LAST_DELAY: Final = 86400
"""The longest of these delays."""

_SNAPSHOT: Final = re.compile("[0-9]{8}T[0-9]{6}Z")
_ANY: Final = "20000101.0"
"""A serial, to check names of images that have none."""


@dataclass(frozen=True, slots=True)
class ReleaseSet:
    """Images of a suite, each CONFIG/ARCH, that are published together or not at all."""

    suite: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """The images of one release, SUITE/SERIAL, that wait, and the missing images, each CONFIG/ARCH."""

    release: str
    images: tuple[ImageId, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a closure could not be made, and after how many tries; `next` is in seconds since 1970."""

    tries: int
    next: int
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What an archive keeps; None keeps all.

    `keep`: number of newest serials of each image, `keep_of`: the same for a SUITE/CONFIG/ARCH; `monthly`: number of
    months of which the last serial is also kept; `snapshots`: number of newest snapshots; `pinned`: images, releases
    and snapshots that are always kept.
    """

    keep: int | None = None
    keep_of: Mapping[str, int] = field(default_factory=dict)
    monthly: int = 0
    snapshots: int | None = None
    pinned: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Track:
    """One version of a source package, as reprepro tracks it in a suite, with the paths of its files."""

    suite: str
    source: str
    version: str
    files: tuple[str, ...]
    used: bool


def valid_for(value: str) -> int:
    """The seconds of a ValidFor such as `14d` or `1m 3d`; Error if it is not one."""
    days = sum(int(number) * _UNITS[unit] for number, unit in _TERM.findall(value))
    if value and (not days or _TERM.sub("", value).strip()):
        raise Error(f"ValidFor: {value} is not a span of time", "give a number and d, m or y: 14d (reprepro(1))")
    return days * 86400 or VALID_FOR


def release_sets(text: str, file: str) -> tuple[ReleaseSet, ...]:
    """The sets in lines such as `trixie ec2/amd64 azure/amd64`; Error names the line of `file` that is not one."""
    found = []
    for number, words in _lines(text):
        try:
            suite, *images = words
            if not images or len(set(images)) != len(images):
                raise ValueError(words)
            for image in images:
                config, arch = image.split("/")
                ImageId(suite, config, arch, _ANY)
        except (ValueError, Error):
            raise Error(
                f"{file}, line {number}, is not a set of images: {' '.join(words)}",
                "a line is a suite and its images: trixie ec2/amd64 azure/amd64",
            ) from None
        found.append(ReleaseSet(suite, (*images,)))
    return (*found,)


def policy(text: str, file: str) -> Policy:
    """The policy in lines such as `keep 3`; Error names the line of `file` that is invalid or a repetition."""
    numbers: dict[str, int] = {}
    pinned = set()
    for number, words in _lines(text):
        key = ""
        match words:
            case ["keep" | "monthly" | "snapshots", count]:
                key = words[0]
            case ["keep", image, count] if _is_image(f"{image}/{_ANY}"):
                key = image
            case ["pinned", what] if _is_image(what) or _is_release(what) or _SNAPSHOT.fullmatch(what):
                pinned.add(what)
                continue
            case _:  # a case whose guard failed may have bound `count`
                key = count = ""
        if not re.fullmatch("[1-9][0-9]{0,4}", count) or key in numbers:
            raise Error(
                f"{file}, line {number}, is not a policy{', or repeats one' if key in numbers else ''}:"
                f" {' '.join(words)}",
                "known: keep N, keep SUITE/CONFIG/ARCH N, monthly N, snapshots N, pinned SUITE/CONFIG/ARCH/SERIAL",
            )
        numbers[key] = int(count)
    keep, monthly, snapshots = (numbers.pop(key, None) for key in ("keep", "monthly", "snapshots"))
    if monthly and keep is None:
        raise Error(f"{file} has `monthly` without `keep`", "add keep N, the number of newest serials that also stay")
    return Policy(keep, numbers, monthly or 0, snapshots, frozenset(pinned))


def held(
    records: Iterable[ImageRecord],
    sets: Iterable[ReleaseSet],
    shown: Collection[ImageId] = (),
    unkept: Collection[ImageId] = (),
) -> tuple[Held, ...]:
    """The releases that lack an image of their set, sorted by suite and serial.

    Withdrawn and expired images count as existing, `unkept` ones do not. An image is not held back if an index
    already lists it, if the operator released it with `--partial`, or if it is not official.
    """
    of_suite: dict[str, list[ReleaseSet]] = defaultdict(list)
    for of in sets:
        of_suite[of.suite].append(of)
    there: dict[tuple[str, str], dict[str, ImageRecord]] = defaultdict(dict)
    for record in records:
        one = record.id
        if record.official and one.suite in of_suite and one not in unkept:
            there[one.suite, one.serial][member(one)] = record
    found: dict[tuple[str, tuple[int, int]], Held] = {}
    for (suite, serial), images in there.items():
        waiting, missing = set(), set()
        for of in of_suite[suite]:
            absent = {*of.images} - {*images}
            ours = {
                images[image].id
                for image in {*of.images} & {*images}
                if not images[image].partial and images[image].status not in GONE and images[image].id not in shown
            }
            if absent and ours:
                waiting |= ours
                missing |= absent
        if waiting:
            held_back = (*sorted(waiting, key=str),)
            found[suite, names.serial_key(serial)] = Held(held_back[0].release, held_back, (*sorted(missing),))
    return tuple(found[order] for order in sorted(found))


def published(
    records: Iterable[ImageRecord], waiting: Iterable[Held], unkept: Collection[ImageId] = ()
) -> tuple[ImageRecord, ...]:
    """The records that an index lists, each with its status, without those held back or `unkept`."""
    back = {image for one in waiting for image in one.images}.union(unkept)
    return index.with_status(record for record in index.listed(records) if record.id not in back)


def partial(records: Iterable[ImageRecord], waiting: Iterable[Held], release: str) -> tuple[ImageRecord, ...]:
    """The records, in which those of a release that were held back are marked as partial.

    They are then no longer held back. Error if none was.
    """
    chosen = {image for one in waiting if one.release == release for image in one.images}
    if not chosen:
        raise Error(
            f"nothing of {release} is held back",
            "give SUITE/SERIAL, as `publish` prints it, with --partial",
            USAGE,
        )
    return tuple(replace(r, partial=True) if r.id in chosen else r for r in records)


def marked(
    records: Iterable[ImageRecord], image: str, status: str, day: date, reason: str, cves: Iterable[str] = ()
) -> tuple[ImageRecord, ...]:
    """The records, in which those of one image are `withdrawn` or `deprecated` since the day, for the reason.

    `image` is unchecked input, SUITE/CONFIG/ARCH/SERIAL if it is valid. Error if there is no such image, if it
    already has that status (a withdrawn or expired image cannot be deprecated either), or if the reason is not one
    printable line of at most REASON characters.
    """
    records = tuple(records)
    if not reason.strip() or not reason.isprintable():
        raise Error(
            "the reason is not one line of text" if reason.strip() else "the reason is empty",
            "give users the reason in one sentence: --reason 'its kernel does not boot on …'",
            USAGE,
        )
    if len(reason) > REASON:
        raise Error(
            f"the reason has {len(reason)} characters, but at most {REASON} are allowed",
            "give the reason in one sentence, and where to read more",
            USAGE,
        )
    cves = tuple(dict.fromkeys(cves))
    if len(cves) > _CVES:
        raise Error(f"{len(cves)} CVEs are too many", f"give the {_CVES} most important ones", USAGE)
    for cve in cves:
        if len(cve) > _CVE or not index.CVE.fullmatch(cve):
            raise Error(f"{printable(cve, 60)} is not a CVE identifier", "give one like CVE-2026-12345", USAGE)
    before = {record.status for record in records if str(record.id) == image}
    if not before:
        raise Error(f"the archive never had {printable(image, 120)}", _hint(records, image), USAGE)
    if status in before or (status == "deprecated" and before & {*GONE}):
        since = next(record.status_date for record in records if str(record.id) == image)
        raise Error(f"{image} is already {min(before)} since {since}", "this status of an image is final")
    return tuple(
        replace(record, status=status, status_date=day.isoformat(), status_reason=" ".join(reason.split()), cves=cves)
        if str(record.id) == image
        else record
        for record in records
    )


def outdated(
    records: Iterable[ImageRecord],
    rules: Policy,
    sets: Iterable[ReleaseSet],
    waiting: Iterable[Held],
    today: date,
    unkept: Collection[ImageId] = (),
) -> tuple[ImageId, ...]:
    """The images that no rule keeps, sorted by name.

    The images that the policy names and those that are current are kept, and with each of them all images of its
    release set. An image that is held back or `unkept` does not count as one of the newest; it is kept unless it is
    older than the oldest of the newest that are kept.
    """
    waiting, records = tuple(waiting), tuple(index.listed(records))
    back = {image for one in waiting for image in one.images}.union(unkept)
    shown = published(records, waiting, unkept)
    listed: dict[str, set[ImageId]] = defaultdict(set)
    for record in shown:
        listed[record.id.series].add(record.id)
    months = {*_months(today, rules.monthly)}
    kept = {record.id for record in shown if record.status == "current"}
    oldest: dict[str, tuple[int, int]] = {}
    for series, images in listed.items():
        ordered = sorted(images, key=lambda image: image.number, reverse=True)
        newest = ordered[: rules.keep_of.get(series, rules.keep)]
        oldest[series] = newest[-1].number
        last = {image.serial[:6]: image for image in reversed(ordered)}
        kept |= {*newest, *(last[month] for month in months & {*last})}
    for image in dict.fromkeys(record.id for record in records):
        if {str(image), image.release} & rules.pinned or (
            image in back and (image.series not in oldest or image.number >= oldest[image.series])
        ):
            kept.add(image)
    together = {(s.suite, image): s for s in sets for image in s.images}
    for image in tuple(kept):
        if one := together.get((image.suite, member(image))):
            kept |= {ImageId.parse(f"{image.suite}/{other}/{image.serial}") for other in one.images}
    return tuple(sorted({record.id for record in records} - kept, key=str))


def expired(records: Iterable[ImageRecord], images: Collection[ImageId], day: date) -> tuple[ImageRecord, ...]:
    """The records, in which those of the images are expired since the day; a reason for deprecation stays."""
    return tuple(
        replace(record, status="expired", status_date=day.isoformat()) if record.id in images else record
        for record in records
    )


def unwound(records: Iterable[ImageRecord], today: date) -> tuple[ImageRecord, ...]:
    """The records, with today as the status date of each that has one in the future."""
    return tuple(
        replace(record, status_date=min(record.status_date, today.isoformat())) if record.status_date else record
        for record in records
    )


def due(
    records: Iterable[ImageRecord], referenced: Collection[ImageId], today: date, grace: timedelta
) -> tuple[ImageId, ...]:
    """The images whose files may be removed, sorted: withdrawn or expired for at least `grace`.

    By then, no signature on an index that lists them is valid. An expired image stays while it is `referenced`: a
    kept snapshot lists it.
    """
    return tuple(
        sorted(
            {
                record.id
                for record in records
                if record.status in GONE
                and date.fromisoformat(record.status_date) + grace <= today
                and (record.status == "withdrawn" or record.id not in referenced)
            },
            key=str,
        )
    )


def snapshots(ids: Iterable[str], rules: Policy) -> tuple[str, ...]:
    """The snapshots that the policy does not keep, oldest first; the newest is published, and always stays."""
    ordered = sorted(found for found in ids if _SNAPSHOT.fullmatch(found))
    number = len(ordered) if rules.snapshots is None else rules.snapshots
    return tuple(found for found in ordered[: max(len(ordered) - number, 0)] if found not in rules.pinned)


def leaving(
    before: Mapping[str, date], unlisted: Iterable[str], today: date, grace: timedelta
) -> tuple[dict[str, date], tuple[str, ...]]:
    """Files that will leave the pool (path -> the first day on which no index listed it), and those that leave today.

    `unlisted` are the paths that no index lists today; `grace` is how long a signature on an index that lists them
    may be valid. It counts from the end of that first day, because the last index that lists a file may have been
    signed on that day. A file that leaves is in both results: after an interruption, the next run finds it here
    again.
    """
    after = {path: before.get(path, today) for path in sorted(unlisted)}
    return after, tuple(path for path, day in after.items() if day + grace < today)


def unused(tracks: Iterable[Track], listed: Collection[str]) -> tuple[Track, ...]:
    """The versions of source packages that reprepro tracks, but of which no suite has anything any more.

    A version is left out if an index, then that of a kept snapshot, lists a file of it that no version in use has.
    """
    tracks = tuple(tracks)
    used = {file for track in tracks if track.used for file in track.files}
    return tuple(
        track for track in tracks if not track.used and not any(f in listed and f not in used for f in track.files)
    )


def failed(before: Failure | None, reason: str, now: float) -> Failure:
    """Another failure to make a closure, at `now`; the delay until the next try grows."""
    tries = before.tries + 1 if before else 1
    delay = FIRST_DELAY << min(tries - 1, 10)
    return Failure(tries, int(now) + min(delay, LAST_DELAY), printable(reason))


def render_failure(failure: Failure) -> str:
    """The text that `parse_failure` reads."""
    return deb822.render((("Tries", str(failure.tries)), ("Next", str(failure.next)), ("Reason", failure.reason)))


def parse_failure(text: str) -> Failure | None:
    """The failure that `render_failure` wrote; None if the text is not one."""
    try:
        (stanza,) = deb822.canonical(text)
        return Failure(int(stanza["Tries"]), int(stanza["Next"]), printable(stanza["Reason"], 10 * LONGEST))
    except (Error, KeyError, ValueError):
        return None


def parse_tracks(text: str) -> tuple[Track, ...]:
    """The tracks that reprepro's dumptracks prints."""
    found = []
    for stanza in deb822.canonical(text):
        rows = [line.split() for line in stanza.get("Files", "").split("\n") if line]
        found.append(
            Track(
                stanza["Distribution"],
                stanza["Source"],
                stanza["Version"],
                tuple(row[0] for row in rows),
                used=any(row[2] != "0" for row in rows),
            )
        )
    return tuple(found)


def parse_leaving(text: str) -> dict[str, date]:
    """Path -> day, from lines `DAY PATH`; Error if a line is not one."""
    found = {}
    for line in text.splitlines():
        day, _, path = line.partition(" ")
        try:
            found[path] = date.fromisoformat(day)
        except ValueError:
            raise Error(f"the list of files that leave the pool has the line {line!r}", "it is damaged") from None
    return found


def render_leaving(days: Mapping[str, date]) -> str:
    """The lines that `parse_leaving` reads."""
    return "".join(f"{day.isoformat()} {path}\n" for path, day in sorted(days.items()))


def pool_files(text: str) -> Iterator[str]:
    """The paths that an index of packages or of sources lists (repository format of Debian's archive)."""
    directory, files, inside = "", [], False
    for line in (*text.split("\n"), ""):
        if line.startswith("Filename: "):
            yield line[10:]
        elif line.startswith("Directory: "):
            directory = line[11:]
        elif line.startswith(" "):
            if inside:
                files.append(line.split()[-1])
        elif not line:
            yield from (f"{directory}/{file}" for file in files)
            directory, files = "", []
        inside = inside if line.startswith(" ") else line == "Checksums-Sha256:"


def images(text: str) -> set[ImageId]:
    """The images that an index lists; a line that names no valid image is ignored."""
    found = set()
    for line in text.split("\n"):
        if line.startswith("Buildinfo: "):
            with contextlib.suppress(Error):
                found.add(ImageId.parse(line[11:].rpartition("/")[0], names.IMAGES))
    return found


def member(image: ImageId) -> str:
    """The name of an image in a set of images that are published together: CONFIG/ARCH."""
    return f"{image.config}/{image.architecture}"


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.partition("#")[0].split():
            yield number, words


def _is_image(value: str) -> bool:
    try:
        return bool(ImageId.parse(value))
    except Error:
        return False


def _is_release(value: str) -> bool:
    suite, _, serial = value.partition("/")
    return _is_image(f"{suite}/any/any/{serial}")


def _months(today: date, number: int) -> Iterator[str]:
    """YYYYMM of the last months, including this one."""
    for back in range(number):
        year, month = divmod(today.year * 12 + today.month - 1 - back, 12)
        yield f"{year:04}{month + 1:02}"


def _hint(records: Iterable[ImageRecord], image: str) -> str:
    known = {str(record.id) for record in records}
    if not _is_image(image):
        return "an image is named SUITE/CONFIG/ARCH/SERIAL, like its directory below images/"
    same = sorted(found for found in known if found.rpartition("/")[0] == image.rpartition("/")[0])
    return f"its serials are {', '.join(s.rpartition('/')[2] for s in same[-5:])}" if same else "see `Images`"
