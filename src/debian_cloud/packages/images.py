# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that this machine's apt knows of.

An archive that is refused is named in a warning; `list --images` then shows the others and exits 1, since its list
is incomplete. An archive without an image is known by its index of images or by the source of the keyring package
(`sources.archives`). The suites that it has are in its trace, which is unsigned: they are only reported, and decide
nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote_to_bytes

from debian_cloud import names
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host import files, run, sign
from debian_cloud.image import index, sources, staleness
from debian_cloud.packages import indextargets
from debian_cloud.text import openpgp
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from debian_cloud.image.sources import Target
    from debian_cloud.image.staleness import ImageStatus

_T = TypeVar("_T")
_HELPER: Final = "/usr/lib/apt/apt-helper"
_TRACE: Final = 2**16
"""Largest trace, the file in which an archive lists its suites, in bytes; it has a few hundred."""
_SLACK: Final = 2**20
"""Bytes by which a file may exceed its size so that apt itself reports that it is another file."""
_ROOM: Final = 2**16
"""A disk with fewer free bytes than this counts as full."""
_MEND: Final = "run `apt-get update` and try again; if that does not help, report it to the archive's operator"


@dataclass(frozen=True, slots=True)
class Image:
    """One record of the signed index, and the archive that it is from."""

    record: index.ImageRecord
    archive: str
    index: str = ""
    """The index file of the machine's apt that has the record."""

    @property
    def url(self) -> str:
        """The URL of its file; `copy:` for a directory, since apt's `file:` gives a symlink to the file."""
        return self.place(self.record.filename)

    def place(self, path: str) -> str:
        """Return the URL of a file in the archive."""
        return f"{_copied(self.archive)}/{path}"


@dataclass(frozen=True, slots=True)
class Known:
    """The images of those archives whose indexes can be read, and a sentence on each of the others."""

    images: tuple[Image, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """The statuses that archives give their images, and a sentence on each archive whose index cannot be read."""

    statuses: tuple[ImageStatus, ...]
    refused: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    """For each status, the archive that gives it."""


def known(suite: str, arch: str = "") -> Known:
    """Return the images of a suite (and an architecture) in the indexes that `apt update` verified, oldest first.

    Raise Error if none of these indexes can be read.
    """
    names.word(suite, "suite")
    read = indextargets.known()
    archives = sources.archives(read)
    if not archives:
        raise sources.unknown(read, "this machine's apt has no index of images", installed=installed(), status=FAILED)
    targets = sources.verified_images(read)
    # An archive that published no image, made by an older debian-cloud, may have no index of images.
    if suite not in {target.codename for target in archives}:
        raise Error(
            f"this machine's apt reads no archive of images for {suite}, only for: "
            + ", ".join(sorted({printable(target.codename) for target in archives})),
            f"choose with --suite, or install the {names.KEYRING_PACKAGE} package of {suite}",
            USAGE,
        )

    return listed(targets, suite, arch)


def listed(targets: Sequence[Target], suite: str, arch: str, keyring: Path | None = None) -> Known:
    """Return the images of a suite (and an architecture) in these indexes, oldest first.

    `keyring` has the keys that signed them; by default it is that of the keyring package.
    """

    def of(target: Target, file: IO[bytes]) -> list[Image]:
        return [
            Image(record, target.uri, target.filename)
            for record in index.read(file)
            if record.id.suite == suite and arch in ("", record.id.architecture)
        ]

    found, refused = _read(targets, of, keyring)
    found.sort(key=lambda i: (i.record.id.config, i.record.id.architecture, i.record.id.number))
    return Known((*found,), refused)


def statuses(wanted: Callable[[ImageStatus], bool]) -> Said:
    """Return the statuses of images in the indexes that `apt update` verified on this machine.

    Updates are kept for the wanted images only. Raise Error if no index can be read.
    """
    known = indextargets.known()
    targets = [target for target in known if (target.created_by, target.trusted) == ("Images-Status", "yes")]
    if not targets:
        what = "this machine's apt knows no archive that reports the status of its images"
        raise sources.unknown(known, what, installed=installed())

    return said(targets, wanted)


def said(targets: Sequence[Target], wanted: Callable[[ImageStatus], bool], keyring: Path | None = None) -> Said:
    """Return the statuses of images in these indexes, with updates of the wanted ones only."""

    def of(target: Target, file: IO[bytes]) -> list[tuple[str, ImageStatus]]:
        read = staleness.read(file)
        return [
            (target.uri, status if wanted(status) else replace(status, security=(), others=())) for status in read
        ]

    found, refused = _read(targets, of, keyring)
    return Said(tuple(status for _, status in found), refused, tuple(uri for uri, _ in found))


def installed() -> bool:
    """Return whether the keyring package of an archive of images is installed."""
    return Path(names.ARCHIVE_KEYRING).exists()


def _read(
    targets: Sequence[Target], of: Callable[[Target, IO[bytes]], list[_T]], keyring: Path | None
) -> tuple[list[_T], tuple[str, ...]]:
    """Return what is in the valid indexes, and a sentence on each archive whose index is not valid."""
    found: list[_T] = []
    refused: list[str] = []
    for target in targets:
        try:
            _refuse_replayed(target, keyring or Path(names.ARCHIVE_KEYRING))
            # cat-file, since apt may keep indexes compressed (Acquire::GzipIndexes).
            with run.printing((_HELPER, "cat-file", target.filename)) as file:
                found += of(target, file)
        except Error as error:
            if len(targets) == 1:
                raise Error(f"{_of(target)} cannot be read: {error.message}", _MEND) from None
            refused.append(f"{_of(target)} is ignored, because it cannot be read: {error.message}")
    if refused and len(refused) == len(targets):
        raise Error("; ".join(refused), _MEND)
    return found, (*refused,)


def _of(target: Target) -> str:
    return f"the index {target.created_by} of {printable(target.uri)}, {printable(target.codename)}"


def _refuse_replayed(target: sources.Target, keyring: Path) -> None:
    """Raise Error if apt fetched a snapshot instead of the suite: apt does not distinguish them.

    An archive whose keys are not in the keyring is not checked.
    """
    # …_dists_SUITE_COMPONENT_images_Images
    place = target.filename.rsplit("_", 3)[0]
    clear, plain, signature = (Path(f"{place}_{name}") for name in ("InRelease", "Release", "Release.gpg"))
    try:
        # If there is no InRelease, apt uses the other two.
        signed = sign.verified(keyring, clear) if clear.exists() else sign.verified(keyring, plain, signature)
    except Error:
        return
    found = openpgp.field(signed.content, "Snapshot")
    if found and names.snapshot_at(target.uri) != found:
        raise Error(
            f"{target.uri} serves its snapshot {found}, which is validly signed, in place of {target.codename}",
            "a snapshot is an old state: use another mirror, and run `apt-get update`",
        )


def suites(uri: str) -> tuple[str, ...]:
    """Return the suites that an archive says, unsigned, to have; none if it does not say."""
    found: list[str] = []
    if uri.startswith(("file:", "copy:")):
        # Decode it as apt does; an invalid path has no suites.
        with contextlib.suppress(OSError, ValueError):
            place = Path(os.fsdecode(unquote_to_bytes(uri[5:])))
            found = [path.parent.name for path in place.glob("dists/*/InRelease")]
    else:
        with tempfile.TemporaryDirectory(prefix="debian-cloud.") as folder:
            # As root, apt fetches as its sandbox user.
            Path(folder).chmod(0o755)
            out = Path(folder) / "trace"
            most = ("prlimit", f"--fsize={_TRACE}", "--")
            run.words((*most, _HELPER, "download-file", f"{uri.rstrip('/')}/project/trace/master", str(out)))
            lines = files.read(out, _TRACE).decode("utf-8", "replace").split("\n") if out.is_file() else []
        found = [word for line in lines if line.startswith("Suites: ") for word in line.split()[1:]]
    return tuple(sorted({name for name in found if _is_word(name)}))


def _is_word(name: str) -> bool:
    try:
        return bool(names.word(name, "suite"))
    except Error:
        return False


def addresses(image: Image) -> tuple[str, ...]:
    """Return the addresses of an image's archive: the one that apt uses, and that of the archive itself.

    The latter is in the release file that apt verified.
    """
    place = image.index.rsplit("_", 3)[0]
    found = [_copied(image.archive)]
    for name in ("InRelease", "Release"):
        if image.index and (release := Path(f"{place}_{name}")).is_file():
            address = openpgp.field(sign.text(release).encode(), "Snapshots").removesuffix("/snap/@SNAPSHOTID@/")
            if address.startswith(("http://", "https://", "file:")):
                found.append(_copied(address))
    return tuple(dict.fromkeys(found))


def _copied(archive: str) -> str:
    # apt's `file:` gives a symlink to the file.
    return (f"copy:{archive[5:]}" if archive.startswith("file:") else archive).rstrip("/")


def there(uri: str, out: Path, largest: int) -> bool:
    """Fetch a file that may be missing, and return whether it was there; callers verify its content."""
    out.parent.mkdir(parents=True, exist_ok=True)
    run.words(("prlimit", *_download(largest, uri, out.name)), out.parent)
    found = out.is_file() and not out.is_symlink()
    if not found:
        _refuse_full(out.parent)
        out.unlink(missing_ok=True)
        # A directory without a release file would look as if the file had been lost.
        with contextlib.suppress(OSError):
            out.parent.rmdir()
    return found


def download(folder: Path, wanted: Sequence[tuple[str, str, str]], largest: int) -> None:
    """Fetch files into a directory; raise Error if one cannot be fetched.

    Each has its address, its path in the directory, and its hash, ALGORITHM:HASH or nothing; only the last may have
    no hash.
    """
    words: list[str] = []
    for uri, name, digest in wanted:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        words += [uri, name, *((digest,) if digest else ())]
    status = run.foreground(("prlimit", *_download(largest, *words)), folder)
    # If one call fetches several files, it is unknown which of them failed.
    what = wanted[0][0] if len(wanted) == 1 else f"a file of {wanted[0][0].rpartition('/')[0]}"
    found = [folder / name for _, name, _ in wanted]
    if status or not all(out.is_file() and not out.is_symlink() for out in found):
        _refuse_full(folder)
        raise Error(
            f"{printable(what)} could not be fetched, or is not the signed file",
            "see apt's messages above; if the archive has changed, run `apt-get update` first",
        )


def fetch(image: Image, out: Path) -> None:
    """Fetch an image by apt-helper, which verifies its SHA-512; raise Error if it cannot be fetched."""
    _refuse_full(out.parent, image.record.size)
    wanted = (image.url, out.name, f"SHA512:{image.record.sha512}")
    if run.foreground(("prlimit", *_download(image.record.size, *wanted)), out.parent):
        _refuse_full(out.parent)
        raise Error(
            f"{image.record.name} could not be fetched, or is not the file in the signed index",
            "see apt's messages above; if the archive has changed, run `apt-get update` first",
        )


def _download(largest: int, *wanted: str) -> tuple[str, ...]:
    """Return arguments of prlimit(1), to run in the target directory, so that apt's messages do not name it."""
    # apt-helper does not know the size, and would write until the disk is full.
    most = (f"--fsize={largest + _SLACK}", "--")
    # apt's sandbox user cannot write to our directory: apt would warn of that, and continue as root, as set here.
    return (*most, _HELPER, "-o", "APT::Sandbox::User=root", "download-file", *wanted)


def _refuse_full(folder: Path, needed: int = _ROOM) -> None:
    """Raise Error if a directory's disk has fewer free bytes than needed: apt's messages may not say so."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Error(
            f"the disk is full: {folder.parent} has {free >> 10} KiB free"
            + (f", but {needed >> 10} are needed" if needed > _ROOM else ""),
            "free some space, or choose another place",
        )
