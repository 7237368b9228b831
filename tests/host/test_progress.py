# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

STEPS = """
from debian_cloud.host.progress import Progress
progress = Progress(2, quiet={quiet})
progress.step("first")
progress.tick()
progress.step("second")
progress.tick("a word of its tool " * 20)
progress.end()
"""
ERASE = "\x1b[K"
PLAIN = "[ 1/2] first\n[ 2/2] second\n"


def on_terminal(quiet: bool = False, **environment: str) -> str:
    """What two steps write on a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", STEPS.format(quiet=quiet)],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path), "TERM": "xterm", "COLUMNS": "60", **environment},
            stderr=theirs,
            check=True,
        )
        # Write something, so that the read below cannot block.
        os.write(theirs, b"end")
        return os.read(ours, 65536).decode().removesuffix("end")
    finally:
        os.close(ours)
        os.close(theirs)


def test_on_a_terminal_one_line_is_written_over_and_goes_away() -> None:
    said = on_terminal()
    blank, first, second, end = said.split("\r")
    assert blank == ""
    assert re.fullmatch(rf"\[-{{24}}\] 1/2 +\d+ s  first{re.escape(ERASE)}", first)
    assert re.match(r"\[#{12}-{12}\] 2/2 +\d+ s  second: a word", second)
    assert end == ERASE
    assert "\n" not in said


def test_a_line_never_wraps() -> None:
    assert max(len(line.removesuffix(ERASE)) for line in on_terminal().split("\r")) == 59


def test_there_are_no_colours() -> None:
    """The output is without colours, as NO_COLOR asks; the only escape code erases the rest of the line."""
    for said in (on_terminal(), on_terminal(NO_COLOR="1")):
        assert "\x1b" not in said.replace(ERASE, "")


def test_a_terminal_that_cannot_go_back_gets_plain_lines() -> None:
    assert on_terminal(TERM="dumb").replace("\r\n", "\n") == PLAIN


def test_a_pipe_gets_plain_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS.format(quiet=False)],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "TERM": "xterm"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", PLAIN)


def test_quiet_is_quiet() -> None:
    assert on_terminal(quiet=True) == ""
