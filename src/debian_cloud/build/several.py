# SPDX-License-Identifier: GPL-3.0-or-later
"""Build several images at once, each in a process of its own.

What a process gets is a request, a directory and a bound, all plain values: another machine could take them, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from debian_cloud.build import workspace
from debian_cloud.host import jobs, memory, signals
from debian_cloud.host.progress import Relayed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debian_cloud.build.request import BuildRequest
    from debian_cloud.host.jobs import Outcome, Report
    from debian_cloud.host.progress import Begin, Board
    from debian_cloud.host.timing import PackageTiming, Timing

_MEMORY: Final = 2**30
"""Bytes of memory for each build: its processes, and what it reads and writes meanwhile."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was built: its stem, its plan's id, its files, whether it is new (`Built`), and the cost."""

    stem: str
    plan: str
    files: tuple[str, ...]
    new: bool
    timings: tuple[Timing, ...]
    packages: tuple[PackageTiming, ...] = ()


def one(asked: BuildRequest, output: Path, bound: int, begin: Begin) -> Image:
    """Build one image in this process; the arguments are those of `workspace.build`."""
    built = workspace.build(asked, output, begin, bound=bound)
    planned = built.planned
    return Image(planned.stem, planned.id, planned.outputs, built.new, built.timings, built.packages)


def build(
    asked: Mapping[str, BuildRequest], output: Path, bound: int, at_once: int, board: Board
) -> dict[str, Outcome]:
    """Build named images in a directory, `at_once` of them if memory is enough; 0 is one for each processor."""
    most = max(1, memory.available() // _MEMORY)
    with signals.ending_politely():
        try:
            return jobs.carry_out(
                {name: partial(_job, request, output, bound) for name, request in asked.items()},
                min(at_once or os.cpu_count() or 1, most),
                lambda name, step: board.step(name, *cast("tuple[int, int, str]", step)),
                board.line,
                lambda name, _: board.ended(name),
            )
        finally:
            board.end()


def _job(asked: BuildRequest, output: Path, bound: int, report: Report) -> Image:
    return one(asked, output, bound, lambda total: Relayed(total, send=report))
