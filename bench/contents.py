# SPDX-License-Identifier: GPL-3.0-or-later
"""What a builder has made: which packages its disk has, as dpkg's own status on it says, and how much is on it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path


def packages(disk: Path) -> frozenset[str]:
    """The names of the packages that are installed on a disk, or on a file system alone; empty if it has none."""
    for offset in (0, *_partitions(disk)):
        # The file system is read, not mounted.
        reading = ("debugfs", "-R", "cat /var/lib/dpkg/status", f"{disk}?offset={offset}")
        done = subprocess.run(reading, capture_output=True, check=False)
        if found := installed(done.stdout.decode("utf-8", "replace")):
            return found
    return frozenset()


def size(disk: Path) -> int:
    """Bytes that files and directories take on the disk's file system; 0 if it has none.

    The journal and the tables of inodes are not content: mke2fs counts them as overhead.
    """
    for offset in (0, *_partitions(disk)):
        asked = ("dumpe2fs", "-h", f"{disk}?offset={offset}")
        said = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
        facts = dict(re.findall(r"^(Block count|Free blocks|Overhead clusters|Block size): +(\d+)$", said, re.M))
        if len(facts) == 4:
            blocks, free, overhead, block = (
                int(facts[name]) for name in ("Block count", "Free blocks", "Overhead clusters", "Block size")
            )
            return (blocks - free - overhead) * block
    return 0


def installed(status: str) -> frozenset[str]:
    """The packages that a dpkg status has as installed and configured."""
    stanzas = (stanza for stanza in status.split("\n\n") if re.search("^Status: .* ok installed$", stanza, re.M))
    return frozenset(name[1] for name in (re.search(r"^Package: (\S+)$", stanza, re.M) for stanza in stanzas) if name)


def _partitions(disk: Path) -> tuple[int, ...]:
    """Where the partitions begin, in bytes; none if there is no partition table."""
    done = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=False)
    if done.returncode:
        return ()
    table = json.loads(done.stdout)["partitiontable"]
    return tuple(part["start"] * table.get("sectorsize", 512) for part in table.get("partitions", ()))
