# SPDX-License-Identifier: GPL-3.0-or-later
"""The goals for speed, and what the figures say of each. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bench import ours
from bench.measure import Cost

_NO_LAYERS: Final = "not measured: a build has no layers yet"
_SIX: Final = "not measured: one command builds one image yet"


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: `most` bounds what `reckon` makes of the two costs; `unit` follows the figure.

    `against` is the name of a cost, or empty if the goal is absolute. Without `reckon`, `why` says why nothing is
    measured.
    """

    work: str
    name: str
    against: str
    most: float
    unit: str = ""
    reckon: Callable[[Cost, Cost], float] | None = None
    why: str = ""
    strict: bool = False


def _ratio(cost: Cost, base: Cost) -> float:
    return cost.seconds / base.seconds


def _cpu_ratio(cost: Cost, base: Cost) -> float:
    return cost.cpu / base.cpu


def _more(cost: Cost, base: Cost) -> float:
    return cost.seconds - base.seconds


def _largest(cost: Cost, _: Cost) -> float:
    return cost.mebibytes


GOALS: Final = (
    Goal("cold build", ours.COLD, "fai", 0.50, reckon=_ratio),
    Goal("cold build", ours.COLD, "mmdebstrap", 0.55, reckon=_ratio),
    *(Goal("cold build", ours.COLD, peer, 1, reckon=_ratio, strict=True) for peer in ("mkosi", "vmdb2", "debos")),
    Goal("warm build, one drop-in of the vendor's configuration changed", "", "our cold build", 0.25, why=_NO_LAYERS),
    Goal("warm build, one security update in the base", "", "our cold build", 0.60, why=_NO_LAYERS),
    Goal("six vendors from nothing", "", "six times fai-diskimage", 0.15, why=_SIX),
    Goal("nothing changed", "", "", 1, " s", why="not measured: a build always builds yet", strict=True),
    Goal("raw and qcow2", ours.COLD_QCOW2, ours.COLD, 8, " s more", reckon=_more),
    Goal("list", ours.LIST, ours.APT_CACHE, 2, reckon=_ratio),
    Goal("show", ours.SHOW, ours.APT_CACHE, 2, reckon=_ratio),
    Goal("plan, second time with unchanged indexes", ours.PLAN, ours.APT_CACHE, 4, " of its CPU", reckon=_cpu_ratio),
    Goal("verify with nothing cached", ours.VERIFY, ours.COLD, 1.2, reckon=_ratio),
    Goal("verify with layers cached", "", "our cold build", 0.5, why=_NO_LAYERS),
    Goal("largest process of a cold build", ours.COLD, "", 600, " MiB", reckon=_largest),
    Goal("scratch space", "", "size of the root", 2.2, why="not measured"),
)
"""As the project has set them; `tests/bench/test_results.py` names the figures again."""


def judged(goal: Goal, medians: Mapping[str, Cost]) -> tuple[str, str]:
    """A goal's figure, and the verdict in a word or two."""
    if goal.reckon is None:
        return "-", goal.why
    missing = [name for name in (goal.name, goal.against) if name and name not in medians]
    if missing:
        return "-", f"not measured: no figure of {' or '.join(missing)}"
    cost = medians[goal.name]
    value = goal.reckon(cost, medians.get(goal.against, cost))
    reached = (operator.lt if goal.strict else operator.le)(value, goal.most)
    return f"{value:.2f}{goal.unit}", "reached" if reached else "**missed**"
