# SPDX-License-Identifier: GPL-3.0-or-later
"""The root file system as a compressed tar archive, for systemd-nspawn, LXC, Incus and WSL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud import packed
from debian_cloud.errors import Error
from debian_cloud.formats import SHA256
from debian_cloud.plan import Plan, in_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debian_cloud.view import View

PUBLISHED: Final = True
SOURCE: Final = "tree"
DIGEST: Final = SHA256
TOOLS: Final = ("tar", "xz-utils")
UNIT: Final = 1

# Preset 2 takes a quarter of the time of preset 6, and the file is an eighth larger.
# Blocks of a fixed size are compressed one by one: the number of threads does not show (xz(1), --threads).
_XZ: Final = "xz -2 --threads=0 --block-size=16MiB"

_LARGEST: Final = 2**36
"""Maximum bytes of an unpacked tree: `verify` reads no more."""
_HEADER: Final = 512
"""Bytes of a member's header (POSIX, pax)."""


def steps(source: str, out: str, epoch: int) -> Plan:
    """One step; the members are `./etc/…`, sorted, with numeric owners and extended attributes."""
    return (
        in_tree(
            *("pack the tree", epoch, "tar", "--create", "--file", f"/mnt/{out}", f"--use-compress-program={_XZ}"),
            *("--format=pax", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"),
            *("--sort=name", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*"),
            *(f"--mtime=@{epoch}", "--clamp-mtime", f"--directory=/mnt/{source}", "."),
        ),
    )


def check(name: str, view: View, virtual_size: int) -> None:
    """Check both ends and the index of the .xz, and the first header of the tar; the rest is not unpacked."""
    if virtual_size:
        raise Error(
            f"{name} is a tree without a disk, but its record says a disk of {virtual_size} bytes", packed.HINT
        )
    if not packed.is_xz(view):
        raise Error(f"{name} is not a tar.xz", packed.HINT)
    unpacked = packed.xz_size(name, view)
    if unpacked > _LARGEST:
        raise Error(f"{name} has {unpacked} bytes when unpacked", f"at most {_LARGEST} bytes are read")
    if not _is_member(packed.xz_head(name, view, _HEADER)):
        raise Error(f"{name} does not contain a tar", packed.HINT)


def holds(view: View) -> bool:
    """By the first bytes: a .xz is that of a tree, unless it is that of a disk."""
    return packed.is_xz(view)


def inner(name: str, view: View) -> Iterator[bytes]:
    """The tar, a piece at a time."""
    return packed.xz(name, view)


def _is_member(head: bytes) -> bool:
    """Whether the bytes are the header of a tar member, by its checksum."""
    if len(head) < _HEADER or head[257:262] != b"ustar":
        return False
    return head[148:156].rstrip(b" \0") == b"%06o" % sum(head[:148] + b" " * 8 + head[156:])
