# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell of which images an archive has yet to keep what they were made of.

DIR is the archive. Each image whose closure it is to keep and has not is printed,
SUITE/CONFIG/ARCH/SERIAL: those first that failed least often, and of these the
newest. With --due, only those whose time for another try has come. With
--failed, nothing is printed, and what standard input says of that image is noted
as the reason, and when it is to be tried again: after an hour, then after two, at
last once a day.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import lifecycle, state
from debian_cloud.errors import USAGE, Error

if TYPE_CHECKING:
    import argparse

_SAID = 2**16


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("--due", action="store_true", help="only those that are to be tried by now")
    parser.add_argument("--failed", default="", metavar="IMAGE", help="note that its closure could not be made")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    archive: Path = args.archive
    now = time.time()
    if args.failed:
        parts = args.failed.split("/")
        if len(parts) != 4:
            raise Error(f"{args.failed!r} is no image", "an image is named SUITE/CONFIG/ARCH/SERIAL", USAGE)
        directory = names.directory(*parts)
        reason = _reason(sys.stdin.read(_SAID))
        state.note_failure(archive, directory, lifecycle.failed(state.failure(archive, directory), reason, now))
        return 0
    missing = [
        directory
        for suite in state.suites(archive / "state")
        for directory in state.without_closure(archive, state.records(archive / "state", suite))
    ]
    for directory in {*state.failures(archive)} - {*missing}:
        state.note_failure(archive, directory, None)
    found = {directory: state.failure(archive, directory) for directory in missing}
    newest = sorted(missing, key=lambda directory: names.serial_key(directory.rpartition("/")[2]), reverse=True)
    for directory in sorted(newest, key=lambda directory: failure.tries if (failure := found[directory]) else 0):
        failure = found[directory]
        # A clock that was set back must not make it wait for longer than it ever would.
        if not args.due or not failure or not now < failure.next <= now + lifecycle.LAST_DELAY:
            print(directory.removeprefix("images/"))
    return 0


def _reason(said: str) -> str:
    """The sentence among what a tool said, and apt's own first one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((line.partition("error: ")[2] for line in lines if "error: " in line), "")
    of_apt = next((line for line in lines if line.startswith(("E: ", "Err:"))), "")
    return "; ".join(filter(None, (first, of_apt))) or (lines[-1] if lines else "it ended without a word")
