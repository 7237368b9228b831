# SPDX-License-Identifier: GPL-3.0-or-later
"""The binary packages of this tree, built as a user would build them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_NOT_SOURCE: Final = (".git", ".venv", ".*_cache", "__pycache__", "build", "*.egg-info")


def built_packages(tmp: Path) -> Path:
    """Build a copy of the tree under `tmp`; the folder with the .debs, the .buildinfo and the .changes.

    The working tree stays as it is, and what is not committed yet is built too.
    """
    tree = tmp / "debian-cloud"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
    log = tmp / "build.log"
    with log.open("wb") as out:
        done = subprocess.run(
            ["dpkg-buildpackage", "-b", "-us", "-uc"], cwd=tree, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    assert done.returncode == 0, log.read_text("utf-8", "replace")[-4000:]
    return tmp
