# SPDX-License-Identifier: GPL-3.0-or-later
"""The raw disk, a sparse file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.formats import BLOCKS

if TYPE_CHECKING:
    from debian_cloud.plan import Plan
    from debian_cloud.view import View

# Its holes do not survive most transports: a mirror would carry gigabytes of zeros.
PUBLISHED: Final = False
SOURCE: Final = "disk"
DIGEST: Final = BLOCKS
TOOLS: Final = ("e2fsprogs", "fdisk", "mtools")
UNIT: Final = 1

# UEFI, 5.3.2; the boot loader is in the sector before it.
_SECTOR, _GPT = 512, b"EFI PART"


def steps(source: str, out: str, epoch: int) -> Plan:  # noqa: ARG001 - the signature is every format's
    """No steps: a build makes the raw disk first, and keeps it if it is one of the wanted formats."""
    return ()


def check(name: str, view: View, virtual_size: int) -> None:
    """Check only the size: any bytes are a disk."""
    if view.size != virtual_size:
        raise Error(
            f"{name} has {view.size} bytes, but its record says {virtual_size}",
            "upload the file that `debian-cloud build` made",
        )


def holds(view: View) -> bool:
    """By its partition table."""
    return has_table(view.read(0, min(view.size, 2 * _SECTOR)))


def has_table(head: bytes) -> bool:
    """Whether the first sectors of a disk have a partition table."""
    return head[_SECTOR:].startswith(_GPT)


def inner(name: str, view: View) -> View:  # noqa: ARG001 - the signature is every format's
    """The file itself."""
    return view
