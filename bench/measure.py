# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command costs: wall time, CPU time, and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TAIL: Final = 20000
"""Bytes of a failed command's output that are kept."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall time, CPU seconds (user and system) of all processes, and MiB of the largest process."""

    seconds: float
    cpu: float
    mebibytes: float


class CommandError(Exception):
    """A command that failed, and the end of what it said."""


def median(costs: Iterable[Cost]) -> Cost:
    """The median of each figure."""
    costs = tuple(costs)
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        statistics.median(cost.mebibytes for cost in costs),
    )


def measure(
    argv: Sequence[str | Path],
    folder: Path,
    env: Mapping[str, str] | None = None,
    *,
    most: float = 3600,
    status: int = 0,
) -> Cost:
    """The cost of a command with all its descendants; raise CommandError if it fails.

    It is killed after `most` seconds; `status` is the exit status that is expected.
    """
    with tempfile.TemporaryFile() as said:
        begun = time.monotonic()
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timer = threading.Timer(most, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, waited, usage = os.wait4(process.pid, 0)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(waited)
        if process.returncode != status:
            said.seek(max(0, said.seek(0, os.SEEK_END) - _TAIL))
            late = f", it took more than {most:.0f} s" if seconds > most else ""
            raise CommandError(f"exit status {process.returncode}{late}\n{said.read().decode('utf-8', 'replace')}")
        return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
