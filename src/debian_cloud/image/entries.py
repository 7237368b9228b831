# SPDX-License-Identifier: GPL-3.0-or-later
"""The contents of a file system, a tar archive or a .deb, one entry for each path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FILE: Final = "file"
DIRECTORY: Final = "directory"
SYMLINK: Final = "symlink"
CHARACTER: Final = "character device"
BLOCK: Final = "block device"
FIFO: Final = "fifo"
SOCKET: Final = "socket"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path, without a leading slash; the root directory's is empty.

    `mode` is the permission bits with set-id and sticky (07777); `mtime` is in seconds since 1970. Regular files have
    `sha256` in hex digits and `size` in bytes, symlinks `target`, device nodes `device` (major, minor). `xattrs` are
    sorted by name and include file capabilities (security.capability). Entries with the same `inode` are hard links
    of each other; 0 is unknown. Bytes that are not UTF-8 are surrogates (PEP 383).
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int = 0
    size: int = 0
    sha256: str = ""
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    inode: int = 0
