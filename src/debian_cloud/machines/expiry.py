# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a running instance when to power itself off."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.machines import seed, ssh
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from debian_cloud.machines.instance import Instance

_TOLD: Final = 120.0
"""Seconds in which a guest that answers has been told something."""
_LOG: Final = 2**20
"""Bytes that it may say meanwhile."""


def tell(instance: Instance, expires: int) -> None:
    """Set the timer in the guest, for a time in seconds since 1970; Error if it does not run, or does not answer."""
    name = instance.name
    if not instance.login:
        now = instance.state if instance.state in ("starting", "paused") else "not running"
        raise Error(f"{name} is {now}", f"it must be running: debian-cloud start {name}", USAGE)
    argv = ssh.argv(instance.login, ("sudo", "sh", "-c", shlex.quote(seed.expiry_script(expires))), batch=True)
    # A guest may not answer, or say more than anyone wants to hear.
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as logs:
        done = run.bounded(argv, Path(logs), Path(logs), run.Limits(_TOLD, _LOG))
    if done.status:
        said = printable(done.complaint.strip() or done.said.strip(), 200)
        raise Error(f"{name} could not be told: {said or f'status {done.status}'}", "is it up? see debian-cloud ssh")
    if done.status is None:
        raise Error(f"{name} does not answer", f"look at it with `debian-cloud console {name}`")
