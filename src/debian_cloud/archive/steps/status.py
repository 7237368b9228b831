# SPDX-License-Identifier: GPL-3.0-or-later
"""Report the status of an archive: what is published, until when it is valid, and what waits.

DIR is the archive's directory. Nothing is changed there, and no lock is taken: what
another verb is about to change is reported as it was before.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.archive.overview import overview

if TYPE_CHECKING:
    import argparse

    from debian_cloud.archive.overview import Overview, Unkept

_SHOWN: Final = 20
"""Maximum images without a closure in the text; an archive that begins to keep closures may have thousands."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("--json", action="store_true", help="print JSON; times are seconds since 1970")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    found = overview(args.folder)
    if args.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        _tell(found)
    return 0


def _tell(found: Overview) -> None:
    """Print the report for people, one fact a line."""
    print(f"archive    {found.archive}{f' as {url}' if (url := found.url) else ''}")
    print(f"published  serial {found.serial or 'none'}, snapshot {found.snapshot or 'none'}")
    for one in found.suites:
        images = ", ".join(f"{number} {status}" for status, number in one.images.items()) or "none"
        print(f"suite      {one.suite}: {one.packages} packages; images: {images}")
        print(f"           signed {_day(one.date)}, {_left(one.valid_until, 'valid', 'EXPIRED')}")
        waiting = one.waiting
        for what in (*waiting.packages, *waiting.images):
            print(f"           accepted, not published: {what}")
        for one_image in waiting.closures[:_SHOWN]:
            _tell_closure(one_image)
        if len(waiting.closures) > _SHOWN:
            print(f"           and {len(waiting.closures) - _SHOWN} more without a closure (--json lists all)")
        for release in waiting.held:
            print(f"           held back, because images of its set are missing: {release}")
    undecided = f", {found.undecided} interrupted during the decision" if found.undecided else ""
    print(f"uploads    {found.incoming} in incoming{undecided}, {found.rejected} kept in rejected")
    for key in found.keys:
        print(f"key        {key.fingerprint} {key.owner}")
        print(f"           {key.state}, {_left(key.until, 'signs', 'EXPIRED')}")


def _tell_closure(found: Unkept) -> None:
    word = "published without a closure" if found.shown else "not published, because it has no closure"
    print(f"           {word}: {found.image}")
    if found.reason:
        print(f"             {found.reason}")
        print(f"             tried {found.tries} times, next try after {_day(found.next)}")


def _left(until: int | None, word: str, past: str) -> str:
    if until is None:
        return f"{word} without end"
    left = until - time.time()
    if left < 0:
        return f"{past} {_day(until)}"
    return f"{word} until {_day(until)}, {left / 86400:.0f} days"


def _day(seconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds is not None else "never"
