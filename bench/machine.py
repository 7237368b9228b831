# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that is measured on, without its name."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path


def load() -> float:
    """The load of the last minute."""
    return os.getloadavg()[0]


def described(folder: Path) -> dict[str, str]:
    """What matters of it; `folder` is where the builds work."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal: +(\d+)", Path("/proc/meminfo").read_text(), re.M)
    at = ("findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder)
    filesystem = subprocess.run(at, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processors": f"{os.cpu_count()}, {model[1] if model else platform.machine()}",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "kernel": platform.release(),
        "file system": filesystem or "unknown",
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
    }
