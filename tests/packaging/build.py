# SPDX-License-Identifier: GPL-3.0-or-later
"""The binary packages of this tree, built as a user would build them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_NOT_SOURCE: Final = (".git", ".venv", ".*_cache", "__pycache__", "*.egg-info")


def built_packages(tmp: Path, suite: str = "trixie") -> Path:
    """Build a suite's copy of the tree under `tmp`; the directory with the .debs, the .buildinfo and the .changes.

    What is not committed yet is built, too; what a tool made is left out.
    """
    return build(adopted(copy(ROOT, tmp), suite))


def copy(tree: Path, tmp: Path) -> Path:
    """A cleaned copy of a source tree under `tmp`."""
    there = tmp / "debian-cloud"

    def left_out(folder: str, names: list[str]) -> set[str]:
        # `make` leaves its results in build/; further down that is a name like any other.
        made = ("build",) if Path(folder) == tree else ()
        return shutil.ignore_patterns(*_NOT_SOURCE, *made)(folder, names)

    shutil.copytree(tree, there, symlinks=True, ignore=left_out)
    clean(there)
    return there


def adopted(tree: Path, suite: str) -> Path:
    """A source tree made a suite's, as a maintainer makes it."""
    command = ["/usr/bin/python3", "-m", "tools.render", "--suite", suite]
    subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": "src"}, check=True)
    return tree


def clean(tree: Path) -> None:
    """Remove from a source tree what its build made."""
    subprocess.run(["debian/rules", "clean"], cwd=tree, capture_output=True, check=True)


def build(tree: Path, what: str = "-b") -> Path:
    """Build a source tree; return the directory with the result, its parent. `what` is dpkg-buildpackage's option."""
    log = tree.parent / "build.log"
    with log.open("wb") as out:
        done = subprocess.run(
            ["dpkg-buildpackage", what, "-us", "-uc"], cwd=tree, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    assert done.returncode == 0, log.read_text("utf-8", "replace")[-4000:]
    return tree.parent
