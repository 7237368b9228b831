# SPDX-License-Identifier: GPL-3.0-or-later
"""What proves a published image, fetched beside it, so that `verify` needs nothing else.

```
STEM.proof/STEM.buildinfo STEM.image SHA512SUMS SHA512SUMS.gpg
STEM.proof/closure/                                   what the image was made of (`closure`)
```

Nothing is believed here but the signed index of images, which has the .buildinfo's SHA-512, and the .buildinfo, which
has each package's SHA-256. Of the other files `verify` verifies the signatures.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import checksums, closure, evidence, files, images, names, sign
from .errors import Error

if TYPE_CHECKING:
    from .images import Image
    from .lock import Lock

_SUMS: Final = ("SHA512SUMS", "SHA512SUMS.gpg")
_INDEX: Final = 2**28
"""Bytes of an index of a closure's evidence, compressed, at the most."""
_SOURCES: Final = 16
"""Release files that a closure has as evidence; there are four."""
_COMPONENTS: Final = ("main", "contrib", "non-free", "non-free-firmware")
_AT_ONCE: Final = 50
"""Files that one process fetches."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The folder with the proof; `asked` are the places that had no closure, where none was found."""

    folder: Path
    asked: tuple[str, ...] = ()


def fetch(image: Image, output: Path) -> Fetched:
    """Fetch the proof of an image into a folder beside it; what is there already stays.

    Error when a file is missing, or is not what the signed index or the .buildinfo says.
    """
    record = image.record
    folder = output / names.proof(record.stem)
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=output) as partial:
            made = Path(partial) / folder.name
            made.mkdir(mode=0o755)
            _fetch_words(image, made)
            made.rename(folder)
    kept = folder / names.CLOSURE
    if kept.exists():
        return Fetched(folder)
    found = evidence.read(sign.text(folder / f"{record.stem}.buildinfo"), f"{record.stem}.buildinfo")
    path = names.closure(record.suite, record.config, record.architecture, record.serial)
    asked = tuple(f"{base}/{path}" for base in images.addresses(image))
    for place in asked:
        with tempfile.TemporaryDirectory(prefix=f".{kept.name}.", dir=folder) as partial:
            made = Path(partial) / kept.name
            made.mkdir(mode=0o755)
            if _fetch_closure(place, found, made):
                made.rename(kept)
                return Fetched(folder)
    return Fetched(folder, asked)


def _fetch_words(image: Image, folder: Path) -> None:
    record = image.record
    if not record.buildinfo_sha512:
        raise Error(f"the index has no hash of the .buildinfo of {record.stem}", "its archive is of an older version")
    place = image.place(record.directory)
    _get(
        [
            (
                f"{place}/{record.stem}.buildinfo",
                folder / f"{record.stem}.buildinfo",
                f"SHA512:{record.buildinfo_sha512}",
            )
        ],
        files.LARGEST_TEXT,
    )
    for name in _SUMS:
        _get([(f"{place}/{name}", folder / name, "")], files.LARGEST_TEXT)
    sums = files.read(folder / _SUMS[0], files.LARGEST_TEXT).decode("ascii", "replace")
    for name, sha512 in ((record.name, record.sha512), (f"{record.stem}.buildinfo", record.buildinfo_sha512)):
        if checksums.find(sums, name) != sha512:
            raise Error(
                f"SHA512SUMS of {record.stem} and the signed index disagree on {name}",
                "`apt-get update`, and try again; if that does not help, tell the archive's operator",
            )
    name = f"{record.stem}.image"
    _get([(f"{place}/{name}", folder / name, f"SHA512:{checksums.find(sums, name)}")], files.LARGEST_TEXT)


def _fetch_closure(place: str, kept: Lock, folder: Path) -> bool:
    """Fetch a closure, whose names all follow from the .buildinfo; whether it is there."""
    dists = f"dists/{kept.suite}"
    index = closure.packages_path(kept.suite, kept.architecture)
    if not images.there(f"{place}/{dists}/InRelease", folder / dists / "InRelease", files.LARGEST_TEXT):
        return False
    _get([(f"{place}/{index}", folder / index, "")], _INDEX)
    for number in range(_SOURCES):
        near = f"evidence/{number}"
        if not images.there(f"{place}/{near}/InRelease", folder / near / "InRelease", files.LARGEST_TEXT):
            if not images.there(f"{place}/{near}/Release", folder / near / "Release", files.LARGEST_TEXT):
                break
            _get([(f"{place}/{near}/Release.gpg", folder / near / "Release.gpg", "")], files.LARGEST_TEXT)
        for component in _COMPONENTS:
            name = f"{near}/{component}_binary-{kept.architecture}_Packages.xz"
            images.there(f"{place}/{name}", folder / name, _INDEX)
    packages = tuple(dict.fromkeys((*kept.packages, *kept.tools)))
    wanted = [
        (f"{place}/{closure.filename(p)}", folder / closure.filename(p), f"SHA256:{p.sha256}") for p in packages
    ]
    _get(wanted, max(package.size for package in packages))
    return True


def _get(wanted: list[tuple[str, Path, str]], largest: int) -> None:
    for first in range(0, len(wanted), _AT_ONCE):
        images.download(wanted[first : first + _AT_ONCE], largest)


def beside(image: Path) -> Path | None:
    """The folder with the proof of an image, if it is beside it, as `fetch` puts it."""
    suffix = names.proof("")
    found = [
        path
        for path in sorted(image.parent.glob(names.proof("*")))
        if image.name.startswith(f"{path.name.removesuffix(suffix)}.")
    ]
    return found[0] if len(found) == 1 and found[0].is_dir() else None


def closure_of(file: Path) -> str:
    """What the image was made of that a .buildinfo or a record describes, if both were fetched; else nothing."""
    folder = file.resolve().parent
    kept = folder / names.CLOSURE
    return str(kept) if folder.name == names.proof(file.stem) and kept.is_dir() else ""
