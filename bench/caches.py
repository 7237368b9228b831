# SPDX-License-Identifier: GPL-3.0-or-later
"""The builder's cache, as each work finds it, prepared outside of what is measured.

An ordinary user's cache is where XDG_CACHE_HOME says. Root's is always /var/cache/debian-cloud: a command gets a
mount namespace with the bench's own directory there, so that the machine's cache is neither used nor changed. A hard
link cannot cross this mount: for root, a build copies the .debs that it would link.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from debian_cloud.packages import cache

NAME: Final = "debian-cloud"
"""Name of the cache's directory in XDG_CACHE_HOME."""
ROOTS: Final = Path("/var/cache") / NAME
DEBS: Final = (cache.DEBS,)
LAYERS: Final = (cache.DEBS, cache.LAYERS)

_LINKED: Final = (cache.DEBS, cache.LAYERS)
"""Directories whose files are never written to after they have their name."""
_MOUNTED: Final = 'mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; exec "$@"'


@dataclass(frozen=True, slots=True)
class Begin:
    """What the cache has before a work: `parts` of one that was saved as `saved`; None is all of it.

    Of these, what the patterns `gone` match is left out. With `kept`, it is the saved one itself, and what the work
    changes in it stays.
    """

    saved: str = ""
    parts: tuple[str, ...] | None = ()
    kept: bool = False
    gone: tuple[str, ...] = ()


NOTHING: Final = Begin()


@dataclass(frozen=True, slots=True)
class Caches:
    """The caches of one run in a directory of their own: the one that commands use, and those that were saved."""

    top: Path

    @property
    def home(self) -> Path:
        """XDG_CACHE_HOME of all commands: always the same path, since apt's own caches have it inside."""
        return self.top / "home"

    def save(self, name: str, parts: tuple[str, ...] | None = None) -> None:
        """Keep the cache as it is now, or parts of it, for later works."""
        _copy(self.home / NAME, self._saved(name), parts)

    def clear(self) -> None:
        """Empty the cache that commands use."""
        if self.home.exists():
            shutil.rmtree(self.home)

    def debs(self, name: str) -> Path:
        """The directory of .debs in a cache that was saved; their names are their SHA-256."""
        return self._saved(name) / cache.DEBS

    def layers(self) -> int:
        """Bytes of the layers in the cache that commands use."""
        return sum(path.stat().st_size for path in self.home.glob(f"{NAME}/{cache.LAYERS}/*-*") if path.is_file())

    @contextmanager
    def holding(self, begin: Begin) -> Iterator[None]:
        """Have the cache as a work needs it; what it leaves is removed, unless it is `kept`."""
        self.clear()
        there, saved = self.home / NAME, self._saved(begin.saved)
        if begin.kept:
            self.home.mkdir(parents=True)
            saved.rename(there)
        elif begin.saved:
            _copy(saved, there, begin.parts)
            _remove(there, begin.gone)
        else:
            there.mkdir(parents=True)
        try:
            yield
        finally:
            if begin.kept:
                there.rename(saved)
            self.clear()

    def command(self, argv: Sequence[str | Path], *, root: bool | None = None) -> tuple[str | Path, ...]:
        """The command that runs another with this cache; it also needs XDG_CACHE_HOME, if it does not run as root."""
        if not (os.geteuid() == 0 if root is None else root):
            return tuple(argv)
        (self.home / NAME).mkdir(parents=True, exist_ok=True)
        return ("unshare", "--mount", "sh", "-euc", _MOUNTED, "sh", self.home / NAME, ROOTS, *argv)

    def _saved(self, name: str) -> Path:
        return self.top / "saved" / name


def _copy(source: Path, target: Path, parts: tuple[str, ...] | None) -> None:
    """Copy directories of a cache, with owners and times; large files that never change are linked."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if parts is None or path.name in parts:
            link = ("--link",) if path.name in _LINKED else ()
            subprocess.run(["cp", "--archive", *link, path, target], check=True)


def _remove(place: Path, patterns: Sequence[str]) -> None:
    """Remove what patterns match; a pattern that matches nothing is an error, as the work would be another one."""
    for pattern in patterns:
        found = [*place.glob(pattern)]
        if not found:
            raise LookupError(f"the cache has no {pattern}")
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
