# SPDX-License-Identifier: GPL-3.0-or-later
"""The indexes of a suite, brought and then read with bounds as their release file lists them.

A few bytes may decompress to gibibytes: no more is read than the listed size, and a client refuses an index that is
larger than `listed.LARGEST`.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import Error
from debian_cloud.host import files
from debian_cloud.image import inventory
from debian_cloud.mirror import changed, contradicted, faulty, listed, refused
from debian_cloud.mirror.selection import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from debian_cloud.mirror.listed import Listed
    from debian_cloud.mirror.releases import Release
    from debian_cloud.mirror.selection import Selection
    from debian_cloud.mirror.staging import Staging

_FORMS: Final = (".gz", ".xz", "")
"""Suffixes of the forms of an index, the one that is read most easily last."""
_KNOWN: Final = ("", ".gz", ".xz", ".bz2", ".lzma", ".zst")
_PIECE: Final = 2**16


@dataclass(slots=True)
class Contents:
    """What the indexes of a suite list of the selected images, and of all packages.

    `links` are path -> target, and `offered` has option and value of each word that could select an image. `disks`
    are those that clients are told of.
    """

    files: list[Listed] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    offered: set[tuple[str, str]] = field(default_factory=set)
    disks: list[Listed] = field(default_factory=list)

    def directories(self) -> tuple[str, ...]:
        """The directories of the images, sorted."""
        found = (file.path.rpartition("/")[0] for file in self.files if file.path.startswith(f"{names.IMAGES}/"))
        return tuple(sorted({*found}))


def stem(name: str) -> str:
    """The name of an index without the suffix of its form."""
    return next((name.removesuffix(form) for form in _KNOWN[1:] if name.endswith(form)), name)


def bring(staging: Staging, release: Release) -> Mapping[str, Listed]:
    """Have the indexes of a release file in a staging area: name -> file by hash of each that the source has.

    An archive may omit a form that it lists (Packages beside Packages.xz), but not all of them.
    """
    bad = staging.bring({file.path: file for file in release.indexes.values()}.values())
    missing = _by_name(staging, release, {n: f for n, f in release.indexes.items() if f.path in bad})
    kept = {name: file for name, file in release.indexes.items() if name not in missing}
    have = {stem(name) for name in kept}
    for name in missing:
        if stem(name) not in have:
            raise contradicted(f"dists/{release.suite}/{stem(name)} is missing at the source")
    return kept


def _by_name(staging: Staging, release: Release, wanted: Mapping[str, Listed]) -> set[str]:
    """Bring indexes by name, to their places by hash; return the names of those that the source does not have."""
    paths = {f"dists/{release.suite}/{name}": (name, file) for name, file in wanted.items()}
    reasons = staging.bring(listed.Listed(path, file.sha256, file.size) for path, (_, file) in paths.items())
    for path, (_, file) in paths.items():
        if path not in reasons:
            staging.tree.stage(path, file.path)
        elif reasons[path].is_there:
            raise contradicted(f"{path} does not have the size and hash in InRelease")
    return {paths[path][0] for path in reasons}


def read(
    suite: str,
    known: Mapping[str, Listed],
    present: Callable[[str], Path | None],
    selected: Selection = EVERYTHING,
    former: Callable[[str], bytes] = lambda _path: b"",
) -> Contents:
    """Read each index of packages and images that a release file lists, in one of its forms.

    `known` are all indexes by name, and `present` gives the file of one by its path, or None if the archive does not
    have this form. `former` gives the content of an index, by its path, as it was read in an earlier run, or nothing.
    Error if an index is damaged, larger than listed, or has something that no client accepts.
    """
    found = Contents()
    kinds = {stem(name).rpartition("/")[2] for name in known}
    if "Images" in kinds and inventory.NAME not in kinds:
        raise refused(
            f"dists/{suite}/InRelease lists no {inventory.NAME}, which mirrors need",
            "the archive's operator must publish with a newer debian-cloud-archive",
        )
    stems = dict.fromkeys(stem(name) for name in known if stem(name).rpartition("/")[2] in listed.LARGEST)
    for index in stems:
        forms = [form for form in _KNOWN if f"{index}{form}" in known and present(known[f"{index}{form}"].path)]
        form = next((form for form in reversed(_FORMS) if form in forms), None)
        path = f"dists/{suite}/{index}"
        if form is None:
            raise faulty(f"{path} is not there uncompressed or as .xz or .gz, but as {' or '.join(forms)}")
        file = present(known[f"{index}{form}"].path)
        assert file is not None
        _read(found, path, form, file, known.get(index), selected, former)
    # Two lists that disagree on a disk contradict each other (`listed.merged`).
    carried = {one.path for one in found.files} if selected != EVERYTHING else set()
    found.files += (disk for disk in found.disks if not carried or disk.path in carried)
    return found


def _read(
    found: Contents,
    path: str,
    form: str,
    file: Path,
    plain: Listed | None,
    selected: Selection,
    former: Callable[[str], bytes],
) -> None:
    kind = path.rpartition("/")[2]
    most = listed.LARGEST[kind]
    if plain and plain.size > most:
        raise faulty(f"{path} has {plain.size} bytes; an index may have {most}")
    with files.opened(file) as packed:
        content = _Counted(files.decompressed(packed, form), plain.size if plain else most)
        fault = ""
        try:
            with io.BufferedReader(content, _PIECE) as stream:
                try:
                    shown = former(path) if kind == "Images" and plain and plain.size <= changed.LARGEST else b""
                    if shown:
                        found.disks.extend(changed.images(stream.read(), shown))
                    else:
                        _take(found, kind, stream, selected)
                except Error as error:
                    fault = error.message
                # What a reader leaves is read, too, so that all of it is hashed.
                while stream.read(_PIECE):
                    pass
        except _TooLongError:
            raise faulty(f"{path}{form} decompresses to more than its {content.most} bytes") from None
        except files.BROKEN:
            raise faulty(f"{path}{form} is damaged") from None
    if plain and (content.size, content.hashed.hexdigest()) != (plain.size, plain.sha256):
        raise faulty(f"{path}{form} does not contain what InRelease lists as {path}")
    if fault:
        raise faulty(f"{path}: {fault}")


def _take(found: Contents, kind: str, stream: IO[bytes], selected: Selection) -> None:
    if kind == inventory.NAME:
        entries, offered = listed.carried(stream, selected)
        found.offered |= offered
        for entry in entries:
            if entry.target:
                found.links[entry.path] = entry.target
            else:
                found.files.append(entry)
    else:
        (found.disks if kind == "Images" else found.files).extend(listed.READ[kind](stream))


class _TooLongError(Exception):
    """There are more bytes than there may be."""


class _Counted(io.RawIOBase):
    """A stream that is hashed as it is read, and has at most `most` bytes."""

    def __init__(self, beneath: IO[bytes], most: int) -> None:
        self._beneath = beneath
        self.most = most
        self.size = 0
        self.hashed = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type] # io.RawIOBase gives any buffer
        data = self._beneath.read(min(len(view), _PIECE))
        self.size += len(data)
        if self.size > self.most:
            raise _TooLongError
        self.hashed.update(data)
        view[: len(data)] = data
        return len(data)
