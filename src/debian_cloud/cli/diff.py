# SPDX-License-Identifier: GPL-3.0-or-later
"""Show what changed from one image to another.

A and B are images in any format that `build` makes, which are read without root and
without running anything in them, or the .buildinfo files beside them. Packages are listed with
their versions and sizes: those added, removed, upgraded, downgraded, and those
of the same version from another .deb.

For two images, it also lists the changelogs between the versions, with the CVEs
and the bugs that they name, by source package; and the files that differ, by
package, or as generated if no package has them. Times of files and everything
outside the root file system are ignored. For a downgrade, the lost entries are
listed.

The exit status is 0 whether anything differs or not: this is a changelog, not a
verdict. Signatures are not verified.

    debian-cloud diff debian-13-ec2-amd64-20261101.0.qcow2 debian-13-ec2-amd64-20261121.0.qcow2
    debian-cloud diff --json OLD.buildinfo NEW.buildinfo
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.proof import comparison, difference
from debian_cloud.proof.difference import GENERATED
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sized

    from debian_cloud.proof.difference import Changed, Changelog, Description, Difference, Files, Sourced


_SHOWN: Final = 1000
"""Maximum lines of a section in the text; --full and --json have all of them."""
_LONGEST: Final = 4096
"""Maximum characters of a line; a path has no more (PATH_MAX in limits.h)."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("old", type=Path, metavar="A", help="the older image or its .buildinfo")
    parser.add_argument("new", type=Path, metavar="B", help="the newer image or its .buildinfo")
    parser.add_argument("--full", action="store_true", help="print every line, path and changelog entry")
    parser.add_argument("--json", action="store_true", help="print all of that as JSON")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    found = comparison.compare(args.old, args.new)
    if args.json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        for line in _as_text(found, full=args.full):
            print(line)
    return 0


def _as_text(found: Difference, *, full: bool) -> Iterator[str]:
    yield f"from {_title(found.old)}"
    yield f"to   {_title(found.new)}"
    yield f"packages: {_counts(found)}" + (f"; {_signed(found.new.size - found.old.size)}" if found.sized else "")
    if found.files is not None:
        added, removed, changed = (
            (
                sum(len(part) for part in parts)
                for parts in zip(*((files.added, files.removed, files.changed) for files in found.files), strict=True)
            )
            if found.files
            else (0, 0, 0)
        )
        yield f"files: {added} added, {removed} removed, {changed} changed"
    for title, lost in (("named in changelogs", False), ("lost from changelogs", True)):
        cves, bugs = difference.named(found.changelogs, lost=lost)
        if cves or bugs:
            yield f"{title}: {_count(cves, 'CVE', 'CVEs')}, {_count(bugs, 'bug', 'bugs')}"
    most = sys.maxsize if full else _SHOWN
    for title, packages in (("added", found.added), ("removed", found.removed)):
        yield from _section(title, (_package(package, found) for package in packages), most)
    for title, changes in (
        ("upgraded", found.upgraded),
        ("downgraded", found.downgraded),
        ("of the same version, from another .deb", found.replaced),
    ):
        yield from _section(title, (_changed(change, found) for change in changes), most)
    logs = (line for log in found.changelogs for line in _changelog(log, full=full))
    yield from _section("changelogs", logs, most)
    of_files = (line for files in found.files or () for line in _of_package(files, full=full))
    yield from _section("files", of_files, most)


def _title(image: Description) -> str:
    what = ".debs" if image.files is None else "files"
    return _plain(f"{image.title}: {len(image.packages)} packages, {image.size / 2**20:.1f} MiB of {what}")


def _counts(found: Difference) -> str:
    counts = [
        f"{len(found.added)} added",
        f"{len(found.removed)} removed",
        f"{len(found.upgraded)} upgraded",
        f"{len(found.downgraded)} downgraded",
    ]
    return ", ".join([*counts, f"{len(found.replaced)} from another .deb"] if found.replaced else counts)


def _section(title: str, lines: Iterator[str], most: int) -> Iterator[str]:
    """The lines under a title, and how many more there are; nothing if there are no lines."""
    number = 0
    for number, line in enumerate(lines, 1):
        if number == 1:
            yield f"\n{title}:"
        if number <= most:
            yield f"  {line}"
    if number > most:
        yield f"  and {number - most} more lines; --full prints them"


def _package(package: Sourced, found: Difference) -> str:
    return _plain(f"{package.name} {package.version}") + (f"  {_size(package.size)}" if found.sized else "")


def _changed(change: Changed, found: Difference) -> str:
    arrow = f"{change.name} {change.old.version} -> {change.new.version}"
    grown = change.new.size - change.old.size
    return _plain(arrow) + (f"  {_signed(grown)}" if found.sized and grown else "")


def _changelog(log: Changelog, *, full: bool) -> Iterator[str]:
    yield _plain(f"{log.source} {log.old} -> {log.new}: {', '.join(log.packages)}")
    cves, bugs = difference.named((log,), lost=log.lost)
    if not log.news:
        yield "  no entry in the image's changelogs"
    elif log.lost:
        yield f"  {_count(log.news, 'entry', 'entries')} lost"
    if cves:
        yield f"  {' '.join(cves)}"
    if bugs:
        yield f"  closes {' '.join(f'#{bug}' for bug in bugs)}"
    for entry in log.news if full else ():
        yield _plain(f"  {entry.version} {entry.suite}")
        for line in entry.text.splitlines():
            yield f"    {_plain(line)}".rstrip()


def _of_package(files: Files, *, full: bool) -> Iterator[str]:
    counts = ((len(files.added), "added"), (len(files.removed), "removed"), (len(files.changed), "changed"))
    grown = files.new_size - files.old_size
    yield (
        _plain(files.package or "generated, or without a package")
        + (f": {', '.join(f'{count} {word}' for count, word in counts if count)}")
        + (f"  {_signed(grown)}" if grown else "")
    )
    if full:
        yield from (f"  + /{_plain(path)}" for path in files.added)
        yield from (f"  - /{_plain(path)}" for path in files.removed)
        yield from (f"  ~ /{_plain(path)}  ({', '.join(what)})" for path, what in files.changed.items())


def _count(things: Sized, one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}"


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if abs(size) >= 2**20 else f"{size / 2**10:.0f} KiB"


def _signed(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{_size(abs(size))}"


def _plain(text: str) -> str:
    """One line of an image's text, safe for a terminal."""
    return printable(text.expandtabs(), _LONGEST)


def _as_json(found: Difference) -> dict[str, object]:
    cves, bugs = difference.named(found.changelogs, lost=False)
    lost_cves, lost_bugs = difference.named(found.changelogs, lost=True)
    return {
        "old": _image(found.old),
        "new": _image(found.new),
        "packages": {
            "added": [asdict(package) for package in found.added],
            "removed": [asdict(package) for package in found.removed],
            "upgraded": [asdict(change) for change in found.upgraded],
            "downgraded": [asdict(change) for change in found.downgraded],
            "replaced": [asdict(change) for change in found.replaced],
        },
        "cves": cves,
        "bugs": bugs,
        "lost_cves": lost_cves,
        "lost_bugs": lost_bugs,
        "changelogs": [{**asdict(log), "lost": log.lost} for log in found.changelogs],
        "files": None
        if found.files is None
        else [{**asdict(files), "generated": files.package == GENERATED} for files in found.files],
    }


def _image(image: Description) -> dict[str, object]:
    return {
        "title": image.title,
        "architecture": image.architecture,
        "packages": len(image.packages),
        "size": image.size,
        "size_of": "debs" if image.files is None else "files",
    }
