# SPDX-License-Identifier: GPL-3.0-or-later
"""An index of images is read again only as far as it differs from the one that a mirror shows.

Each publication changes a few stanzas of thousands. All rules of `image.index` are about one series
(SUITE/CONFIG/ARCH): its files lie in directories of its own, and one of its serials is current. If a series has the
stanzas that the mirror shows, they were read when they were first shown.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING, Final

from debian_cloud.mirror import listed
from debian_cloud.mirror.listed import Listed

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST: Final = 2**25
"""Maximum bytes of an index that is compared: both are in memory."""
_SHORTEST: Final = 500
"""Bytes of a stanza, at least: its two hashes and paths have more. Many shorter ones would take much memory."""
_SERIES: Final = re.compile(rb"^Filename: (images/[^/\n]+/[^/\n]+/[^/\n]+)/", re.MULTILINE)
_DISK: Final = (
    re.compile(rb"^Filename: (.+)$", re.MULTILINE),
    re.compile(rb"^SHA256: (.+)$", re.MULTILINE),
    re.compile(rb"^Size: ([0-9]+)$", re.MULTILINE),
)


def images(text: bytes, shown: bytes) -> Iterator[Listed]:
    """The disks that an `Images` lists, as `listed.images` gives them; `shown` is one that was read before."""
    before, after = _series(shown), _series(text)
    if before is None or after is None:
        yield from listed.images(io.BytesIO(text))
        return
    former = {series: _digest(shown, places) for series, places in before.items()}
    new = []
    for series, places in after.items():
        if former.get(series) != _digest(text, places):
            new += places
            continue
        for start, end in places:
            path, sha256, size = (_found(field, text, start, end) for field in _DISK)
            yield Listed(path, sha256, int(size))
    yield from listed.images(io.BytesIO(b"\n".join(text[start:end] for start, end in sorted(new))))


def _series(text: bytes) -> dict[bytes, list[tuple[int, int]]] | None:
    """Series -> start and end of each of its stanzas; None if the index does not have the usual form."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    start = 0
    while start < len(text):
        end = text.find(b"\n\n", start) + 1 or len(text)
        match = _SERIES.search(text, start, end)
        if end - start < _SHORTEST or not match:
            return None
        found.setdefault(match[1], []).append((start, end))
        start = end + 1
    return found


def _digest(text: bytes, places: list[tuple[int, int]]) -> bytes:
    digest = hashlib.sha256()
    for start, end in places:
        digest.update(b"%d " % (end - start))
        digest.update(text[start:end])
    return digest.digest()


def _found(field: re.Pattern[bytes], text: bytes, start: int, end: int) -> str:
    match = field.search(text, start, end)
    # Another stanza with these bytes was read before.
    assert match is not None
    return match[1].decode("ascii")
