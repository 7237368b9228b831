# SPDX-License-Identifier: GPL-3.0-or-later
"""The command as a user runs it, and the checks of a refusal."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
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
    """Run a command; drop the line that says it waited for the cache, which depends on what else runs here."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    done.stderr = _WAITS.sub("", done.stderr)
    return done


def refused(done: subprocess.CompletedProcess[str], status: int, *said: str) -> None:
    """Assert that the output is one sentence and a hint without a traceback, and the exit status the right one."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert len(re.findall("^debian-cloud: error: ", done.stderr, re.M)) == 1
    for words in said:
        assert words in done.stderr


def said(error: BaseException) -> dict[str, str]:
    """The output of commands that an error names or that functions in its traceback ran: command -> output.

    An error of subprocess has only the status, and an assertion shows only the beginning of an output.
    """
    found: dict[str, str] = {}
    for one in _causes(error):
        if isinstance(one, subprocess.CalledProcessError | subprocess.TimeoutExpired):
            found[_words(one.cmd)] = _text(one.stdout) + _text(one.stderr)
        frames = one.__traceback__
        while frames:
            for value in frames.tb_frame.f_locals.values():
                if isinstance(value, subprocess.CompletedProcess):
                    found[_words(value.args)] = _text(value.stdout) + _text(value.stderr)
            frames = frames.tb_next
    return found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _words(command: object) -> str:
    words = command if isinstance(command, list | tuple) else (command,)
    return " ".join(map(str, words))[:200]


def _text(output: object, most: int = 6000) -> str:
    """The end of an output, which may be bytes or None."""
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else str(output or "")
    return text if len(text) <= most else f"[…]{text[-most:]}"
