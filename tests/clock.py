# SPDX-License-Identifier: GPL-3.0-or-later
"""A command under another clock, by faketime(1)."""

from __future__ import annotations

from typing import Final

# faketime names its shared memory after its process, and does not start where that name is taken: processes that
# end as another user, as apt's do, leave theirs behind, and process ids come again.
OWN_PLACE: Final = 'rm -f "/dev/shm/faketime_shm_$$" "/dev/shm/sem.faketime_sem_$$" 2>/dev/null'


def off_by(offset: str) -> tuple[str, ...]:
    """What stands before a command whose clock is off by so much, as faketime -f has it: "+400d", "-3600s"."""
    return ("sh", "-c", f'{OWN_PLACE}\nexec faketime -f "$0" "$@"', offset)
