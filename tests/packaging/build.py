# SPDX-License-Identifier: GPL-3.0-or-later
"""The binary packages of this tree, built as a user would build them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_NOT_SOURCE: Final = (".git", ".venv", ".*_cache", "__pycache__", "build", "*.egg-info")


def source_tree(tmp: Path) -> Path:
    """A copy of the tree under `tmp`: what is not committed yet, too, but nothing that a tool made."""
    tree = tmp / "debian-cloud"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
    subprocess.run(["debian/rules", "clean"], cwd=tree, capture_output=True, check=True)
    return tree


def built_packages(tmp: Path) -> Path:
    """Build a copy of the tree under `tmp`; the folder with the .debs, the .buildinfo and the .changes."""
    tree = source_tree(tmp)
    log = tmp / "build.log"
    with log.open("wb") as out:
        done = subprocess.run(
            ["dpkg-buildpackage", "-b", "-us", "-uc"], cwd=tree, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    assert done.returncode == 0, log.read_text("utf-8", "replace")[-4000:]
    return tmp
