# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell how an archive stands: what is published, until when it is valid, and what waits.

DIR is the archive's folder. Nothing is changed there and nobody is kept waiting:
what another verb is about to change is told as it was before.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debian_cloud.archive import lifecycle, state
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.image import index

if TYPE_CHECKING:
    import argparse

_SHOWN = 20
"""Images without a closure that people are told of; an archive that begins to keep them may have thousands."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("--json", action="store_true", help="print JSON; times are seconds since 1970")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    archive: Path = args.folder
    if not (archive / "state").is_dir():
        raise Error(f"{archive} is not an archive", f"make one: debian-cloud-archive init {archive}", USAGE)
    for _ in range(3):
        try:
            found = _overview(archive)
            break
        except FileNotFoundError as error:
            # The state is another by now, and the former one gone.
            gone = error
    else:
        raise Error(f"{gone.filename} is missing", f"debian-cloud-archive check {archive}")
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _tell(found)
    return 0


def _overview(archive: Path) -> dict[str, Any]:
    public = archive / "public"
    known = (archive / "state").resolve()
    accepted = _accepted(archive, known / "db")
    trace = public / "project/trace/master"
    return {
        "archive": str(archive.resolve()),
        "url": _text(archive / "conf/url").strip(),
        "serial": next(iter(_fields(trace, "Archive serial")), ""),
        "snapshot": max((found.name for found in public.glob("snap/[0-9]*Z")), default=""),
        "incoming": len([*(archive / "incoming").glob("*.changes")]),
        "undecided": len([*(archive / "tmp/upload").glob("*.changes")]),
        "rejected": len([*(archive / "rejected").iterdir()]),
        "suites": [
            _suite(archive, known, suite, accepted.get(suite, set()))
            for suite in _fields(archive / "conf/distributions", "Codename")
        ],
        "keys": _keys(archive),
    }


def _suite(archive: Path, known: Path, suite: str, accepted: set[tuple[str, ...]]) -> dict[str, Any]:
    """What of a suite is published, and what was accepted and is not."""
    dist = archive / "public/dists" / suite
    records = state.records(known, suite)
    held = state.held(archive, suite, records)
    missing = state.without_closure(archive, records)
    unkept = state.unkept(archive, suite, records)
    shown = index.parse(_text(dist / "main/images/Images"))
    folders = {record.directory for record in shown}
    packages = _published(dist)
    statuses = Counter({record.directory: record.status for record in shown}.values())
    return {
        "suite": suite,
        "date": _seconds(dist / "Release", "Date"),
        "valid_until": _seconds(dist / "Release", "Valid-Until"),
        "packages": len({(name, version) for architecture, name, version in packages if architecture != "source"}),
        "images": dict(sorted(statuses.items())),
        "waiting": {
            "packages": sorted({f"{name} {version}" for _, name, version in accepted - packages}),
            "images": sorted({record.directory for record in lifecycle.published(records, held, unkept)} - folders),
            "held": [one.release for one in held],
            "closures": [_closure(archive, directory, shown=directory not in unkept) for directory in missing],
        },
    }


def _closure(archive: Path, directory: str, *, shown: bool) -> dict[str, Any]:
    """What is known of an image whose closure is not there; `next` is when it is tried again, None is at once."""
    failure = state.failure(archive, directory)
    return {
        "image": directory,
        "shown": shown,
        "tries": failure.tries if failure else 0,
        "next": failure.next if failure else None,
        "reason": failure.reason if failure else "",
    }


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
    """The same of what the indexes list."""
    found: set[tuple[str, ...]] = set()
    for path in (*dist.glob("*/binary-*/Packages"), *dist.glob("*/source/Sources")):
        architecture = path.parent.name.removeprefix("binary-")
        # One of each in a stanza.
        found.update(
            (architecture, *pair) for pair in zip(_fields(path, "Package"), _fields(path, "Version"), strict=True)
        )
    return found


def _keys(archive: Path) -> list[dict[str, Any]]:
    """The archive's keys; `until` is when the last part of one that may sign expires, None is never."""
    # Not splitlines: in an owner's name, which both have, there may be a line separator.
    words = (line.split() for line in _text(archive / "conf/keys").split("\n") if not line.startswith("#"))
    states = {line[0].upper(): line[1] for line in words if len(line) > 1}
    listing = run.output(
        ("gpg", "--homedir", str(archive / "gnupg"), "--no-autostart", "--batch", "--with-colons", "--list-keys")
    )
    found: list[dict[str, Any]] = []
    ends: list[float] = []
    never = float("inf")
    for line in (line.split(":") for line in listing.split("\n")):
        if line[0] == "pub":
            found.append({"fingerprint": "", "owner": "", "state": "active", "until": None})
            primary, ends = float(line[6] or never), []
        if line[0] in ("pub", "sub") and "s" in line[11]:
            ends.append(min(primary, float(line[6] or never)))
            found[-1]["until"] = None if max(ends) == never else int(max(ends))
        if line[0] == "fpr" and not found[-1]["fingerprint"]:
            found[-1]["fingerprint"] = line[9]
            found[-1]["state"] = states.get(line[9], "active")
        if line[0] == "uid" and not found[-1]["owner"]:
            # A colon is \x3a there (gnupg, doc/DETAILS).
            found[-1]["owner"] = line[9].replace("\\x3a", ":")
    return found


def _tell(found: dict[str, Any]) -> None:
    """The same for people, one line a fact."""
    print(f"archive    {found['archive']}{f' as {url}' if (url := found['url']) else ''}")
    print(f"published  serial {found['serial'] or 'none'}, snapshot {found['snapshot'] or 'none'}")
    for one in found["suites"]:
        images = ", ".join(f"{number} {status}" for status, number in one["images"].items()) or "none"
        print(f"suite      {one['suite']}: {one['packages']} packages; images: {images}")
        print(f"           signed {_day(one['date'])}, {_left(one['valid_until'], 'valid', 'EXPIRED')}")
        waiting = one["waiting"]
        for what in (*waiting["packages"], *waiting["images"]):
            print(f"           accepted and not published: {what}")
        for one_image in waiting["closures"][:_SHOWN]:
            _tell_closure(one_image)
        if len(waiting["closures"]) > _SHOWN:
            print(f"           and {len(waiting['closures']) - _SHOWN} more of which it is not kept (--json has all)")
        for release in waiting["held"]:
            print(f"           held back, as images of its set are missing: {release}")
    undecided = f", {found['undecided']} cut off while it was decided" if found["undecided"] else ""
    print(f"uploads    {found['incoming']} in incoming{undecided}, {found['rejected']} kept in rejected")
    for key in found["keys"]:
        print(f"key        {key['fingerprint']} {key['owner']}")
        print(f"           {key['state']}, {_left(key['until'], 'signs', 'EXPIRED')}")


def _tell_closure(found: dict[str, Any]) -> None:
    word = "shown, and not kept" if found["shown"] else "not shown, as it is not kept"
    print(f"           {word} what it was made of: {found['image']}")
    if found["reason"]:
        print(f"             {found['reason']}")
        print(f"             tried {found['tries']} times, again after {_day(found['next'])}")


def _left(until: int | None, word: str, past: str) -> str:
    if until is None:
        return f"{word} without an end"
    left = until - time.time()
    if left < 0:
        return f"{past} {_day(until)}"
    return f"{word} until {_day(until)}, {left / 86400:.0f} days"


def _day(seconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds is not None else "never"


def _text(file: Path) -> str:
    return file.read_text("utf-8") if file.exists() else ""


def _fields(file: Path, name: str) -> list[str]:
    """The values of a field, in the order of the file."""
    return [line.partition(":")[2].strip() for line in _text(file).splitlines() if line.startswith(f"{name}:")]


def _seconds(release: Path, name: str) -> int | None:
    value = next(iter(_fields(release, name)), "")
    return int(parsedate_to_datetime(value).timestamp()) if value else None
