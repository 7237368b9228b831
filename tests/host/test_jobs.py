# SPDX-License-Identifier: GPL-3.0-or-later
"""Several jobs at once, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import jobs
from debian_cloud.host.jobs import Job, Outcome, Report


class Told:
    """What was reported, said and ended, in order."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, object]] = []
        self.lines: list[tuple[str, str]] = []
        self.ended: list[str] = []

    def run(self, work: dict[str, Job], at_once: int = 2) -> dict[str, Outcome]:
        return jobs.carry_out(
            work,
            at_once,
            lambda name, what: self.reports.append((name, what)),
            lambda name, line: self.lines.append((name, line)),
            lambda name, _: self.ended.append(name),
        )


def job(value: object) -> Job:
    def work(report: Report) -> object:
        report("begun")
        print("a line\nanother", end="", file=sys.stderr)
        print(" of the same", file=sys.stderr)
        return value

    return work


def failing(error: BaseException) -> Job:
    def work(_: Report) -> object:
        raise error

    return work


def test_each_gives_what_it_returns_in_the_order_of_the_jobs() -> None:
    told = Told()
    found = told.run({"b": job(1), "a": job([2])})
    assert [*found.items()] == [("b", Outcome(1)), ("a", Outcome([2]))]
    assert sorted(told.reports) == [("a", "begun"), ("b", "begun")]
    assert sorted(told.lines) == [
        *(("a", "a line"), ("a", "another of the same")),
        *(("b", "a line"), ("b", "another of the same")),
    ]
    assert sorted(told.ended) == ["a", "b"]


@pytest.mark.parametrize(
    ("error", "message", "hint", "status"),
    [
        (Error("no", "yes", USAGE), "no", "yes", USAGE),
        (FileNotFoundError(2, "No such file or directory", "x"), "x: No such file or directory", "check that", 1),
        (OSError(28, "No space left on device", "x"), "the disk is full: x cannot be written", "free some", 1),
        (ValueError("bad"), "a fault in this program", "report", 1),
        (KeyboardInterrupt(), "interrupted", "", 1),
    ],
    ids=["a sentence", "a file", "a full disk", "a fault", "an interruption"],
)
def test_one_that_fails_does_not_end_the_others(error: BaseException, message: str, hint: str, status: int) -> None:
    told = Told()
    found = told.run({"bad": failing(error), "good": job(1)}, at_once=1)
    assert found["good"] == Outcome(1)
    failure = found["bad"].error
    assert failure is not None
    assert message in failure.message
    assert hint in failure.hint
    assert failure.status == status


def test_a_fault_is_shown() -> None:
    told = Told()
    told.run({"bad": failing(ValueError("what it was"))})
    assert ("bad", "ValueError: what it was") in told.lines


def test_one_that_is_killed_is_a_failure() -> None:
    def work(_: Report) -> object:
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    found = Told().run({"killed": work, "good": job(1)})
    assert found["good"] == Outcome(1)
    assert found["killed"].error is not None
    assert "without a result" in found["killed"].error.message


def test_no_more_run_at_once_than_wanted(tmp_path: Path) -> None:
    def work(_: Report) -> object:
        mine = tmp_path / str(os.getpid())
        mine.touch()
        time.sleep(0.05)
        there = len([*tmp_path.iterdir()])
        mine.unlink()
        return there

    found = Told().run({str(number): work for number in range(9)}, at_once=3)
    assert max(outcome.value for outcome in found.values()) <= 3
    # They do run at the same time.
    assert max(outcome.value for outcome in found.values()) > 1


_INTERRUPTED = """
import sys, time
from pathlib import Path
from debian_cloud.host import jobs, signals
place = Path(sys.argv[1])
def work(name):
    def run(report):
        try:
            (place / f"{name}.begun").touch()
            time.sleep(60)
        finally:
            time.sleep(0.3)
            (place / f"{name}.cleaned").touch()
    return run
try:
    with signals.ending_politely():
        jobs.carry_out({n: work(n) for n in "ab"}, 2, *[lambda *_: None] * 3)
except KeyboardInterrupt:
    (place / "ended").touch()
"""


_AT_ONCE = """
import os, signal
start = multiprocessing.context.ForkProcess.start
def started(process):
    start(process)
    os.kill(os.getpid(), signal.SIGTERM)
multiprocessing.context.ForkProcess.start = started
"""
"""The signal comes as soon as a job has begun."""


def test_an_interruption_finds_the_job_that_has_just_begun(tmp_path: Path) -> None:
    script = f"import multiprocessing.context{_AT_ONCE}{_INTERRUPTED}"
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], start_new_session=True) as process:
        try:
            assert process.wait(30) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    names = {path.name for path in tmp_path.iterdir()}
    assert "ended" in names
    # It may not even have begun to work, or may clean up before it has done anything.
    assert "a.begun" not in names or "a.cleaned" in names
    assert "b.begun" not in names


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, "Ctrl-C"])
def test_an_interruption_waits_until_all_have_cleaned_up(tmp_path: Path, number: signal.Signals | str) -> None:
    """A terminal sends SIGINT to the jobs, too."""
    with subprocess.Popen([sys.executable, "-c", _INTERRUPTED, tmp_path], start_new_session=True) as process:
        for _ in range(300):
            if len([*tmp_path.glob("*.begun")]) == 2:
                break
            time.sleep(0.05)
        if isinstance(number, str):
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(number)
        assert process.wait(30) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.begun", "b.begun", "a.cleaned", "b.cleaned", "ended"),
    }
