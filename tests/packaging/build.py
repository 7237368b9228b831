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
    done = subprocess.run(
        ["dpkg-buildpackage", "-b", "-us", "-uc"], cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise AssertionError(f"dpkg-buildpackage failed:\n{done.stdout.decode('utf-8', 'replace')[-4000:]}")
    return tmp
