# SPDX-License-Identifier: GPL-3.0-or-later
"""The cost of steps: what waits costs wall time alone, and what computes costs CPU time."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from debian_cloud import plan as plans
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.host.progress import Progress
from debian_cloud.host.timing import Timing, timed

BUSY = "import time\nwhile time.process_time() < 0.5: pass"


def test_each_step_has_its_cost(tmp_path: Path) -> None:
    steps: plans.Plan = (
        plans.Write("write", "file", "text"),
        plans.Run("wait", ("sleep", "0.5")),
        # The process that computes is a child of the step's own.
        plans.Run("compute", ("sh", "-c", 'python3 -c "$1"; exit 0', "sh", BUSY)),
    )
    cost = {found.title: found for found in run.carry_out(steps, tmp_path, Progress(3, quiet=True))}
    assert [*cost] == ["write", "wait", "compute"]
    assert cost["write"].seconds < 0.5
    assert cost["wait"].seconds >= 0.5 > cost["wait"].cpu >= 0
    assert cost["compute"].cpu >= 0.5
    assert cost["compute"].seconds > 0


def test_this_process_counts_too() -> None:
    found: list[Timing] = []
    with timed("compute", found):
        begun = time.process_time()
        while time.process_time() - begun < 0.2:
            pass
    assert [(one.title, one.cpu >= 0.2) for one in found] == [("compute", True)]


def test_a_failed_step_has_no_cost(tmp_path: Path) -> None:
    found: list[Timing] = []
    with pytest.raises(Error), timed("fail", found):
        run.carry_out((plans.Run("fail", (sys.executable, "-c", "exit(1)")),), tmp_path, Progress(1, quiet=True))
    assert found == []
