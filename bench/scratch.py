# SPDX-License-Identifier: GPL-3.0-or-later
"""The space that a build takes while it works, besides its .debs and its results: looked at again and again."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EVERY: Final = 0.5
"""Seconds between two looks."""
_MEMORY: Final = Path("/dev/shm") / f"debian-cloud-{os.geteuid()}"
# A result has its final name in the workspace, too. What stays in the cache for other builds is not in the workspace.
_LEFT_OUT: Final = ("--exclude=*.build/debs", "--exclude=*.build/debian-*")


@dataclass(slots=True)
class Space:
    """Bytes of the disk and of memory, at the moment when both together were most."""

    disk: int = 0
    memory: int = 0

    @property
    def together(self) -> int:
        """Bytes of both."""
        return self.disk + self.memory

    def look(self, workspaces: Path, prefix: Sequence[str], memory: Path = _MEMORY) -> None:
        """Note what is taken now, if it is more than before; `workspaces` is the directory that builds write to."""
        found = Space(_used([*workspaces.glob(".*.build")], prefix), _used([memory], prefix))
        if found.together > self.together:
            self.disk, self.memory = found.disk, found.memory


@contextmanager
def watched(workspaces: Path, prefix: Sequence[str]) -> Iterator[Space]:
    """Look until the context ends; `prefix` is the command in which all files can be seen."""
    space, ended = Space(), threading.Event()

    def looking() -> None:
        while not ended.wait(EVERY):
            space.look(workspaces, prefix)

    thread = threading.Thread(target=looking)
    thread.start()
    try:
        yield space
    finally:
        ended.set()
        thread.join()


def _used(paths: Sequence[Path], prefix: Sequence[str]) -> int:
    there = [path for path in paths if path.exists()]
    if not there:
        return 0
    # Files come and go meanwhile: du says so, and goes on.
    argv: tuple[str | Path, ...] = (*prefix, "du", "--summarize", "--block-size=1", *_LEFT_OUT, "--", *there)
    said = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return sum(int(line.split()[0]) for line in said.splitlines())
