# SPDX-License-Identifier: GPL-3.0-or-later
"""What verified texts list: the files that a mirror carries, each with its SHA-256 and size.

Only relative paths of plain characters are accepted, without a part that begins with a dot or a dash.
"""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.image import index, inventory, staleness
from debian_cloud.mirror import faulty, selection
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from debian_cloud.image.inventory import Entry
    from debian_cloud.mirror.selection import Selection

LARGEST: Final = {
    "Packages": 2**28, "Sources": 2**28, "Images": 2**26, "Images-Status": 2**26, inventory.NAME: inventory.LARGEST,
}  # fmt: skip
"""The indexes that are read, by name, and the maximum bytes of each; clients refuse larger ones."""
_LONGEST_LINE: Final = 2**16
_LARGEST_STANZA: Final = 2**20
_MOST_LINES: Final = 2**21
_LEAST: Final = 2**8
"""Bytes that each line of a stanza counts at least."""
_PATH: Final = re.compile(f"{inventory.PART}(/{inventory.PART})*")
_SHA256: Final = re.compile("[0-9a-f]{64}")
_SIZE: Final = re.compile("[0-9]{1,13}")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_INRELEASE: Final = re.compile(r"(In)?Release(\.gpg)?|(.*/)?by-hash/.*")
_OWN: Final = re.compile(r"evidence/[0-9]{1,3}/InRelease")
_OF_CLOSURE: Final = re.compile(r"(pool|evidence)/.*")
_MAIN: Final = re.compile(r"main/.*")


Listed = inventory.Entry
"""A file of the tree; `sha256` is "" and `size` UNKNOWN if they are not listed."""
UNKNOWN: Final = inventory.UNKNOWN


def is_clean(path: str) -> bool:
    """Whether a path stays in the tree, and has nothing hidden or unusual."""
    return len(path) <= inventory.LONGEST and bool(_PATH.fullmatch(path))


def release(rows: Iterable[str], suite: str) -> dict[str, Listed]:
    """Name -> file by hash of each index in the rows below `SHA256:` of a release file; Error if one is invalid."""
    found: dict[str, Listed] = {}
    for row in rows:
        parts = row.split()
        valid = len(parts) == 3 and _SHA256.fullmatch(parts[0]) and _SIZE.fullmatch(parts[1])
        if not valid or not is_clean(parts[2]) or _INRELEASE.fullmatch(parts[2]) or parts[2] in found:
            raise faulty(f"dists/{suite}/InRelease lists an index with an invalid path, hash or size")
        sha256, size, name = parts
        folder = f"dists/{suite}/{name}".rpartition("/")[0]
        found[name] = Listed(f"{folder}/by-hash/SHA256/{sha256}", sha256, int(size))
    if not found:
        raise faulty(f"dists/{suite}/InRelease lists no index by SHA256")
    return found


def packages(file: IO[bytes]) -> Iterator[Listed]:
    """The files that a `Packages` lists (Debian Policy 5.3, and Filename, Size and SHA256)."""
    for stanza in _stanzas(file):
        yield _in_pool(stanza.get("sha256", ""), stanza.get("size", ""), stanza.get("filename", ""))


def sources(file: IO[bytes]) -> Iterator[Listed]:
    """The files that a `Sources` lists (Debian Policy 5.6.24)."""
    for stanza in _stanzas(file):
        rows = stanza.get("checksums-sha256", "").strip()
        if not rows:
            raise Error("has a stanza without Checksums-Sha256")
        for row in rows.split("\n"):
            parts = row.split()
            if len(parts) != 3:
                raise Error(f"has an invalid line: {printable(row.strip())}")
            yield _in_pool(parts[0], parts[1], f"{stanza.get('directory', '')}/{parts[2]}")


def images(file: IO[bytes]) -> Iterator[Listed]:
    """The disks that an `Images` (`image.index`) lists for clients; Error if no client would read it."""
    for record in index.read(file):
        yield Listed(record.filename, record.sha256, record.size)


def statuses(file: IO[bytes]) -> Iterator[Listed]:
    """Nothing; Error if no client would read an `Images-Status` (`image.staleness`)."""
    for _status in staleness.read(file):
        yield from ()


def carried(file: IO[bytes], selected: Selection) -> tuple[Iterable[Entry], frozenset[tuple[str, str]]]:
    """The selected files and links of an index of all files, and what could be selected (`Selection.chosen`)."""
    entries = inventory.read(file)
    if selected == selection.EVERYTHING:
        return entries, frozenset()
    return selected.chosen(entries)


def closure(fields: Mapping[str, list[str]], place: str, release: str) -> tuple[list[Listed], list[str]]:
    """The files in a verified InRelease of a closure, and the paths of those that the archive has signed itself.

    `place` is the closure's directory, `release` the path of the InRelease.
    """
    found: list[Listed] = []
    own: list[str] = []
    for field, folder, allowed in (
        ("closure-files", place, _OF_CLOSURE),
        ("sha256", release.rpartition("/")[0], _MAIN),
    ):
        for row in fields.get(field, [])[1:]:
            parts = row.split()
            if not parts:
                continue
            path = f"{folder}/{parts[-1]}"
            if len(parts) != 3 or not is_clean(path):
                raise faulty(f"{release} has an invalid line")
            sha256, size, name = parts
            if field == "closure-files" and (sha256, size) == ("-", "-") and _OWN.fullmatch(name):
                own.append(path)
            elif _SHA256.fullmatch(sha256) and _SIZE.fullmatch(size) and allowed.fullmatch(name):
                found.append(Listed(path, sha256, int(size)))
            else:
                raise faulty(f"{release} has an invalid line")
    return found, own


def merged(lists: Iterable[Iterable[Listed]], links: Collection[str] = ()) -> dict[str, Listed]:
    """Path -> file, each once; Error if two lists contradict each other on a path, or a file is where a link is."""
    found: dict[str, Listed] = {}
    for files in lists:
        for file in files:
            known = found.setdefault(file.path, file)
            if known is file:
                continue
            if known.sha256 != file.sha256:
                raise contradiction(file.path)
            if known.size == UNKNOWN:
                found[file.path] = file
            elif file.size not in (UNKNOWN, known.size):
                raise contradiction(file.path)
    folders: set[str] = set()
    for path in found:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    for path in (*(folders & found.keys()), *(link for link in links if link in folders or link in found)):
        raise contradiction(path)
    return found


READ: Final[dict[str, Callable[[IO[bytes]], Iterator[Listed]]]] = {
    "Packages": packages, "Sources": sources, "Images": images, "Images-Status": statuses,
}  # fmt: skip
"""Index that clients read -> its reader."""


def contradiction(path: str) -> Error:
    """What ends a run if two signed lists have different hashes of a file."""
    return faulty(f"the signed lists contradict each other on {path}")


def _in_pool(sha256: str, size: str, path: str) -> Listed:
    if not is_clean(path) or not path.startswith("pool/"):
        raise Error(f"has an invalid path: {printable(repr(path))}")
    if not _SHA256.fullmatch(sha256) or not _SIZE.fullmatch(size) or not 1 <= int(size) <= index.LARGEST_FILE:
        raise Error(f"has no valid SHA256 and size for {path}")
    return Listed(path, sha256, int(size))


def _stanzas(file: IO[bytes]) -> Iterator[dict[str, str]]:
    """The stanzas of an index of packages, one after another as it is read, with field names in lower case."""
    stanza: dict[str, list[str]] = {}
    field: list[str] = []
    number = of_stanza = 0
    while octets := file.readline(_LONGEST_LINE + 2):
        number += 1
        of_stanza += max(len(octets), _LEAST)
        if len(octets) > _LONGEST_LINE + 1 or _CONTROL.search(octets):
            raise Error(f"has a control character, or a line of more than {_LONGEST_LINE} bytes")
        if number > _MOST_LINES or of_stanza > _LARGEST_STANZA:
            raise Error("has too many lines, or too many in one stanza")
        line = octets.decode("utf-8", "replace").rstrip(" \t\r\n")
        if not line:
            of_stanza = 0
            if stanza:
                yield {name: "\n".join(lines) for name, lines in stanza.items()}
                stanza = {}
            field = []
        elif line[0] in " \t":
            field.append(line)
        else:
            name, _, value = line.partition(":")
            if name.lower() in stanza:
                raise Error(f"has a field twice: {printable(name)}")
            stanza[name.lower()] = field = [value.strip(" \t")]
    if stanza:
        yield {name: "\n".join(lines) for name, lines in stanza.items()}
