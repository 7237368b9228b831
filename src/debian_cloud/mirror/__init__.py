# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror of an archive, which shows only what it has verified.

The signed indexes alone decide what is fetched, so a transport is one function (`transports/`). Files are fetched to
DEST/.mirror/incoming and verified there before anything is shown; then they are renamed into place, data first,
InRelease last. debian-cloud-mirror(1) has the rest.
"""

from __future__ import annotations

from typing import Final

from debian_cloud.errors import Error

_UNCHANGED: Final = "nothing was changed"


class ContradictedError(Error):
    """The source contradicts its own signed index, perhaps because it has just changed."""


class LocalError(Error):
    """What is wrong with the mirror itself: another source does not change it."""


def refused(message: str, hint: str) -> Error:
    """What ends a run before anything is shown."""
    return Error(message, f"{hint}; {_UNCHANGED}")


def faulty(message: str) -> Error:
    """What ends a run because the archive has signed something that no client accepts."""
    return refused(message, "the archive itself is faulty: report it to its operator")


def contradicted(message: str) -> ContradictedError:
    """What begins a run again, once."""
    return ContradictedError(
        message, f"the source contradicted its own signed index: try again later, or use another source; {_UNCHANGED}"
    )
