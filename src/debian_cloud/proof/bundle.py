# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch the proof of a published image beside it, so that `verify` needs nothing else.

```
STEM.proof/STEM.buildinfo STEM.image SHA512SUMS SHA512SUMS.gpg
STEM.proof/closure/                                   what the image was made of (`closure`)
```

Only the signed index of images, which has the .buildinfo's SHA-512, and the .buildinfo, which has each package's
SHA-256, are trusted here. `verify` verifies the signatures of the other files.

A mirror is tried first; if it has no closures, the archive itself, whose address is in its InRelease (`Snapshots`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, files, folders, sign
from debian_cloud.image import closure
from debian_cloud.packages import described, images, own

if TYPE_CHECKING:
    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.packages.images import Image

_SUMS: Final = ("SHA512SUMS", "SHA512SUMS.gpg")
_INDEX: Final = 2**28
"""Most bytes of a compressed index in a closure's evidence."""
_SOURCES: Final = 16
"""Most release files in a closure's evidence; there are four."""
_COMPONENTS: Final = ("main", "contrib", "non-free", "non-free-firmware")
_AT_ONCE: Final = 50
"""Files that one process fetches."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The directory with the proof; if no closure was found, `asked` are the places that have none."""

    folder: Path
    asked: tuple[str, ...] = ()


def fetch(image: Image, output: Path) -> Fetched:
    """Fetch the proof of an image into a directory beside it; keep what is already there.

    Raise Error if a file is missing, or is not what the signed index or the .buildinfo says.
    """
    record = image.record
    folder = output / names.proof(record.stem)
    if os.path.lexists(folder) and not folder.is_dir():
        raise Error(f"{folder} exists already and is another file", "remove it, or choose another --output", USAGE)
    if not folder.exists():
        with folders.partial(folder, f"the fetch of {folder.name} to {output}") as partial:
            made = partial / folder.name
            made.mkdir(mode=0o755)
            _fetch_words(image, made)
            made.rename(folder)
    made_of = folder / names.CLOSURE
    if made_of.exists():
        return Fetched(folder)
    buildinfo = record.id.file("buildinfo")
    found = described.read(sign.text(folder / buildinfo), buildinfo)
    asked = tuple(f"{base}/{record.id.path(names.CLOSURES)}" for base in images.addresses(image))
    for place in asked:
        with folders.partial(made_of, f"the fetch of {made_of.name} to {folder}") as partial:
            made = partial / made_of.name
            made.mkdir(mode=0o755)
            if _fetch_closure(place, found, made):
                made.rename(made_of)
                return Fetched(folder)
    return Fetched(folder, asked)


def _fetch_words(image: Image, folder: Path) -> None:
    record = image.record
    if not record.buildinfo_sha512:
        raise Error(f"the index has no hash of the .buildinfo of {record.stem}", "its archive must be upgraded")
    place = image.place(record.directory)
    buildinfo, name = record.id.file("buildinfo"), record.id.file("image")
    wanted = [(f"{place}/{buildinfo}", buildinfo, f"SHA512:{record.buildinfo_sha512}")]
    _get(folder, wanted, files.LARGEST_TEXT)
    for sums in _SUMS:
        _get(folder, [(f"{place}/{sums}", sums, "")], files.LARGEST_TEXT)
    text = files.read(folder / _SUMS[0], files.LARGEST_TEXT).decode("ascii", "replace")
    for listed, sha512 in ((record.name, record.sha512), (buildinfo, record.buildinfo_sha512)):
        if checksums.find(text, listed) != sha512:
            raise Error(
                f"SHA512SUMS of {record.stem} and the signed index disagree on {listed}",
                "run `apt-get update` and try again; if that does not help, report it to the archive's operator",
            )
    _get(folder, [(f"{place}/{name}", name, f"SHA512:{checksums.find(text, name)}")], files.LARGEST_TEXT)


def _fetch_closure(place: str, buildinfo: Buildinfo, folder: Path) -> bool:
    """Fetch a closure, whose file names follow from the .buildinfo and its own list; return whether it exists."""
    release, index = (
        closure.release_path(buildinfo.id.suite),
        closure.packages_path(buildinfo.id.suite, buildinfo.id.architecture),
    )
    if not images.there(f"{place}/{release}", folder / release, files.LARGEST_TEXT):
        return False
    _get(folder, [(f"{place}/{index}", index, "")], _INDEX)
    listed = closure.evidence(sign.text(folder / release))
    for name, sha256 in listed.items():
        _get(folder, [(f"{place}/{name}", name, f"SHA256:{sha256}" if sha256 else "")], _INDEX)
    if not listed:
        _probe_evidence(place, buildinfo, folder)
    packages = tuple(dict.fromkeys((*buildinfo.packages, *buildinfo.tools)))
    names_ = {package: closure.filename(package) for package in packages}
    wanted = [(f"{place}/{names_[p]}", names_[p], f"SHA256:{p.sha256}") for p in packages]
    _get(folder, wanted, max(package.size for package in packages))
    return True


def _probe_evidence(place: str, buildinfo: Buildinfo, folder: Path) -> None:
    """Fetch what exists of the evidence of a closure that does not list it, as older archives made them."""
    for number in range(_SOURCES):
        near = f"evidence/{number}"
        if not images.there(f"{place}/{near}/InRelease", folder / near / "InRelease", files.LARGEST_TEXT):
            if not images.there(f"{place}/{near}/Release", folder / near / "Release", files.LARGEST_TEXT):
                break
            _get(folder, [(f"{place}/{near}/Release.gpg", f"{near}/Release.gpg", "")], files.LARGEST_TEXT)
        for component in _COMPONENTS:
            name = f"{near}/{component}_binary-{buildinfo.id.architecture}_Packages.xz"
            images.there(f"{place}/{name}", folder / name, _INDEX)


def _get(folder: Path, wanted: list[tuple[str, str, str]], largest: int) -> None:
    for first in range(0, len(wanted), _AT_ONCE):
        images.download(folder, wanted[first : first + _AT_ONCE], largest)


def beside(image: Path) -> Path | None:
    """Return the directory with the proof of an image, if it is beside the image, as `fetch` makes it, or None."""
    suffix = names.proof("")
    found = [
        path
        for path in sorted(image.parent.glob(names.proof("*")))
        if image.name.startswith(f"{path.name.removesuffix(suffix)}.")
    ]
    return found[0] if len(found) == 1 and found[0].is_dir() else None


def published(file: Path) -> Path:
    """Return the .buildinfo as the user's own archive on this machine published it, with its signed sums.

    Return the file itself if it has sums beside it, or if the same text was not published there.
    """
    if (file.parent / _SUMS[0]).exists():
        return file
    if not (here := _own(file)):
        return file
    folder, text, buildinfo = here
    found = folder / buildinfo.id.path() / buildinfo.id.file("buildinfo")
    return found if found.is_file() and sign.text(found) == text else file


def own_closure(file: Path) -> Path | None:
    """Return the closure of a .buildinfo's image in the user's own archive on this machine, or None."""
    if not (here := _own(file)):
        return None
    folder, _, buildinfo = here
    found = folder / buildinfo.id.path(names.CLOSURES)
    return found if found.is_dir() else None


def _own(file: Path) -> tuple[Path, str, Buildinfo] | None:
    """Return the user's own archive on this machine that may have published a .buildinfo, its text and content."""
    try:
        text = sign.text(file)
        buildinfo = described.read(text, str(file))
    except Error:
        # The verification reports why.
        return None
    one = own.archive(buildinfo.id.suite)
    return (
        (Path(os.fsdecode(unquote_to_bytes(one.source.folder))), text, buildinfo)
        if one and one.source.folder
        else None
    )


def closure_of(file: Path) -> str:
    """Return the closure of the image of a .buildinfo or a record, if both were fetched; else ""."""
    folder = file.resolve().parent
    made_of = folder / names.CLOSURE
    return str(made_of) if folder.name == names.proof(file.stem) and made_of.is_dir() else ""
