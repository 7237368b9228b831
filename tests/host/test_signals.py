# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals end the work in an orderly way, or are held back for a moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from debian_cloud.host import signals

# In a process of its own: pytest-xdist may run a test in another thread than the main one.
_ENDED = """
import os, signal, time
from debian_cloud.host import signals
with signals.ending_politely(), signals.undisturbed():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
print("undisturbed")
try:
    with signals.ending_politely():
        signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt as ended:
    print("ended by", *ended.args)
print(signal.getsignal(signal.SIGTERM))
"""


def test_no_signal_ends_us_while_half_the_work_would_be_left() -> None:
    done = subprocess.run([sys.executable, "-c", _ENDED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("undisturbed\nended by 15\n0\n", "")


_TWICE = """
import os, signal, sys, time
from debian_cloud.host import signals
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
first, second = map(int, sys.argv[1:])
try:
    with signals.ending_politely():
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(second)
            print("cleaned up")
except KeyboardInterrupt as ended:
    print(type(ended).__name__, *ended.args)
print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT) == signal.default_int_handler)
"""


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (signal.SIGINT, signal.SIGTERM, "KeyboardInterrupt"),
        (signal.SIGINT, signal.SIGINT, "KeyboardInterrupt"),
        (signal.SIGTERM, signal.SIGHUP, "Ended 15"),
        (signal.SIGHUP, signal.SIGINT, "Ended 1"),
    ],
)
def test_a_second_signal_does_not_end_the_cleaning_up(first: int, second: int, said: str) -> None:
    argv = (sys.executable, "-c", _TWICE, str(int(first)), str(int(second)))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"cleaned up\n{said}\n0 True\n", "")


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As nohup(1) has it."""
    code = (
        "from debian_cloud.host import signals; import signal\nwith signals.ending_politely(): signal.raise_signal(1)"
    )
    argv = ("nohup", sys.executable, "-c", f"{code}\nprint('done')")
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"done\n"


def test_in_another_thread_they_change_nothing() -> None:
    """Python would refuse to set a handler there."""
    found: list[str] = []

    def work() -> None:
        with signals.ending_politely(), signals.undisturbed():
            found.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["done"]
