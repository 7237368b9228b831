# SPDX-License-Identifier: GPL-3.0-or-later
"""The cost of a command, with its descendants."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measure import CommandError, Cost, measure, median

BUSY = "import time\nx = bytearray(200 << 20)\nwhile time.process_time() < 0.5: pass"


def test_a_child_of_the_command_counts(tmp_path: Path) -> None:
    cost = measure(["sh", "-c", 'python3 -c "$1"; exit 0', "sh", BUSY], tmp_path)
    assert cost.cpu >= 0.5
    assert cost.mebibytes >= 200
    assert cost.seconds > 0


def test_waiting_costs_no_processor(tmp_path: Path) -> None:
    cost = measure(["sleep", "0.5"], tmp_path)
    assert cost.seconds >= 0.5 > cost.cpu


def test_a_failure_says_what_the_command_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="exit status 3\nso it is\n"):
        measure(["sh", "-c", "echo so it is >&2; exit 3"], tmp_path)


def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="more than 0 s"):
        measure(["sleep", "60"], tmp_path, most=0.2)


def test_the_median_is_of_each_figure() -> None:
    assert median([Cost(1, 9, 5), Cost(2, 8, 7), Cost(30, 1, 6)]) == Cost(2, 8, 6)
