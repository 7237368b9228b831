# SPDX-License-Identifier: GPL-3.0-or-later
"""By the protocol of rsync(1)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from debian_cloud.host import run

if TYPE_CHECKING:
    from debian_cloud.mirror.transports import Job

SCHEMES: Final = ("rsync",)
_SOME_MISSING: Final = (0, 23, 24)
"""Exit statuses of a transfer that may lack some files (rsync(1))."""
_BATCH: Final = 10_000
"""Files of one transfer: the time that rsync needs for a list grows with its square."""
_ENVIRONMENT: Final = ("RSYNC_PASSWORD", "RSYNC_PROXY")


def fetch(job: Job) -> tuple[str, ...]:
    """Fetch the files of a job that the source has; a partial file is continued."""
    for start in range(0, len(job.files), _BATCH):
        _fetch(replace(job, files=job.files[start : start + _BATCH]))
    return ()


def _fetch(job: Job) -> None:
    source = job.source
    below = f"{source.below}/" if source.below else ""
    # Paths from the module's root: rsync 3.5.0 servers without chroot miss files below a directory of it.
    names = job.listing("".join(f"{below}{file.path}\n" for file in job.files))
    root = job.into
    for _ in range(source.below.count("/") + 1 if source.below else 0):
        root = root.parent
    ended = run.bounded(
        (
            *("rsync", f"--files-from={names}", "--ignore-missing-args", "--copy-links", "--times", "--perms"),
            # A listed file brings its directories: to send each of them, too, takes several times as long.
            *("--no-implied-dirs", "--no-dirs"),
            *("--chmod=D755,F644", "--inplace", "--no-motd", "--info=progress2" if job.drawn else "--quiet"),
            *((f"--bwlimit={job.bandwidth}",) if job.bandwidth else ()),
            *(f"--timeout={job.timeout}", f"--contimeout={job.timeout}", "--", f"{source.module}/", f"{root}/"),
        ),
        job.into,
        job.work,
        job.limits,
        keep=_ENVIRONMENT,
        meter="stdout" if job.drawn else "",
        lock=job.lock,
    )
    if ended.status in _SOME_MISSING:
        return
    # The last line is rsync's own summary; a server's reason has a mark.
    lines = [line for line in ended.complaint.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith("@ERROR")]
    others = [line for line in lines if not line.startswith("rsync error: ")]
    raise job.failed(ended, next(iter((*marked, *others, *lines)), ""))
