# SPDX-License-Identifier: GPL-3.0-or-later
"""What images were made of, kept: whether it can be, how it is, and of which images that is still to be done.

`accept` asks what the closure will need: of the archive's packages (all named debian-cloud*) exactly those that the
suite has, or the snapshot that the image names; of Debian's what the signed indexes list, if they can be read. Later
a mirror may fail, or Debian may have moved on, so an image is in no index before its closure exists
(`state.unkept`), as if its release were held back, and its set waits with it; what is shown is not taken back.
`publish` shows indexes first, then fetches, for an hour at most, and shows again what it could keep. A failure is a
note in DIR/cache, with the time of the next try; it is no failure of `publish`, whose indexes are out.

Closures are hard links into one pool by content, so a serial costs what changed. The InRelease of a closure names
its place and lists all its files (`Closure-Files`), those without a hash that the archive signed and may sign anew:
so `debian-cloud-mirror --closures` can carry it. `rebuild` takes packages from there and from nowhere else.
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
    """How many packages a closure has, their bytes, and the bytes that the pool had not before."""

    packages: int
    size: int
    added: int


@dataclass(frozen=True, slots=True)
class Signing:
    """A GnuPG home, and the keys of it that sign, by fingerprint; without one, the first secret key does."""

    homedir: Path
    signers: tuple[str, ...] = ()


def keep(
    buildinfo: Buildinfo, folder: Path, pool: Pool, signing: Signing, sources: AbstractContextManager[Origin]
) -> Kept:
    """Make a folder an apt suite of all that an image was made of, with the evidence for it; nothing, or whole.

    `sources` are opened when they are needed; the pool and the folder are on one file system.
    """
    wanted = (*buildinfo.packages, *buildinfo.tools)
    if folder.exists():
        raise Error(f"{folder} exists already", "a closure is never rewritten: choose another folder", USAGE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Seen by nobody before it is whole.
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
    """Error when Debian's signed indexes have no more what an image was made of, or have it otherwise.

    Where they cannot be read, that is no reason: the sentence is why. Else it is empty.
    """
    read = False
    try:
        with sources as origin:
            read = True
            origin.apt.stanzas(admission.of_debian(buildinfo))
    except Error as error:
        if read:
            raise
        return f"Debian could not be asked: {error.message}"
    return ""


def wanting(archive: Path, *, due: bool = False) -> tuple[ImageId, ...]:
    """The images whose closures an archive is to keep and has not.

    Those first that failed least often, and of these the newest; with `due`, only those whose time has come. A
    failure of any other image is forgotten.
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
    # A clock that was set back must not make it wait for longer than it ever would.
    return tuple(
        image
        for image in ordered
        if not due or not (failure := found[image]) or not now < failure.next <= now + lifecycle.LAST_DELAY
    )


def note_failure(archive: Path, image: ImageId, said: str) -> None:
    """Note why the closure of an image could not be made, of what a tool said."""
    failure = lifecycle.failed(state.failure(archive, image), _reason(said), time.time())
    state.note_failure(archive, image, failure)


def _reason(said: str) -> str:
    """The sentence among what a tool said, and apt's own first one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((line.partition("error: ")[2] for line in lines if "error: " in line), "")
    of_apt = next((line for line in lines if line.startswith(("E: ", "Err:"))), "")
    return "; ".join(filter(None, (first, of_apt))) or (lines[-1] if lines else "it ended without a word")


class Pool:
    """Files by their content: `aa/SHA256`, each in as many closures as need it, by hard links."""

    def __init__(self, folder: Path) -> None:
        """A pool in a folder, which is made if need be."""
        self._folder = folder
        self.added = 0
        """Bytes that it was given."""

    def has(self, sha256: str) -> bool:
        """Whether it has a file."""
        return self._path(sha256).exists()

    def add(self, file: Path, sha256: str) -> None:
        """Take a file that has this hash; it was checked."""
        path = self._path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o644)
        with file.open("rb") as written:
            os.fsync(written.fileno())
        file.rename(path)
        self.added += path.stat().st_size

    def link(self, sha256: str, target: Path) -> None:
        """Show a file under another name."""
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(self._path(sha256))

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def _fetch(origin: Origin, pool: Pool, packages: tuple[Package, ...], folder: Path) -> None:
    """Fetch what the pool lacks; Error when a .deb is not the one that is named."""
    missing = tuple(package for package in packages if not pool.has(package.sha256))
    if not missing:
        return
    folder = folder / "fetched"
    folder.mkdir()
    wanted = (f"{package.name}={package.version}" for package in missing)
    # As the owner of the folder: apt's own user may not write there.
    as_us = ("-o", "APT::Sandbox::User=root")
    step = Run(
        f"fetch {len(missing)} packages", ("apt-get", "-c", str(origin.conf), *as_us, "-q", "download", *wanted)
    )
    run.carry_out((step,), folder, Progress(1))
    for package in missing:
        deb = folder / package.deb
        if not deb.is_file() or checksums.digest(deb, ("sha256",)).hashes["sha256"] != package.sha256:
            raise Error(f"{package.deb} is not the one that the .buildinfo names", "its archive must be mended")
        pool.add(deb, package.sha256)


def _keep_evidence(origin: Origin, pool: Pool, folder: Path) -> dict[str, tuple[str, int] | None]:
    """Keep each signed release file, and the indexes that it lists; what the closure's own is to list of them."""
    of_debian = len(origin.apt.release_files) - len(origin.archive.suites)
    for number, (_, _, release) in enumerate(origin.apt.release_files):
        place = folder / str(number)
        name = release.name.rpartition("_")[2]
        _keep(pool, release.read_bytes(), place / name)
        if name == "Release":
            _keep(pool, release.with_name(f"{release.name}.gpg").read_bytes(), place / "Release.gpg")
        prefix = release.name.removesuffix(name)
        for index in sorted(release.parent.glob(f"{prefix}*_Packages")):
            content = index.read_bytes()
            # By what it says: the same bytes need not come out of another xz.
            sha256 = hashlib.sha256(content).hexdigest()
            if not pool.has(sha256):
                _store(pool, lzma.compress(content, preset=1), sha256, folder)
            pool.link(sha256, place / f"{index.name.removeprefix(prefix)}.xz")
    listed: dict[str, tuple[str, int] | None] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = f"{folder.name}/{file.relative_to(folder)}"
        got = checksums.digest(file, ("sha256",))
        # The archive signs its own anew when a key is no longer good (`steps/vouch`).
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
