# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to fetch files: one module for each, whose `SCHEMES` are those of the addresses that it takes.

`fetch(job)` brings the files of a job, and returns the paths of those that it knows to be missing; whatever the
source does not have stays absent. It raises Error if it could not ask for all of them.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import progress, run
from debian_cloud.mirror import LocalError, refused
from debian_cloud.mirror.listed import UNKNOWN
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from debian_cloud.mirror.listed import Listed
    from debian_cloud.mirror.request import Source

_SLOWEST: Final = 1000
"""Bytes per second below which a source is given up."""
_PATIENCE: Final = 4
"""Number of timeouts that all requests may take besides."""
_PER_FILE: Final = 0.2
"""Seconds for each file."""
_UNKNOWN: Final = 2**25
"""Maximum bytes of a file of which no size is listed: twice what an InRelease may have."""
_USUAL: Final = 2**16
"""Bytes that such a file has, to estimate how long it takes."""
_LOG: Final = 2**20
_LINE: Final = 2**10
"""Bytes of a transfer's log, and of what it says about a file."""
_ROOM: Final = 2**16
"""Free bytes below which a disk is full."""


@dataclass(frozen=True, slots=True)
class Job:
    """Files to fetch from a source to a directory, with a place for working files.

    `timeout` is in seconds, `bandwidth` in KiB per second or 0. The processes of the job hold the descriptor `lock`.
    If `eager`, the job may end when a file is missing.
    """

    source: Source
    files: Sequence[Listed]
    into: Path
    work: Path
    timeout: int
    bandwidth: int
    quiet: bool
    lock: int
    eager: bool = False

    @property
    def slowest(self) -> int:
        """Bytes per second below which the source is given up."""
        return min(_SLOWEST, self.bandwidth * 1024 // 2) if self.bandwidth else _SLOWEST

    @property
    def limits(self) -> run.Limits:
        """What the transfer may take."""
        total = sum(_USUAL if file.size == UNKNOWN else file.size for file in self.files)
        largest = max((_UNKNOWN if file.size == UNKNOWN else file.size for file in self.files), default=0)
        return run.Limits(
            _PATIENCE * self.timeout + _PER_FILE * len(self.files) + total / self.slowest,
            # The log is a file, too.
            max(largest, _LOG + _LINE * len(self.files)),
            self.slowest,
            2.0 * self.timeout,
        )

    @property
    def drawn(self) -> bool:
        """Whether the transfer is shown as it goes on."""
        return not self.quiet and progress.live()

    def listing(self, text: str) -> Path:
        """A working file with the names of the files."""
        path = self.work / "files"
        path.write_text(text, "utf-8")
        return path

    def failed(self, ended: run.Ended, reason: str) -> Error:
        """The Error of a transfer that did not get to its end."""
        if shutil.disk_usage(self.into).free < _ROOM:
            raise LocalError(
                f"the disk of {self.into} is full (No space left on device)", "free some space; run again to continue"
            )
        if ended.status is None:
            reason = f"it sends less than {self.slowest} bytes per second"
        reason = reason or f"the transfer ended with status {ended.status}"
        return refused(f"cannot fetch from {self.source.shown}: {printable(reason)}", "run again to continue")


class Transport(Protocol):
    """The interface of a transport's module."""

    SCHEMES: tuple[str, ...]

    def fetch(self, job: Job) -> tuple[str, ...]:
        """Fetch the files of a job that the source has, and return the paths of some that it does not have."""


def find(scheme: str) -> Transport:
    """The transport for addresses of a scheme."""
    for module in pkgutil.iter_modules(__path__):
        found = cast("Transport", importlib.import_module(f"{__name__}.{module.name}"))
        if scheme in found.SCHEMES:
            return found
    raise Error(f"no transport fetches from {printable(scheme)}:", "give an address of rsync, http or https", USAGE)
