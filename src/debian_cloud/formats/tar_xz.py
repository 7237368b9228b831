# SPDX-License-Identifier: GPL-3.0-or-later
"""The root file system as a compressed tar archive, for systemd-nspawn, LXC, Incus and WSL."""

from __future__ import annotations

import lzma
import struct
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.formats import SHA256
from debian_cloud.plan import Plan, in_tree

if TYPE_CHECKING:
    from debian_cloud.view import View

PUBLISHED: Final = True
SOURCE: Final = "tree"
DIGEST: Final = SHA256
TOOLS: Final = ("tar", "xz-utils")

# Preset 2 takes a quarter of the time of preset 6, and the file is an eighth larger.
# Blocks of a fixed size are compressed one by one: the number of threads does not show (xz(1), --threads).
_XZ: Final = "xz -2 --threads=0 --block-size=16MiB"

# The .xz file format, 2.1: header and footer of a stream are 12 bytes each.
_MAGIC: Final = b"\xfd7zXZ\0"
_ENDS: Final = 12
_INDEX: Final = 2**20
"""Maximum bytes of the index: that of 64 GiB in blocks of 16 MiB has about 40 KiB."""
_LARGEST: Final = 2**36
"""Maximum bytes of an unpacked tree: `verify` reads no more."""
_MEMORY: Final = 2**27
"""Maximum bytes of memory for unpacking: ten times what the builder's preset takes."""
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
    hint = "upload the file that `debian-cloud build` made"
    if virtual_size:
        raise Error(f"{name} is a tree without a disk, but its record says a disk of {virtual_size} bytes", hint)
    if view.size < 2 * _ENDS or view.read(0, len(_MAGIC)) != _MAGIC:
        raise Error(f"{name} is not a tar.xz", hint)
    _, words, _, end = struct.unpack("<II2s2s", view.read(view.size - _ENDS, _ENDS))
    length = 4 * (words + 1)
    if end != b"YZ" or not length <= min(_INDEX, view.size - 2 * _ENDS):
        raise Error(f"{name} is truncated", "upload the complete file")
    packed, unpacked = _sizes(view.read(view.size - _ENDS - length, length))
    if packed + length + 2 * _ENDS != view.size:
        raise Error(f"{name} is not one complete .xz", hint)
    if unpacked > _LARGEST:
        raise Error(f"{name} has {unpacked} bytes when unpacked", f"at most {_LARGEST} bytes are read")
    try:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        head = decompressor.decompress(view.read(0, min(view.size, 2**20)), _HEADER)
    except lzma.LZMAError:
        raise Error(f"{name} cannot be unpacked", hint) from None
    if not _is_member(head):
        raise Error(f"{name} does not contain a tar", hint)


def _sizes(index: bytes) -> tuple[int, int]:
    """Bytes of all blocks, packed and unpacked, from an index (The .xz file format, 4); -1 twice if it is damaged."""
    numbers = []
    value, shift = 0, 0
    # The numbers are followed by padding and a CRC32.
    for byte in index[1:-4]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value, shift = 0, 0
        elif shift > 56:
            return -1, -1
    if index[0] or not numbers or len(numbers) < 1 + 2 * numbers[0]:
        return -1, -1
    count = numbers[0]
    # A block is padded to four bytes, which its size in the index does not include.
    return sum(-(-size // 4) * 4 for size in numbers[1 : 1 + 2 * count : 2]), sum(numbers[2 : 2 + 2 * count : 2])


def _is_member(head: bytes) -> bool:
    """Whether the bytes are the header of a tar member, by its checksum."""
    if len(head) < _HEADER or head[257:262] != b"ustar":
        return False
    return head[148:156].rstrip(b" \0") == b"%06o" % sum(head[:148] + b" " * 8 + head[156:])
