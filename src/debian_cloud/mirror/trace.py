# SPDX-License-Identifier: GPL-3.0-or-later
"""Trace files, which Debian's mirror checks read. None is signed: only lines of a known form are copied."""

from __future__ import annotations

import os
import re
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from debian_cloud import VERSION
from debian_cloud.host import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from debian_cloud.mirror.request import Source
    from debian_cloud.mirror.tree import Tree

MASTER: Final = "project/trace/master"
_MOST: Final = 4096
_DAY: Final = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH: Final = "(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK: Final = "[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
_SUITES: Final = re.compile("Suites:(( [a-z0-9][a-z0-9+.-]{0,99}){1,40})")
_SERIAL: Final = re.compile("Archive serial: ([0-9]{1,20})")
_KNOWN: Final = (
    re.compile(f"{_DAY} {_MONTH} [ 0-3][0-9] {_CLOCK} UTC [0-9]{{4}}"),
    _SERIAL,
    re.compile(rf"Date: {_DAY}, [0-3][0-9] {_MONTH} [0-9]{{4}} {_CLOCK} \+0000"),
    _SUITES,
)
_HOST: Final = re.compile("[A-Za-z0-9][A-Za-z0-9.-]{0,254}")


def suites(folder: Path) -> str:
    """The suites of an archive by its trace, with blanks between; "" if it does not say."""
    found = next((match for line in _lines(folder) if (match := _SUITES.fullmatch(line))), None)
    return found[1].strip() if found else ""


def write(tree: Tree, source: Source, suites: Sequence[str], started: float, size: int) -> None:
    """Write the trace of the archive, as it was fetched, and that of this host; `size` is what was fetched."""
    lines = [*_lines(tree.incoming)]
    kept = [found for known in _KNOWN if (found := next(filter(known.fullmatch, lines), None))]
    if kept:
        _replace(tree, "master", kept)
    serial = next((match[1] for line in kept if (match := _SERIAL.fullmatch(line))), "unknown")
    host = next((name for name in (run.answer(("hostname", "-f")).strip(), os.uname().nodename) if name), "")
    # That of the archive has the name master.
    host = host if _HOST.fullmatch(host) and host != "master" else "unknown"
    now = time.time()
    _replace(
        tree,
        host,
        (
            time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(now)),
            f"Date: {formatdate(now)[:-5]}+0000",
            f"Date-Started: {formatdate(started)[:-5]}+0000",
            f"Archive serial: {serial}",
            f"Creator: debian-cloud-mirror {VERSION}",
            f"Running on host: {host}",
            f"Suites: {' '.join(suites)}",
            f"Upstream-mirror: {source.host}",
            f"Transport: {source.scheme}",
            f"Total bytes received: {size}",
        ),
    )


def _lines(folder: Path) -> Iterator[str]:
    try:
        with (folder / MASTER).open("rb") as file:
            text = file.read(_MOST)
    except OSError:
        return iter(())
    return iter(text.decode("ascii", "replace").split("\n"))


def _replace(tree: Tree, name: str, lines: Sequence[str]) -> None:
    place = tree.dest / MASTER
    place.parent.mkdir(parents=True, exist_ok=True)
    (tree.work / "trace").write_text("".join(f"{line}\n" for line in lines), "ascii")
    (tree.work / "trace").replace(place.with_name(name))
