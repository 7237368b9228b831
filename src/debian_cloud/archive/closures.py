# SPDX-License-Identifier: GPL-3.0-or-later
"""Closures, the kept packages that images were made of: which can be kept, how, and which are still missing.

`accept` checks that a closure can be made: the archive's own packages (all named debian-cloud*) must be exactly those
of the suite, or of the snapshot that the image names; Debian's must be in its signed indexes, if those can be read. A
mirror may fail later, or Debian may have moved on, so no index lists an image before its closure exists
(`state.unkept`). Until then the image is treated as held back, and its release set waits with it; an image that is
already published stays published. `publish` first publishes the indexes, then fetches for an hour at most, and then
publishes the images whose closures it made. A failure is noted in DIR/cache with the time of the next try; it does
not make `publish` fail, whose indexes are already published.

Closures are hard links into one pool of files named by their content, so that a serial costs only what changed. The
InRelease of a closure names its path and lists all its files (`Closure-Files`), without a hash for those that the
archive signed and may sign again, so that `debian-cloud-mirror --closures` can copy it. `rebuild` takes packages only
from there.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import admission, lifecycle, state
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, run, sign
from debian_cloud.host.progress import Progress
from debian_cloud.image import closure
from debian_cloud.plan import Run

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.id import ImageId
    from debian_cloud.image.resolution import Package
    from debian_cloud.packages.origin import Origin


@dataclass(frozen=True, slots=True)
class Kept:
    """Number and bytes of a closure's packages, and the bytes that were added to the pool."""

    packages: int
    size: int
    added: int


@dataclass(frozen=True, slots=True)
class Signing:
    """A GnuPG home, and the fingerprints of its keys that sign; without any, its first secret key signs."""

    homedir: Path
    signers: tuple[str, ...] = ()


def keep(
    buildinfo: Buildinfo, folder: Path, pool: Pool, signing: Signing, sources: AbstractContextManager[Origin]
) -> Kept:
    """Write an image's closure to a directory, as an apt suite with its evidence, completely or not at all.

    `sources` are opened when they are needed; the pool and the directory must be on one file system.
    """
    wanted = (*buildinfo.packages, *buildinfo.tools)
    if folder.exists():
        raise Error(f"{folder} exists already", "a closure is never rewritten: choose another directory", USAGE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Hidden until it is complete.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        made = Path(name) / "closure"
        with sources as origin:
            stanzas = origin.apt.stanzas(wanted)
            _fetch(origin, pool, wanted, Path(name))
            listed = {closure.filename(package): (package.sha256, package.size) for package in wanted}
            evidence = _keep_evidence(origin, pool, made / "evidence")
        for package in wanted:
            pool.link(package.sha256, made / closure.filename(package))
        _index(buildinfo, stanzas, made, {**listed, **evidence}, signing)
        made.rename(folder)
    return Kept(len(wanted), sum(package.size for package in wanted), pool.added)


def refuse_unlisted(buildinfo: Buildinfo, sources: AbstractContextManager[Origin]) -> str:
    """Raise Error if Debian's signed indexes no longer list a package of an image, or list it with other content.

    If the indexes cannot be read, there is no error, and the returned sentence is the reason; otherwise it is empty.
    """
    read = False
    try:
        with sources as origin:
            read = True
            origin.apt.stanzas(admission.of_debian(buildinfo))
    except Error as error:
        if read:
            raise
        return f"Debian's indexes cannot be read: {error.message}"
    return ""


def wanting(archive: Path, *, due: bool = False) -> tuple[ImageId, ...]:
    """The images whose closures an archive must keep and does not have.

    They are sorted by the number of failures, then newest first; with `due`, only those whose next try is due. The
    notes of failures of all other images are removed.
    """
    now = time.time()
    missing = [
        image
        for suite in state.suites(archive / "state")
        for image in state.without_closure(archive, state.records(archive / "state", suite))
    ]
    for image in {*state.failures(archive)} - {*missing}:
        state.note_failure(archive, image, None)
    found = {image: state.failure(archive, image) for image in missing}
    newest = sorted(missing, key=lambda image: image.number, reverse=True)
    ordered = sorted(newest, key=lambda image: failure.tries if (failure := found[image]) else 0)
    # After a clock was set back, an image must not wait longer than the longest delay.
    return tuple(
        image
        for image in ordered
        if not due or not (failure := found[image]) or not now < failure.next <= now + lifecycle.LAST_DELAY
    )


def note_failure(archive: Path, image: ImageId, said: str) -> None:
    """Note why the closure of an image could not be made, from the output of a tool."""
    failure = lifecycle.failed(state.failure(archive, image), _reason(said), time.time())
    state.note_failure(archive, image, failure)


def _reason(said: str) -> str:
    """Our own error in a tool's output, and apt's first one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((line.partition("error: ")[2] for line in lines if "error: " in line), "")
    of_apt = next((line for line in lines if line.startswith(("E: ", "Err:"))), "")
    return "; ".join(filter(None, (first, of_apt))) or (lines[-1] if lines else "it failed without a message")


class Pool:
    """Files named by their content, `aa/SHA256`, hard-linked into each closure that needs them."""

    def __init__(self, folder: Path) -> None:
        """A pool in a directory, which is created if it does not exist."""
        self._folder = folder
        self.added = 0
        """Bytes that were added."""

    def has(self, sha256: str) -> bool:
        """Whether the pool has a file."""
        return self._path(sha256).exists()

    def add(self, file: Path, sha256: str) -> None:
        """Move a file into the pool; the caller has checked its hash."""
        path = self._path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o644)
        with file.open("rb") as written:
            os.fsync(written.fileno())
        file.rename(path)
        self.added += path.stat().st_size

    def link(self, sha256: str, target: Path) -> None:
        """Hard-link a file to another name."""
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(self._path(sha256))

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def _fetch(origin: Origin, pool: Pool, packages: tuple[Package, ...], folder: Path) -> None:
    """Fetch the packages that the pool lacks; Error if a .deb is not the one that the .buildinfo names."""
    missing = tuple(package for package in packages if not pool.has(package.sha256))
    if not missing:
        return
    folder = folder / "fetched"
    folder.mkdir()
    wanted = (f"{package.name}={package.version}" for package in missing)
    # As the owner of the directory: apt's own user may not write there.
    as_us = ("-o", "APT::Sandbox::User=root")
    step = Run(
        f"fetch {len(missing)} packages", ("apt-get", "-c", str(origin.conf), *as_us, "-q", "download", *wanted)
    )
    run.carry_out((step,), folder, Progress(1))
    for package in missing:
        deb = folder / package.deb
        if not deb.is_file() or checksums.digest(deb, ("sha256",)).hashes["sha256"] != package.sha256:
            raise Error(f"{package.deb} is not the file that the .buildinfo lists", "its archive must be repaired")
        pool.add(deb, package.sha256)


def _keep_evidence(origin: Origin, pool: Pool, folder: Path) -> dict[str, tuple[str, int] | None]:
    """Keep each signed release file and its indexes.

    It returns what the closure's own release file lists of them.
    """
    of_debian = len(origin.releases) - len(origin.archive.suites)
    for number, release in enumerate(read.file for read in origin.releases):
        place = folder / str(number)
        name = release.name.rpartition("_")[2]
        _keep(pool, release.read_bytes(), place / name)
        if name == "Release":
            _keep(pool, release.with_name(f"{release.name}.gpg").read_bytes(), place / "Release.gpg")
        prefix = release.name.removesuffix(name)
        for index in sorted(release.parent.glob(f"{prefix}*_Packages")):
            content = index.read_bytes()
            # By the uncompressed content: another version of xz may write other bytes.
            sha256 = hashlib.sha256(content).hexdigest()
            if not pool.has(sha256):
                _store(pool, lzma.compress(content, preset=1), sha256, folder)
            pool.link(sha256, place / f"{index.name.removeprefix(prefix)}.xz")
    listed: dict[str, tuple[str, int] | None] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = f"{folder.name}/{file.relative_to(folder)}"
        got = checksums.digest(file, ("sha256",))
        # The archive signs its own again when a key is no longer valid (`steps/vouch`).
        own = file.name == "InRelease" and int(file.parent.name) >= of_debian
        listed[name] = None if own else (got.hashes["sha256"], got.size)
    return listed


def _keep(pool: Pool, content: bytes, target: Path) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    if not pool.has(sha256):
        _store(pool, content, sha256, target.parent)
    pool.link(sha256, target)


def _store(pool: Pool, content: bytes, sha256: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".{sha256}"
    file.write_bytes(content)
    pool.add(file, sha256)


def _index(
    buildinfo: Buildinfo,
    stanzas: dict[Package, str],
    folder: Path,
    listed: dict[str, tuple[str, int] | None],
    signing: Signing,
) -> None:
    text = closure.packages_text(stanzas)
    index = folder / closure.packages_path(buildinfo.id.suite, buildinfo.id.architecture)
    index.parent.mkdir(parents=True)
    index.write_text(text, "utf-8")
    release = folder / "dists" / buildinfo.id.suite / "Release"
    place = buildinfo.id.path(names.CLOSURES)
    release.write_text(
        closure.release_text(buildinfo.id.suite, buildinfo.id.architecture, buildinfo.epoch, text, place, listed),
        "utf-8",
    )
    sign.clearly(release, release.with_name("InRelease"), signing.homedir, signing.signers)
    release.unlink()
