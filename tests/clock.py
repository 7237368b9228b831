# SPDX-License-Identifier: GPL-3.0-or-later
"""A command that runs with another clock, by faketime(1)."""

from __future__ import annotations

from typing import Final

# faketime names its shared memory after its process id, and does not start if that name exists: processes that end as
# another user, as apt's do, leave theirs behind, and process ids are reused.
OWN_PLACE: Final = 'rm -f "/dev/shm/faketime_shm_$$" "/dev/shm/sem.faketime_sem_$$" 2>/dev/null'


def off_by(offset: str) -> tuple[str, ...]:
    """What to put before a command to shift its clock; `offset` is as in faketime -f: "+400d", "-3600s"."""
    return ("sh", "-c", f'{OWN_PLACE}\nexec faketime -f "$0" "$@"', offset)
