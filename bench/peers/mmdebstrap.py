# SPDX-License-Identifier: GPL-3.0-or-later
"""By hand: mmdebstrap makes the tree, mke2fs -d the file system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.mirror import Mirror
from bench.peers import DISK, installed, run

NAME = "mmdebstrap + mke2fs -d"
PACKAGE = "mmdebstrap e2fsprogs"
NOTE = "a file system alone: no partitions, no boot loader, no hashes"


def version() -> str:
    """Of mmdebstrap."""
    return installed("mmdebstrap")


def build(workdir: Path, packages: Sequence[str], mirror: Mirror) -> Path:
    """The file system of all packages."""
    (workdir / "sources.list").write_text("".join(f"{x}\n" for x in mirror.lines(f"[signed-by={mirror.keyring}]")))
    bootstrap = ("mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase")
    run([*bootstrap, f"--include={','.join(packages)}", mirror.suite, "tree", "sources.list"], workdir)
    run(["mke2fs", "-q", "-t", "ext4", "-d", "tree", "root.img", f"{DISK >> 10}k"], workdir)
    return workdir / "root.img"
