# SPDX-License-Identifier: GPL-3.0-or-later
"""What the steps of a build cost, in seconds."""

from __future__ import annotations

import contextlib
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Timing:
    """The cost of one step: seconds of wall time, and of CPU time (user and system)."""

    title: str
    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class PackageTiming:
    """How long dpkg took for one package, in seconds of wall time."""

    name: str
    unpack: float
    configure: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.unpack + self.configure


@contextlib.contextmanager
def timed(title: str, into: list[Timing]) -> Iterator[None]:
    """Append the cost of what the context does, unless it raises an exception.

    The CPU time is that of this process, its threads, and the processes that ended meanwhile (getrusage(2)).
    """
    begun, used = time.monotonic(), _cpu()
    yield
    into.append(Timing(title, time.monotonic() - begun, _cpu() - used))


def _cpu() -> float:
    """CPU seconds so far of this process, and of its descendants that have ended and were waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
