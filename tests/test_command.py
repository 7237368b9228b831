# SPDX-License-Identifier: GPL-3.0-or-later
"""A test that fails shows the output of the command that it ran."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each of these would hide the output.
FAILURES = {
    "a status": """
    subprocess.run(COMMAND, capture_output=True, check=True)""",
    "a status behind another error": """
    try:
        subprocess.run(COMMAND, capture_output=True, check=True)
    except subprocess.CalledProcessError as error:
        raise RuntimeError("no") from error""",
    "an output": """
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    assert done.stdout == "x\"""",
    "a function's": """
    def ask():
        done = subprocess.run(COMMAND, capture_output=True)
        assert not done.returncode
    ask()""",
    "a time": """
    subprocess.run([*COMMAND[:2], f"{COMMAND[2][:-6]}sleep 60"], capture_output=True, timeout=0.5)""",
}
TEST = """\
import subprocess
import pytest

COMMAND = ["sh", "-c", "seq 999; echo the reason >&2; exit 3"]

def test_of_a_command():
    {body}

@pytest.fixture
def made():
    {body}

def test_of_a_fixture(made):
    pass
"""


@pytest.mark.parametrize("how", FAILURES)
def test_a_failure_shows_what_the_command_said(tmp_path: Path, how: str) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(TEST.format(body=FAILURES[how].strip()))
    words: tuple[str | Path, ...] = (
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        "-c",
        "/dev/null",
        "--tb=short",
    )
    command = [sys.executable, "-m", "pytest", *words, file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "1 failed, 1 error" in done.stdout
    assert len(re.findall("^-+ what was said by: sh -c seq .*\\n(?:.*[0-9]\\n)+the reason$", done.stdout, re.M)) == 2
