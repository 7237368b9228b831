# SPDX-License-Identifier: GPL-3.0-or-later
"""The command as a person runs it, and what a refusal looks like."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

_WAITS = re.compile(r"^debian-cloud: waiting for another debian-cloud that uses .*\n", re.M)


STEP: Final = ("/usr/bin/python3", "-P", "-m", "debian_cloud.archive.steps")
"""How archive/lib/common.sh calls a step; for one in a test, PYTHONPATH has `SOURCE`."""
SOURCE: Final = Path(__file__).resolve().parents[1] / "src"


def debian_cloud(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return _run(["debian-cloud", *arguments], environment)


def step(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step of an archive's scripts to its end."""
    return _run([*STEP, *arguments], {"PYTHONPATH": str(SOURCE), **environment})


def _run(command: list[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Whether it had to wait for the cache depends on what else runs on this machine: that line is left out."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    done.stderr = _WAITS.sub("", done.stderr)
    return done


def refused(done: subprocess.CompletedProcess[str], status: int, *said: str) -> None:
    """One sentence and a hint, no traceback, and the right exit status."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert len(re.findall("^debian-cloud: error: ", done.stderr, re.M)) == 1
    for words in said:
        assert words in done.stderr
