# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts find their Python beside them, and never in the working directory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import SOURCE
from tests.conftest import ROOT

TRY = '#!/bin/sh\nset -eu\n. "${0%/*}/../lib/common.sh"\n"$@"\n'
WRONG = "debian-cloud: error: no such verb: frob\n"
KNOWN = "known: accept, "


def place(program: Path, modules: Path) -> Path:
    """Make a script beside the files that scripts source, with the modules at `modules`."""
    shutil.copytree(ROOT / "archive" / "lib", program / "lib")
    (program / "verbs").mkdir()
    (program / "verbs" / "try").write_text(TRY)
    modules.parent.mkdir(parents=True, exist_ok=True)
    modules.symlink_to(SOURCE)
    return program / "verbs" / "try"


@pytest.mark.parametrize(
    ("program", "modules"),
    [
        ("archive", "src"),
        # As `dpkg-deb -x` unpacks the two packages.
        ("usr/share/debian-cloud-archive", "usr/lib/python3/dist-packages"),
    ],
)
@pytest.mark.parametrize("words", [["step"], ["step_within", "60", "5"]], ids=" ".join)
@pytest.mark.parametrize("path", [{}, {"PYTHONPATH": ""}, {"PYTHONPATH": "/nonexistent"}], ids=str)
def test_a_step_is_found(tmp_path: Path, program: str, modules: str, words: list[str], path: dict[str, str]) -> None:
    script = place(tmp_path / "a tree" / program, tmp_path / "a tree" / modules)
    # A file in the working directory is not imported.
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "argparse.py").write_text("raise SystemExit('not from here')")
    done = subprocess.run(
        ["sh", script, *words, "frob", "$HOME; x"],
        cwd=tmp_path / "cwd",
        env={"PATH": "/usr/bin:/bin", **path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(WRONG)
    assert KNOWN in done.stderr


def test_a_step_without_an_end_is_ended(tmp_path: Path) -> None:
    script = place(tmp_path / "archive", tmp_path / "src")
    (tmp_path / "python3").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python3").chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "DEBIAN_CLOUD_PYTHON": str(tmp_path / "python3")}
    done = subprocess.run(["sh", script, "step_within", "0.2", "5", "frob"], env=env, check=False, timeout=30)
    assert done.returncode == 124


def test_a_step_does_not_hold_the_lock(tmp_path: Path) -> None:
    """A step does not inherit descriptor 9, the archive's lock (open_archive)."""
    script = place(tmp_path / "archive", tmp_path / "src")
    (tmp_path / "python3").write_text('#!/bin/sh\nfor fd in /proc/self/fd/*; do readlink "$fd" || :; done\n')
    (tmp_path / "python3").chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "DEBIAN_CLOUD_PYTHON": str(tmp_path / "python3")}
    for words in (["step", "x"], ["step_within", "9", "9", "x"]):
        script.write_text(TRY.replace('"$@"', 'exec 9>>"$1"\nshift\n"$@"\n'))
        command: list[str | Path] = ["sh", script, tmp_path / "lock", *words]
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=30)
        assert done.stdout
        assert "/lock" not in done.stdout
