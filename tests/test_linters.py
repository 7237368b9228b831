# SPDX-License-Identifier: GPL-3.0-or-later
"""Linters are tests: one command is enough."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def tracked() -> list[Path]:
    """The project's own files; from the folder where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def is_sh(path: Path) -> bool:
    with path.open("rb") as file:
        return not path.is_symlink() and file.readline().startswith(b"#!/bin/sh")


SCRIPTS = [path for path in tracked() if is_sh(path) and "debian" not in path.parts]


@pytest.mark.parametrize(
    "command",
    [
        ["/usr/bin/python3", "-m", "mypy"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "src"],
    ],
    ids=["mypy", "ruff", "format"],
)
def test_python(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck(script: Path) -> None:
    done = subprocess.run(
        ["shellcheck", "--external-sources", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_there_are_scripts_to_check() -> None:
    assert {"debian-cloud-archive", "debian-cloud-mirror", "demo"} <= {path.name for path in SCRIPTS}


def test_every_source_file_names_its_licence() -> None:
    sources = [path for path in tracked() if path.suffix == ".py" or is_sh(path)]
    without = [path for path in sources if "SPDX-License-Identifier:" not in path.read_text()[:200]]
    assert [str(p.relative_to(ROOT)) for p in without if p.parent.name != "golden"] == []
