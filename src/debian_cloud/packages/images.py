# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that this machine's apt knows of.

An archive that is refused is named in a warning; `list --images` then shows the others and exits 1, since its list
is not whole. An archive without an image is known by its index of images or by the source of the keyring package
(`sources.archives`). The suites that it has are in its trace, which is unsigned: they are reported, and decide
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
from debian_cloud.text import openpgp
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from debian_cloud.image.sources import Target
    from debian_cloud.image.staleness import ImageStatus

_T = TypeVar("_T")
_HELPER: Final = "/usr/lib/apt/apt-helper"
_TRACE: Final = 2**16
"""Bytes of the file by which an archive says which suites it has; it has some hundred."""
_SLACK: Final = 2**20
"""Bytes by which a file may be too long, and apt still say in its own words that it is another."""
_ROOM: Final = 2**16
"""Bytes that a disk has left at least, if a file of an archive could be written to it."""
_MEND: Final = "`apt-get update`, and try again; if that does not help, tell the archive's operator"


@dataclass(frozen=True, slots=True)
class Image:
    """One record of the signed index, and the archive that it is from."""

    record: index.ImageRecord
    archive: str
    index: str = ""
    """The file of the machine's apt that has the record."""

    @property
    def url(self) -> str:
        """Where its file is; `copy:` for a folder, as apt's `file:` gives no file but a link to one."""
        return self.place(self.record.filename)

    def place(self, path: str) -> str:
        """Where the archive has a file."""
        return f"{_copied(self.archive)}/{path}"


@dataclass(frozen=True, slots=True)
class Known:
    """The images of those archives whose indexes can be read, and a sentence on each of the others."""

    images: tuple[Image, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """The same of what archives say became of their images."""

    statuses: tuple[ImageStatus, ...]
    refused: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    """Of each status, the archive that says it."""


def known(suite: str, arch: str = "") -> Known:
    """The images of a suite (and an architecture) in the indexes that `apt update` verified, oldest first.

    Error when there is none of them that can be read.
    """
    names.word(suite, "suite")
    read = sources.targets(run.output(sources.INDEXTARGETS))
    archives = sources.archives(read)
    if not archives:
        raise sources.unknown(read, "this machine's apt has no index of images", installed=installed(), status=FAILED)
    targets = sources.verified_images(read)
    # One that published no image may have no index of them, where an older debian-cloud made it.
    if suite not in {target.codename for target in archives}:
        raise Error(
            f"this machine's apt reads no archive of images for {suite}, it reads: "
            + ", ".join(sorted({printable(target.codename) for target in archives})),
            f"choose with --suite, or install the {names.KEYRING_PACKAGE} package of {suite}",
            USAGE,
        )

    return listed(targets, suite, arch)


def listed(targets: Sequence[Target], suite: str, arch: str, keyring: Path | None = None) -> Known:
    """The images of a suite (and an architecture) in these indexes, oldest first.

    Their keys are in the keyring, by default that of the keyring package.
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
    """What the archives of this machine say became of their images, in the indexes that `apt update` verified.

    Updates are kept of the wanted images alone. Error when there is no index that can be read.
    """
    known = sources.targets(run.output(sources.INDEXTARGETS))
    targets = [target for target in known if (target.created_by, target.trusted) == ("Images-Status", "yes")]
    if not targets:
        what = "this machine's apt knows no archive that says what became of its images"
        raise sources.unknown(known, what, installed=installed())

    return said(targets, wanted)


def said(targets: Sequence[Target], wanted: Callable[[ImageStatus], bool], keyring: Path | None = None) -> Said:
    """What these indexes say became of images, with updates of the wanted ones."""

    def of(target: Target, file: IO[bytes]) -> list[tuple[str, ImageStatus]]:
        read = staleness.read(file)
        return [
            (target.uri, status if wanted(status) else replace(status, security=(), others=())) for status in read
        ]

    found, refused = _read(targets, of, keyring)
    return Said(tuple(status for _, status in found), refused, tuple(uri for uri, _ in found))


def installed() -> bool:
    """Whether the keyring package of an archive of images is installed."""
    return Path(names.ARCHIVE_KEYRING).exists()


def _read(
    targets: Sequence[Target], of: Callable[[Target, IO[bytes]], list[_T]], keyring: Path | None
) -> tuple[list[_T], tuple[str, ...]]:
    """What is in the indexes, and a sentence on each archive whose index is not as it must be: the others count."""
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
            refused.append(f"{_of(target)} is left out, it cannot be read: {error.message}")
    if refused and len(refused) == len(targets):
        raise Error("; ".join(refused), _MEND)
    return found, (*refused,)


def _of(target: Target) -> str:
    return f"the index {target.created_by} of {printable(target.uri)}, {printable(target.codename)}"


def _refuse_replayed(target: sources.Target, keyring: Path) -> None:
    """Error when apt took a snapshot in the place of the suite: it does not tell one from the other.

    Of an archive whose keys are not in the keyring nothing is asked.
    """
    # …_dists_SUITE_COMPONENT_images_Images
    place = target.filename.rsplit("_", 3)[0]
    clear, plain, signature = (Path(f"{place}_{name}") for name in ("InRelease", "Release", "Release.gpg"))
    try:
        # Where there is no InRelease, apt takes the other two.
        signed = sign.verified(keyring, clear) if clear.exists() else sign.verified(keyring, plain, signature)
    except Error:
        return
    found = openpgp.field(signed.content, "Snapshot")
    if found and names.snapshot_at(target.uri) != found:
        raise Error(
            f"{target.uri} shows, rightly signed, its snapshot {found} in the place of {target.codename}",
            "it keeps an old state before you: use another mirror, and run `apt-get update`",
        )


def suites(uri: str) -> tuple[str, ...]:
    """The suites that an archive says to have, in words that nobody signed; none where it does not say so."""
    found: list[str] = []
    if uri.startswith(("file:", "copy:")):
        # As apt decodes it; what can be no path has no suites.
        with contextlib.suppress(OSError, ValueError):
            place = Path(os.fsdecode(unquote_to_bytes(uri[5:])))
            found = [path.parent.name for path in place.glob("dists/*/InRelease")]
    else:
        with tempfile.TemporaryDirectory(prefix="debian-cloud.") as folder:
            # As root, apt fetches as its own user.
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
    """Where the files of an image's archive are: where apt takes it from, and where the archive itself is.

    The latter stands in the release file that apt verified.
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
    # apt's `file:` gives no file but a link to one.
    return (f"copy:{archive[5:]}" if archive.startswith("file:") else archive).rstrip("/")


def there(uri: str, out: Path, largest: int) -> bool:
    """Fetch a file that need not be there, and whose content is verified by others; whether it was."""
    out.parent.mkdir(parents=True, exist_ok=True)
    run.words(("prlimit", *_download(largest, uri, out.name)), out.parent)
    found = out.is_file() and not out.is_symlink()
    if not found:
        _refuse_full(out.parent)
        out.unlink(missing_ok=True)
        # A folder without a release file would be one of which it was lost.
        with contextlib.suppress(OSError):
            out.parent.rmdir()
    return found


def download(folder: Path, wanted: Sequence[tuple[str, str, str]], largest: int) -> None:
    """Fetch files into a folder; Error when one is not to be had.

    Each has its address, its path in the folder, and its hash, ALGORITHM:HASH or nothing; the last alone may be
    without one.
    """
    words: list[str] = []
    for uri, name, digest in wanted:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        words += [uri, name, *((digest,) if digest else ())]
    status = run.foreground(("prlimit", *_download(largest, *words)), folder)
    # In one call, it is not known which of them failed.
    what = wanted[0][0] if len(wanted) == 1 else f"a file of {wanted[0][0].rpartition('/')[0]}"
    found = [folder / name for _, name, _ in wanted]
    if status or not all(out.is_file() and not out.is_symlink() for out in found):
        _refuse_full(folder)
        raise Error(
            f"{printable(what)} could not be fetched, or is not what was signed",
            "apt's words are above; `apt-get update` first, if the archive has changed",
        )


def fetch(image: Image, out: Path) -> None:
    """Fetch an image by apt's own helper, which proves its SHA-512; Error when it is not to be had."""
    _refuse_full(out.parent, image.record.size)
    wanted = (image.url, out.name, f"SHA512:{image.record.sha512}")
    if run.foreground(("prlimit", *_download(image.record.size, *wanted)), out.parent):
        _refuse_full(out.parent)
        raise Error(
            f"{image.record.name} could not be fetched, or is not what the signed index says",
            "apt's words are above; `apt-get update` first, if the archive has changed",
        )


def _download(largest: int, *wanted: str) -> tuple[str, ...]:
    """Arguments of prlimit(1), to be run in the folder where the files go: its name is in no message of apt's."""
    # The helper is not told the size, and would write what comes until the disk is full.
    most = (f"--fsize={largest + _SLACK}", "--")
    # Its own user may not write into a directory of ours: apt would say so, and go on as we do here.
    return (*most, _HELPER, "-o", "APT::Sandbox::User=root", "download-file", *wanted)


def _refuse_full(folder: Path, needed: int = _ROOM) -> None:
    """Error when the disk of a folder has no room for so many bytes: apt's own words need not say so."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Error(
            f"the disk is full: {folder.parent} has {free >> 10} KiB free"
            + (f", and {needed >> 10} are needed" if needed > _ROOM else ""),
            "free some space, or choose another place with --output",
        )
