# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings and the index files of this machine's own apt.

To name its index files, apt needs its binary cache. Machines that keep none, as containers do, would make it anew
each time, which takes longer than all else: for them, it is kept in the user's own cache. apt uses it only as long as
it is of the same index files.
"""

from __future__ import annotations

from typing import Final

from debian_cloud.errors import Error
from debian_cloud.host import files, run
from debian_cloud.image import sources
from debian_cloud.packages import cache

DUMP: Final = ("apt-config", "dump", "--no-empty", "--format", "%f %v%n")
"""Command that prints the settings of the machine's apt (apt-config(8))."""

_FOLDER: Final = "machine"
"""Directory of the cache for the binary cache of the machine's apt."""
_SETTING: Final = "Dir::Cache::pkgcache"


def settings() -> str:
    """Return all settings of this machine's apt, as `DUMP` prints them; they may contain passwords."""
    return run.output(DUMP)


def known(of_machine: str | None = None) -> tuple[sources.Target, ...]:
    """Return the index files that this machine's apt knows; `of_machine` are its settings, if they were read."""
    lines = (settings() if of_machine is None else of_machine).split("\n")
    own = () if any(line.startswith(f"{_SETTING} ") for line in lines) else _own()
    try:
        return sources.targets(run.output((*sources.INDEXTARGETS, *own)))
    except Error:
        if not own:
            raise
        # For example, the disk is full.
        return sources.targets(run.output(sources.INDEXTARGETS))


def _own() -> tuple[str, ...]:
    """Return the option for a binary cache in the user's own cache; none if it cannot be there."""
    try:
        folder = cache.directory() / _FOLDER
        files.refuse_changeable(folder.parent)
        # It is locked only while its owner is checked: apt replaces the file as a whole.
        with cache.used(folder, "the cache of this machine's index files"):
            cache.remove_unfinished(folder, cache.FRESH)
            return ("-o", f"{_SETTING}={folder / sources.BINARY_CACHE}")
    except (Error, OSError):
        return ()
