# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are brought to a mirror's staging area, and verified there."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debian_cloud.errors import Error
from debian_cloud.host.files import read
from debian_cloud.mirror import LocalError, changed, contradicted, transports, tree
from debian_cloud.mirror.listed import UNKNOWN, Listed
from debian_cloud.mirror.tree import Entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from debian_cloud.mirror.request import Request, Source
    from debian_cloud.mirror.tree import Tree


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file could not be brought: the source does not have it, or has another one there."""

    path: str
    is_there: bool

    def __str__(self) -> str:
        """As a sentence."""
        if self.is_there:
            return f"{self.path} does not have the size and hash in the signed index"
        return f"{self.path} is missing at the source"


@dataclass(slots=True)
class Staging:
    """The staging area of one try of a run: `first` if it is the first one."""

    request: Request
    source: Source
    tree: Tree
    say: Callable[[str], None]
    first: bool
    quiet: bool
    lock: int
    there: Entries = field(default_factory=Entries)
    """What the tree shows, once that was looked at."""
    known: Mapping[str, str] = field(default_factory=dict)
    """Path -> SHA-256 of what earlier runs have verified, once that was read."""
    fresh: set[str] = field(default_factory=set)
    """What was hashed in this run."""

    def fetch(self, files: Sequence[Listed], *, eager: bool = False) -> tuple[str, ...]:
        """Fetch files anew, or continue them; return some of those that the source does not have."""
        request = self.request
        # A source may have had a directory in the place of a file.
        into = f"{self.tree.incoming}/"
        for file in files:
            if os.path.isdir(into + file.path):  # noqa: PTH112 - as in `Tree.put`
                self.tree.clear(file.path)
        job = transports.Job(
            self.source,
            files,
            self.tree.incoming,
            self.tree.work,
            timeout=request.timeout,
            bandwidth=request.bandwidth,
            quiet=self.quiet,
            lock=self.lock,
            eager=eager,
        )
        return transports.find(self.source.scheme).fetch(job)

    def text(self, paths: Iterable[str], *, eager: bool = False) -> None:
        """Fetch files of which nothing is known, without what is staged of them."""
        wanted = [Listed(path) for path in paths]
        for file in wanted:
            self.tree.clear(file.path)
        self.fetch(wanted, eager=eager)
        # What is no file is none of those that were asked for.
        self.tree.staged()

    def bring(self, files: Iterable[Listed], *, eager: bool = False) -> dict[str, Fault]:
        """Have each file shown or staged, and verified; what is wrong with one that is not, by path.

        A file that an earlier run verified is verified by its size, any other by its hash.
        """
        unsure = {file.path: file for file in files if not self._is_sure(file)}
        self.fresh |= unsure.keys()
        staged = self.tree.staged()
        self._verify(unsure, staged)
        if not unsure:
            return {}
        self._clear(unsure, staged)
        wanted = [file for file in unsure.values() if not self._is_made(file)]
        total = sum(max(0, file.size - staged.get(file.path, 0)) for file in wanted)
        self._refuse_full(total)
        missing: tuple[str, ...] = ()
        if wanted:
            self.say(f"fetching {len(wanted)} files, {total} bytes")
            missing = self.fetch(wanted, eager=eager)
        staged = self.tree.staged()
        self._verify(unsure, staged)
        # Those that are missing for certain come first: the others may only have been aborted.
        faults = {path: Fault(path, is_there=False) for path in missing if path in unsure}
        for path in unsure:
            if path in staged:
                (self.tree.incoming / path).unlink()
            faults.setdefault(path, Fault(path, is_there=path in staged))
        return faults

    def need(self, files: Iterable[Listed]) -> str:
        """What would be fetched, as a part of a sentence; Error if the disk has no room for it.

        Sizes that no index lists, of small files, do not count.
        """
        staged = self.tree.staged()
        wanted = [file for file in files if not self._is_sure(file)]
        total = sum(max(0, file.size - staged.get(file.path, 0)) for file in wanted)
        self._refuse_full(total)
        return f"{len(wanted)} files, {total} bytes, would be fetched"

    def place(self, path: str) -> Path | None:
        """Where a file is, staged or shown; None if it is nowhere."""
        for folder in (self.tree.incoming, self.tree.dest):
            if (folder / path).is_file():
                return folder / path
        return None

    def former(self, path: str) -> bytes:
        """The content of an index that an earlier run has read and shown; nothing if it is not there as it was."""
        if self.request.verify_all or not 0 < self.there.files.get(path, 0) <= changed.LARGEST:
            return b""
        try:
            content = read(self.tree.dest / path, changed.LARGEST)
        except Error:
            return b""
        return content if hashlib.sha256(content).hexdigest() == self.known.get(path) else b""

    def _is_sure(self, file: Listed) -> bool:
        size = self.there.files.get(file.path, UNKNOWN)
        return (
            not self.request.verify_all
            and size != UNKNOWN
            and self.known.get(file.path) == file.sha256
            and file.size in (UNKNOWN, size)
        )

    def _is_made(self, file: Listed) -> bool:
        """Whether it is an empty file, which is made here: not every transport makes one."""
        if file.size == 0:
            (self.tree.incoming / file.path).parent.mkdir(parents=True, exist_ok=True)
            (self.tree.incoming / file.path).write_bytes(b"")
        return file.size == 0

    def _verify(self, unsure: dict[str, Listed], staged: Mapping[str, int]) -> None:
        """Remove the files from `unsure` whose hash is right: of the staged one, or else of the shown one."""
        there = self.there.files
        paths = [
            path
            for path, file in unsure.items()
            if (path in staged or path in there) and file.size in (UNKNOWN, staged.get(path, there.get(path)))
        ]
        for path, found in tree.hashes(paths, self.tree.places(staged)):
            if found == unsure[path].sha256:
                del unsure[path]

    def _clear(self, unsure: Mapping[str, Listed], staged: dict[str, int]) -> None:
        """Remove what cannot be continued: a partial file of an earlier run is continued, once."""
        for path in unsure.keys() & staged.keys():
            file = unsure[path]
            if not self.first or file.size == UNKNOWN or staged[path] >= file.size:
                (self.tree.incoming / path).unlink()
                del staged[path]

    def _refuse_full(self, total: int) -> None:
        free = shutil.disk_usage(self.tree.incoming).free
        if total > free:
            raise LocalError(
                f"the mirror needs {total} bytes more, but {self.tree.dest} has {free} bytes free",
                "free some space, or give it another disk; nothing was changed",
            )


def refuse_faults(faults: Mapping[str, Fault]) -> None:
    """Begin again if a file could not be brought."""
    for fault in faults.values():
        raise contradicted(str(fault))
