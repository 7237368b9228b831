# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools that compare two builds of an image."""

from __future__ import annotations

import subprocess
from pathlib import Path

from debian_cloud.host import run
from debian_cloud.image import sources


def debian(suite: str) -> tuple[sources.Source, ...]:
    """Debian's sources, with the mirrors that this machine's apt uses."""
    return sources.debian(sources.targets(run.output(sources.INDEXTARGETS)), suite, expired=True)


def compared(first: Path, second: Path) -> str:
    """The report of diffoscope on two files or directories, limited to a readable length."""
    limits = ("--max-text-report-size", "20000", "--timeout", "300")
    done = subprocess.run(
        ["diffoscope", "--text", "-", *limits, "--exclude-directory-metadata", "yes", first, second],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr
