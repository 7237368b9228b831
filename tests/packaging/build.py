# SPDX-License-Identifier: GPL-3.0-or-later
"""The binary packages of this tree, built as a user builds them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_NOT_SOURCE: Final = (".git", ".venv", ".*_cache", "__pycache__", "*.egg-info")


def built_packages(tmp: Path, suite: str = "trixie") -> Path:
    """Build a suite's copy of the tree under `tmp`; return the directory of .debs, .buildinfo and .changes.

    Files that are not committed are built, too; generated files are left out.
    """
    return build(adopted(copy(ROOT, tmp), suite))


def copy(tree: Path, tmp: Path) -> Path:
    """Make a clean copy of a source tree under `tmp`."""
    there = tmp / "debian-cloud"

    def left_out(folder: str, names: list[str]) -> set[str]:
        # `make` writes its results to build/; in a subdirectory, that is an ordinary name.
        made = ("build",) if Path(folder) == tree else ()
        return shutil.ignore_patterns(*_NOT_SOURCE, *made)(folder, names)

    shutil.copytree(tree, there, symlinks=True, ignore=left_out)
    clean(there)
    return there


def adopted(tree: Path, suite: str) -> Path:
    """Make a source tree one of a suite, as a maintainer does."""
    command = ["/usr/bin/python3", "-m", "tools.render", "--suite", suite]
    subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": "src"}, check=True)
    return tree


def clean(tree: Path) -> None:
    """Remove generated files from a source tree."""
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
