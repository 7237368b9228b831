# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch the .debs of a plan once, and keep them by their SHA-256 for the next plans.

A plan lists each .deb with its SHA-256, which the planner took from a signed index. So it does not matter where a
file comes from: every file is hashed each time that a plan gets it, also one that was kept. The files are the user's
own; one that another user owns or can write to could change after that, and is fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host import files, folders, run
from debian_cloud.packages import cache
from debian_cloud.plan import Run
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from debian_cloud.image.resolution import Package
    from debian_cloud.plan import Plan

COMMAND: Final = ("debian-cloud", "packages")
"""The words by which a plan calls `fetch`."""
_OFFLINE: Final = "--offline"
_BATCH: Final = 500
"""Most files that one process fetches: their names are its arguments."""
_SLACK: Final = 2**16
"""Bytes beyond the largest file that a method of apt may write: it notes there what it has."""
_SHA256: Final = re.compile("[0-9a-f]{64}")
_LINE: Final = re.compile(r"([0-9a-f]{64}) ([0-9]{1,12}) ([a-zA-Z0-9][a-zA-Z0-9.+~_%-]*\.deb) (\S+)")
_LOCAL: Final = ("copy:", "file:")
"""URIs of files on this machine: they are not kept a second time, and a closure must have them itself."""
_LARGEST: Final = 2**24
"""Largest list of files, in bytes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A .deb to fetch: its SHA-256, its size in bytes, its name in the plan, and its URI as apt reads it."""

    sha256: str
    size: int
    deb: str
    uri: str


def listed(packages: Iterable[Package]) -> str:
    """Return the text of a list of .debs, as `fetch` reads it."""
    return "".join(sorted(f"{package.sha256} {package.size} {package.deb} {package.uri}\n" for package in packages))


def offline(plan: Plan) -> Plan:
    """Return a plan of which the step that calls `fetch` uses no network."""
    return tuple(
        replace(step, argv=(*COMMAND, _OFFLINE, *step.argv[2:]))
        if isinstance(step, Run) and step.argv[:2] == COMMAND
        else step
        for step in plan
    )


def fetch(target: Path, lists: Iterable[Path], *, offline: bool = False) -> None:
    """Put the listed .debs into a new directory, verified; raise Error if one cannot be had.

    With `offline`, no network is used: those that are not on this machine must be in the cache.
    """
    wanted = [deb for file in lists for deb in _read(file)]
    target.mkdir()
    with folders.locked(cache.directory() / cache.DEBS, "the cache of packages", wait=True):
        place = cache.directory() / cache.DEBS
        missing = [
            deb
            for deb in wanted
            if deb.uri.startswith(_LOCAL) or not _kept(place / deb.sha256, target / deb.deb, deb.sha256)
        ]
        if not missing:
            return
        if offline:
            _refuse_remote(missing)
        partial = place / "partial"
        # What a killed run left.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        for start in range(0, len(missing), _BATCH):
            _download(missing[start : start + _BATCH], partial)
        for deb in missing:
            got = partial / deb.sha256
            if not deb.uri.startswith(_LOCAL):
                got = got.rename(place / deb.sha256)
            if not _kept(got, target / deb.deb, deb.sha256):
                raise Error(
                    f"{deb.deb} from {printable(deb.uri)} is not the one with the SHA-256 {deb.sha256}",
                    "the archive has changed, or is damaged: plan again, or choose another mirror",
                )
        shutil.rmtree(partial)
        cache.bound_files(place, cache.BOUND_OF_DEBS)


def problem(path: Path) -> str:
    """Return what is wrong with the content of a kept file, or an empty string."""
    if not _SHA256.fullmatch(path.name):
        return "its name is not that of a package"
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == path.name
    return "" if same else "its content is not what its name says"


def _read(file: Path) -> tuple[Wanted, ...]:
    found = []
    for number, line in enumerate(files.text(file, _LARGEST).splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise Error(
                f"line {number} of {file} is not a .deb: {printable(line, 80)}",
                "each is SHA256 SIZE NAME.deb URI",
                USAGE,
            )
        sha256, size, deb, uri = match.groups()
        found.append(Wanted(sha256, int(size), deb, uri))
    return tuple(found)


def _refuse_remote(missing: Iterable[Wanted]) -> None:
    """Raise Error if a .deb is not on this machine."""
    remote = [deb.deb for deb in missing if not deb.uri.startswith(_LOCAL)]
    if remote:
        more = f", nor {len(remote) - 1} other packages" if remote[1:] else ""
        raise Error(f"the cache does not have {remote[0]}{more}", "run it once without --offline")


def _kept(kept: Path, target: Path, sha256: str) -> bool:
    """Make `target` the same file as one in the cache, or a copy; return whether it is there and has this SHA-256."""
    try:
        found = kept.lstat()
    except FileNotFoundError:
        return False
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        # Only this user can replace it after this look at it.
        with kept.open("rb") as source:
            same = hashlib.file_digest(source, "sha256").hexdigest() == sha256
        if same:
            # Its time of use, by which the cache is bounded.
            os.utime(kept)
            try:
                os.link(kept, target)
            except OSError:
                shutil.copyfile(kept, target)
            return True
    _remove(kept)
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _download(wanted: Sequence[Wanted], place: Path) -> None:
    """Fetch files into a directory, each named after its SHA-256, by apt's methods and this machine's settings."""
    words = [word for deb in wanted for word in (deb.uri, str(place / deb.sha256), f"SHA256:{deb.sha256}")]
    # apt's sandbox user cannot write here; a file with another hash is refused.
    # apt-helper does not know the size, and would write until the disk is full.
    bound = max(deb.size for deb in wanted) + _SLACK
    argv = ("prlimit", f"--fsize={bound}", "/usr/lib/apt/apt-helper", "-q", "-o", "APT::Sandbox::User=root")
    status = run.foreground((*argv, "download-file", *words))
    if status:
        raise Error(
            "packages cannot be fetched",
            "apt's message is above; check the network; if the archive has removed the packages, plan again",
            FAILED,
        )
    with contextlib.suppress(OSError):
        for file in place.iterdir():
            file.chmod(0o644)
