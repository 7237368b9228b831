# SPDX-License-Identifier: GPL-3.0-or-later
"""The linters run as tests, so that one command checks everything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def project_files() -> list[Path]:
    """The project's own files, relative to ROOT, also in a tree without git."""
    listed = subprocess.run([ROOT / "tests" / "sources"], capture_output=True, check=True).stdout.decode()
    return [Path(name) for name in sorted(listed.split("\0")) if name and (ROOT / name).is_file()]


def is_sh(path: Path) -> bool:
    with (ROOT / path).open("rb") as file:
        return not (ROOT / path).is_symlink() and file.readline().startswith(b"#!/bin/sh")


SCRIPTS = [path for path in project_files() if is_sh(path)]


@pytest.mark.parametrize(
    "command",
    [
        ["/usr/bin/python3", "-m", "mypy"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
    ],
    ids=["mypy", "ruff", "format"],
)
def test_python(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_shellcheck(script: Path) -> None:
    done = subprocess.run(
        ["shellcheck", "--external-sources", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_there_are_scripts_to_check() -> None:
    known = {"archive/debian-cloud-archive", "tests/demo", "debian/tests/archive"}
    assert known | {"debian/debian-cloud-config-common.postinst"} <= set(map(str, SCRIPTS))


def test_every_source_file_names_its_licence() -> None:
    sources = [path for path in project_files() if path.suffix == ".py" or is_sh(path)]
    without = [path for path in sources if "SPDX-License-Identifier:" not in (ROOT / path).read_text("utf-8")[:200]]
    assert [path for path in without if path.parent != Path("tests/golden")] == []
