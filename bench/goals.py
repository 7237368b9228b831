# SPDX-License-Identifier: GPL-3.0-or-later
"""The goals for speed, and what the figures say of each. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bench import ours
from bench.measure import Cost

SCRATCH: Final = "scratch"


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: `most` bounds what `reckon` makes of the two costs; `unit` follows the figure.

    `against` is the name of a cost, or empty if the goal is absolute. Only the figure of the one whose name is
    `SCRATCH` is not made of costs.
    """

    work: str
    name: str
    against: str
    most: float
    unit: str = ""
    reckon: Callable[[Cost, Cost], float] | None = None
    strict: bool = False


def _ratio(cost: Cost, base: Cost) -> float:
    return cost.seconds / base.seconds


def _of_six(cost: Cost, base: Cost) -> float:
    return cost.seconds / (len(ours.VENDORS) * base.seconds)


def _cpu_ratio(cost: Cost, base: Cost) -> float:
    return cost.cpu / base.cpu


def _more(cost: Cost, base: Cost) -> float:
    return cost.seconds - base.seconds


def _seconds(cost: Cost, _: Cost) -> float:
    return cost.seconds


def _largest(cost: Cost, _: Cost) -> float:
    return cost.mebibytes


GOALS: Final = (
    Goal("cold build", ours.COLD, "fai", 0.50, reckon=_ratio),
    Goal("cold build", ours.COLD, "mmdebstrap", 0.55, reckon=_ratio),
    *(Goal("cold build", ours.COLD, peer, 1, reckon=_ratio, strict=True) for peer in ("mkosi", "vmdb2", "debos")),
    Goal("warm build, one drop-in of the vendor's configuration changed", ours.WARM, ours.COLD, 0.25, reckon=_ratio),
    Goal("warm build, one security update in the base", ours.UPDATED, ours.COLD, 0.60, reckon=_ratio),
    Goal("six vendors from nothing, one command", ours.SIX, "fai", 0.15, " of six times it", reckon=_of_six),
    Goal("nothing changed", ours.SAME, "", 1, " s", reckon=_seconds, strict=True),
    Goal("raw and qcow2", ours.COLD_QCOW2, ours.COLD, 8, " s more", reckon=_more),
    Goal("list", ours.LIST, ours.APT_CACHE, 2, reckon=_ratio),
    Goal("show", ours.SHOW, ours.APT_CACHE, 2, reckon=_ratio),
    Goal("plan, second time with unchanged indexes", ours.PLAN, ours.APT_CACHE, 4, " of its CPU", reckon=_cpu_ratio),
    Goal("verify with nothing cached", ours.VERIFY, ours.COLD, 1.2, reckon=_ratio),
    Goal("verify with layers cached", ours.VERIFY_LAYERS, ours.COLD, 0.5, reckon=_ratio),
    Goal("largest process of a cold build", ours.COLD, "", 600, " MiB", reckon=_largest),
    Goal("scratch space of a cold build", SCRATCH, "size of the root", 2.2),
)
"""As the project has set them; `tests/bench/test_results.py` names the figures again."""


def judged(goal: Goal, medians: Mapping[str, Cost], scratch: float | None = None) -> tuple[str, str]:
    """A goal's figure, and the verdict in a word or two; `scratch` is that of the scratch space, if there is one."""
    if goal.reckon is None:
        return _said(goal, scratch) if scratch is not None else ("-", "not measured: no cold build was watched")
    missing = [name for name in (goal.name, goal.against) if name and name not in medians]
    if missing:
        return "-", f"not measured: no figure of {' or '.join(missing)}"
    cost = medians[goal.name]
    return _said(goal, goal.reckon(cost, medians.get(goal.against, cost)))


def _said(goal: Goal, value: float) -> tuple[str, str]:
    reached = (operator.lt if goal.strict else operator.le)(value, goal.most)
    return f"{value:.2f}{goal.unit}", "reached" if reached else "**missed**"
