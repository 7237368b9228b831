# SPDX-License-Identifier: GPL-3.0-or-later
"""Run several jobs at once, each in a process of its own, because apt's state belongs to a process.

A job is a function without arguments but one by which it reports; what it returns, reports and raises must be
picklable. One that fails does not end the others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from debian_cloud.errors import Error
from debian_cloud.host import command, signals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

Report = Callable[[object], None]
Job = Callable[[Report], object]

_FORK: Final = multiprocessing.get_context("fork")
_REPORT, _LINE, _DONE, _FAILED = "report", "line", "done", "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job returned, or the error that it raised."""

    value: Any = None
    error: Error | None = None


def carry_out(
    jobs: Mapping[str, Job],
    at_once: int,
    reported: Callable[[str, object], None],
    said: Callable[[str, str], None],
    ended: Callable[[str, Outcome], None],
) -> dict[str, Outcome]:
    """Run named jobs, `at_once` of them at the same time, and return the outcome of each.

    `reported` gets what a job reports, `said` each line that it writes to standard error, `ended` its outcome. If
    this process is interrupted, so are the jobs, and it waits until they have cleaned up.
    """
    waiting = [*jobs]
    running: dict[Connection, tuple[str, ForkProcess]] = {}
    found: dict[str, Outcome] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                # An interruption must not find a process that is not among those that are running.
                with signals.deferred():
                    pipe, process = _begun(jobs[name])
                    running[pipe] = name, process
            for ready in multiprocessing.connection.wait([*running]):
                pipe = cast("Connection", ready)
                name, process = running[pipe]
                outcome = _heard(pipe, partial(reported, name), partial(said, name))
                if outcome:
                    del running[pipe]
                    process.join()
                    pipe.close()
                    found[name] = outcome
                    ended(name, outcome)
    finally:
        with signals.undisturbed():
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.join()
    return {name: found[name] for name in jobs}


def _begun(job: Job) -> tuple[Connection, ForkProcess]:
    here, there = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=partial(_work, job, there))
    process.start()
    there.close()
    return here, process


def _heard(pipe: Connection, reported: Callable[[object], None], said: Callable[[str], None]) -> Outcome | None:
    """Take one message of a job; return its outcome if that was its last."""
    try:
        kind, value = pipe.recv()
    except (EOFError, OSError):
        # The kernel may have killed it.
        return Outcome(error=Error("its process ended without a result", "is memory enough? give a smaller --jobs"))
    if kind == _DONE:
        return Outcome(value)
    if kind == _FAILED:
        return Outcome(error=Error(*value))
    (reported if kind == _REPORT else said)(value)
    return None


def _work(job: Job, pipe: Connection) -> None:
    """Run a job in this process, a new one."""
    lines = _Lines(pipe)
    with contextlib.redirect_stderr(cast("TextIO", lines)), contextlib.redirect_stdout(cast("TextIO", lines)):
        try:
            with signals.ending_politely():
                signals.accepted()
                last = (_DONE, job(lambda value: pipe.send((_REPORT, value))))
        except Error as error:
            last = (_FAILED, (error.message, error.hint, error.status))
        except OSError as error:
            failure = command.failure(error)
            last = (_FAILED, (failure.message, failure.hint, failure.status))
        except KeyboardInterrupt:
            last = (_FAILED, ("interrupted", ""))
        except Exception:
            # The other jobs go on.
            traceback.print_exc()
            last = (_FAILED, ("a fault in this program, shown above", "please report it"))
    # The parent may have been killed.
    with contextlib.suppress(OSError):
        pipe.send(last)


class _Lines:
    """A stream that sends each line to the parent."""

    encoding = "utf-8"

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._begun = pipe, ""

    def write(self, text: str) -> int:
        """Send the lines that are complete."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._pipe.send((_LINE, line))
        return len(text)

    def flush(self) -> None:
        """Nothing waits but the beginning of a line."""

    def isatty(self) -> bool:
        """No: the parent writes to the terminal."""
        return False
