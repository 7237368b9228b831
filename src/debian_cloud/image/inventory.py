# SPDX-License-Identifier: GPL-3.0-or-later
"""The signed list of all files of a suite's images: the index `Files`, for mirrors.

It has a line for each file and each link below images/ and rebuilds/, sorted by path as bytes:

```
SHA256 SIZE PATH
link TARGET PATH
```

A mirror that has verified InRelease has thereby verified all of them, and need know nothing of images. TARGET is the
name of what is beside the link. Paths are relative to the archive's root; they have only plain characters, and no
part that begins with a dot or a dash. An archive's state has lines of the same form for the files that no image
record lists: the record itself, the .changes of the upload, checksums and their signatures.
"""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from debian_cloud import names
from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debian_cloud.image.index import ImageRecord

NAME: Final = "Files"
LARGEST: Final = 2**28
"""Maximum bytes of the index, which has room for about a million files."""
SUMS: Final = tuple(f"SHA{n}SUMS{end}" for n in (256, 512) for end in ("", ".sign", ".gpg"))
"""The signed checksums in the directory of an image."""
UNKNOWN: Final = -1
"""The size of a file of which only the hash is known."""
LONGEST: Final = 1000
"""Maximum characters of a path in an archive, and of a line of the index."""
_PIECE: Final = 2**20
PART: Final = r"[A-Za-z0-9_+~][A-Za-z0-9._+~-]{0,254}"
"""A part of such a path, as a regular expression."""
_LINE: Final = re.compile(
    rf"(?:([0-9a-f]{{64}}) ([0-9]{{1,13}})|link ({PART})) "
    rf"((?:{names.IMAGES}|{names.REBUILDS})(?:/{PART}){{1,30}})\n"
)


class Entry(NamedTuple):
    """A file with its SHA-256 and size in bytes, or a link to the name `target` beside it."""

    path: str
    sha256: str = ""
    size: int = UNKNOWN
    target: str = ""

    @property
    def directory(self) -> str:
        """The directory of the path."""
        return self.path.rpartition("/")[0]

    def __str__(self) -> str:
        """The line of the index."""
        return f"link {self.target} {self.path}" if self.target else f"{self.sha256} {self.size} {self.path}"


def render(entries: Iterable[Entry]) -> str:
    """The text of an index; Error if two entries disagree on a path."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if found.setdefault(entry.path, entry) != entry:
            raise Error(
                f"two lists of files disagree on {entry.path}",
                "the archive must be repaired: it is unknown which is right",
            )
    return "".join(f"{found[path]}\n" for path in sorted(found))


def read(file: IO[bytes]) -> Iterator[Entry]:
    """The entries of an index, one after another as it is read.

    Error at the first line that is longer, of another form, or in another order than `render` writes it. An index
    without entries may be one empty line, because apt fetches no empty file.
    """
    number, last = 0, ""
    while piece := file.read(_PIECE):
        # Whole lines, of which the first that is not one ends the loop.
        text = (piece + file.readline(LONGEST)).decode("ascii", "replace")
        if text == "\n" and not number:
            return
        at = 0
        for match in _LINE.finditer(text):
            end = match.end()
            if match.start() != at or end - at > LONGEST or not last < match[4]:
                break
            number, at, last = number + 1, end, match[4]
            yield Entry(last, match[1], int(match[2])) if match[1] else Entry(last, target=match[3])
        if at != len(text):
            raise Error(
                f"line {number + 1} is not a file or a link after those before it", "it was edited or damaged"
            )


def of_record(record: ImageRecord) -> Iterator[Entry]:
    """The files that an image record lists, and the link `current` if it leads to the image."""
    yield Entry(record.filename, record.sha256, record.size)
    stem = f"{record.directory}/{record.stem}."
    for found in record.attestations:
        yield Entry(f"{stem}{found.suffix}", found.sha256, found.size)
    for found in record.rebuilds:
        yield Entry(f"{record.rebuilds_directory}/{found.suffix}", found.sha256, found.size)
    if record.status == "current":
        yield Entry(f"{names.IMAGES}/{record.id.series}/current", target=record.id.serial)
