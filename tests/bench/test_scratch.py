# SPDX-License-Identifier: GPL-3.0-or-later
"""The scratch space of a build: what counts, and that the most is kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.__main__ import ROOTED
from bench.scratch import Space, watched

MEBI = 1 << 20


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))


def test_debs_and_results_do_not_count(tmp_path: Path) -> None:
    workspace = tmp_path / "out/.debian-13-ec2-amd64-1.0.build"
    write(workspace / "tree/usr/share/debs", MEBI)
    write(workspace / "tree/debian-x", MEBI)
    write(workspace / "debs/a.deb", 4 * MEBI)
    write(workspace / "debian-13-ec2-amd64-1.0.raw", 8 * MEBI)
    write(tmp_path / "out/debian-13-other.raw", 16 * MEBI)
    write(tmp_path / "memory/x/tree/a", 2 * MEBI)
    space = Space()
    space.look(tmp_path / "out", ROOTED, tmp_path / "memory")
    assert space.disk // MEBI == 2
    assert space.memory // MEBI == 2


def test_the_most_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "out/.x.build/tree"
    write(file, 3 * MEBI)
    space = Space()
    for size in (3 * MEBI, MEBI):
        write(file, size)
        space.look(tmp_path / "out", ROOTED, tmp_path / "none")
    assert space.together // MEBI == 3
    file.unlink()
    file.parent.rmdir()
    space.look(tmp_path / "out", ROOTED, tmp_path / "none")
    assert space.together // MEBI == 3


def test_it_is_looked_at_meanwhile(tmp_path: Path) -> None:
    with watched(tmp_path / "out", ROOTED) as space:
        write(tmp_path / "out/.x.build/tree", 2 * MEBI)
        time.sleep(2)
        (tmp_path / "out/.x.build/tree").unlink()
    assert space.disk // MEBI == 2
