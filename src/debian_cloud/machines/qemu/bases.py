# SPDX-License-Identifier: GPL-3.0-or-later
"""Verified images, each in a file named by its digest that is never rewritten.

An instance has a hard link to the base of its disk, or a copy where the file system has none, so a base can go from
here at any time: its bytes stay for as long as an instance needs them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Final

from debian_cloud import formats
from debian_cloud.disk import opened
from debian_cloud.errors import Error
from debian_cloud.formats import BLOCKS
from debian_cloud.host import checksums, folders, run
from debian_cloud.machines.qemu import command, state
from debian_cloud.packages import cache, images
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from debian_cloud.machines.source import Source

BOUND: Final = 2**33
"""Bytes of bases that stay although no instance has them."""
_ALGORITHMS: Final = {"sha512": "sha512", "sha256": "sha256", "blocks": BLOCKS}


def of(root: Path, source: Source) -> Path:
    """The base of an image, fetched or copied if it is not there; Error if it is not the file of its record."""
    form = source.record.format
    kept = form if form in command.bases() else "raw"
    base = root / state.BASES / f"{source.digest}.{kept}"
    if base.exists():
        os.utime(base)
        return base
    # A file here may be mostly holes.
    _refuse_full(root, cache.size(source.file.resolve()) if source.file else source.record.size)
    with folders.partial(base, f"the image {source.record.stem}", wait=True) as folder:
        if base.exists():
            return base
        fetched = folder / source.record.name
        if source.image:
            images.fetch(source.image, fetched)
        elif source.file:
            # What is verified is the copy, which the file's owner does not change.
            run.output(("cp", "--reflink=auto", "--sparse=always", "--", str(source.file), str(fetched)))
            _refuse_other(fetched, source)
        with opened.bytes_of(fetched) as view:
            formats.find(form).check(printable(fetched.name), view, source.record.virtual_size)
        if kept != form:
            fetched = _unpacked(fetched, folder / "disk", source.record.virtual_size)
        fetched.chmod(0o444)
        fetched.rename(base)
    return base


def _refuse_other(fetched: Path, source: Source) -> None:
    name, _, digest = source.digest.partition("-")
    algorithm = _ALGORITHMS[name]
    if checksums.digest(fetched, (algorithm,)).hashes[algorithm] != digest:
        raise Error(f"{printable(fetched.name)} was changed while it was copied", "run it again")


def _refuse_full(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        raise Error(
            f"the disk is full: {root} has {free >> 20} MiB free, but {needed >> 20} are needed",
            "free some space, or set XDG_STATE_HOME to another directory",
        )


def _unpacked(packed: Path, disk: Path, size: int) -> Path:
    """The raw disk in a file of a format that QEMU does not read, with holes for zeros."""
    with opened.unpacked(packed, folder=disk.parent) as (_, view), disk.open("wb") as out:
        if view.size != size:
            raise Error(f"{printable(packed.name)} has a disk of {view.size} bytes instead of {size}", "get it again")
        for start, end in view.data:
            first, last = max(start, view.start) - view.start, min(end, view.start + view.size) - view.start
            out.seek(first)
            for piece in view.pieces(first, last - first):
                out.write(piece)
        out.truncate(size)
    return disk


def bound(root: Path) -> None:
    """Remove the least recently used bases that no instance has until they take no more than `BOUND` bytes."""
    with contextlib.suppress(OSError):
        free = [path for path in (root / state.BASES).iterdir() if path.is_file() and path.stat().st_nlink == 1]
        for path in cache.oldest(free, BOUND):
            path.unlink(missing_ok=True)
