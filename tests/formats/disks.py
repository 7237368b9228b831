# SPDX-License-Identifier: GPL-3.0-or-later
"""A small disk in a format, made by the commands of a plan, but with this machine's tools."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from debian_cloud import formats
from debian_cloud.plan import Run

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = 1764028800


def raw(path: Path, size: int = 2**20) -> Path:
    """A disk with a partition table, data with holes between, and a hole at the end."""
    with path.open("wb") as file:
        file.truncate(size)
    table = "label: gpt\nlabel-id: 8f2c1f86-0ff8-4b1a-9e5c-2f7d0a3b9c11\nfirst-lba: 64\nstart=64, size=1024\n"
    subprocess.run(["sfdisk", "--quiet", path], input=table, text=True, check=True)
    with path.open("r+b") as file:
        for block in range(9, 130, 2):
            file.seek(4096 * block)
            file.write(bytes([block]) * (4096 if block % 3 else 5))
    return path


def made(name: str, disk: Path, out: Path, epoch: int = EPOCH) -> Path:
    """The file that the steps of a format make of a disk."""
    for step in formats.find(name).steps("SOURCE", "OUT", epoch):
        assert isinstance(step, Run)
        assert step.argv[:2] == ("./in-tree", "tree")
        places = {"/mnt/SOURCE": str(disk), "/mnt/OUT": str(out)}
        argv = [places.get(word, word) for word in step.argv[2:]]
        subprocess.run(argv, check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"})
    return out
