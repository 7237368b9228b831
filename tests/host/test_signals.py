# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals end the work in an orderly way, or are held back for a moment."""

from __future__ import annotations

import subprocess
import sys
import threading

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
