# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a plan may be kept for other builds: the tree after each stage, called a layer.

The id of a layer covers all that its content depends on: the SHA-256 of each package so far, what is done with
them in which order, the installer, and the answers to debconf. It does not cover the image's date, which changes with
each publication: what a stage makes has the date of the newest package so far. What a seed contains may be secret, so
an image with a seed has no layers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.plan import TREE, Plan, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debian_cloud.build.stages import Stage
    from debian_cloud.image.resolution import Resolution

_FORMAT: Final = 4
"""Changes if layers with equal ids would have another content."""


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """Steps of a plan, and the layer that they make, if any."""

    steps: Plan
    layer: str = ""


def identified(
    stages: Sequence[tuple[Stage, str]], resolution: Resolution, settings: tuple[str, ...]
) -> tuple[tuple[Stage, str, str], ...]:
    """Return each stage and its operations with the id of its layer; the ids are empty if the image has a seed.

    `settings` are the texts, besides packages and operations, on which the content of every layer depends.
    """
    if resolution.custom.seed:
        return tuple((stage, operations, "") for stage, operations in stages)
    sha256 = {package.name: package.sha256 for package in resolution.packages}
    found, so_far = [], _digest([_FORMAT, *settings])
    for stage, operations in stages:
        so_far = _digest([so_far, stage.name, operations, [[name, sha256[name]] for name in stage.packages]])
        found.append((stage, operations, so_far))
    return tuple(found)


def of(plan: Plan) -> tuple[str, ...]:
    """Return the ids of the layers of a plan, in the order in which they are made."""
    return tuple(step.layer for step in plan if isinstance(step, Run) and step.layer)


def parts(plan: Plan, place: str, kept: Sequence[str]) -> tuple[Part, ...]:
    """Split a plan after each layer that it makes, and let it keep them in the cache, which is the directory `place`.

    Of the first layers, the files `kept` are there: one step takes them from it.
    """
    ids = [name.partition("-")[0] for name in kept]
    files = {step.path for step in plan if not isinstance(step, Run) and step.layer in ids}
    found: list[Part] = []
    current: Plan = ()
    for step in plan:
        if step.layer in ids and step.layer:
            if isinstance(step, Run) and step.layer == ids[-1]:
                current = (*current, _take(place, kept))
            continue
        if isinstance(step, Run):
            step = replace(step, argv=tuple(word for word in step.argv if word not in files))
        current = (*current, step)
        if isinstance(step, Run) and step.layer:
            found.append(Part((*current, keep(place, step.layer, step.title)), step.layer))
            current = ()
    return (*found, Part(current))


def _take(place: str, kept: Sequence[str]) -> Run:
    """Return the step that makes the tree of layers in the cache."""
    argv = ("debian-cloud", "layer", "take", place, TREE, *kept)
    stages = "1 stage" if len(kept) == 1 else f"{len(kept)} stages"
    return Run(f"take {stages} from the cache", argv, root=True)


def keep(place: str, layer: str, stage: str) -> Run:
    """Return the step that keeps the tree as a layer in the cache."""
    return Run("keep it for other builds", ("debian-cloud", "layer", "keep", place, TREE, layer, stage), root=True)
