# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep all that an image was made of, so that it can be proved and made again.

BUILDINFO names each package by version and SHA-256. They are fetched through
apt, as are the signed release files and the indexes that list them; a package
that no signed source has, or has otherwise, is refused. FOLDER becomes an apt
suite with these packages and this evidence. Its Release is signed by each
--signer, or by the first secret key of --homedir. What POOL has already is linked, not fetched again:
serials that share a POOL cost what changed between them. POOL and FOLDER must
be on one file system. The last line tells the packages, their bytes, and the
bytes that POOL had not before. Whatever ends it leaves nothing in the place of FOLDER.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import admission
from debian_cloud.build import request
from debian_cloud.cli import options
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, run, sign
from debian_cloud.host.progress import Progress
from debian_cloud.image import closure, lock
from debian_cloud.plan import Run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from debian_cloud.image.resolution import Package
    from debian_cloud.packages.origin import Origin

PLUMBING = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("buildinfo", type=Path, metavar="BUILDINFO", help="the .buildinfo of an image")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the closure goes; it is not there yet")
    parser.add_argument("--pool", type=Path, required=True, metavar="POOL", help="what other closures have already")
    parser.add_argument(
        "--homedir", type=Path, required=True, metavar="DIR", help="GnuPG's home with the key to sign"
    )
    parser.add_argument(
        "--signer", action="append", default=[], metavar="KEY", help="a key that signs, by fingerprint; repeatable"
    )
    options.add_source(options.add_places(parser))


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    with run.ending_politely():
        return _keep_all(args)


def _keep_all(args: argparse.Namespace) -> int:
    kept = request.locked(args.buildinfo)
    wanted = (*kept.packages, *kept.tools)
    folder: Path = args.folder
    if folder.exists():
        raise Error(f"{folder} exists already", "a closure is never rewritten: choose another folder", USAGE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # An image of a snapshot may be of what the archive lists no longer.
    args.snapshot = admission.snapshot_of(kept)
    pool = Pool(args.pool)
    # Seen by nobody before it is whole.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        made = Path(name) / "closure"
        with options.origin_of(args, kept.suite, kept.architecture) as origin:
            stanzas = origin.apt.stanzas(wanted)
            _fetch(origin, pool, wanted, Path(name))
            listed = {closure.filename(package): (package.sha256, package.size) for package in wanted}
            evidence = _keep_evidence(origin, pool, made / "evidence")
        for package in wanted:
            pool.link(package.sha256, made / closure.filename(package))
        _index(kept, stanzas, made, {**listed, **evidence}, args.homedir, args.signer)
        made.rename(folder)
    total = sum(package.size for package in wanted)
    print(f"{len(wanted)} packages, {total} bytes; {pool.added} bytes more than before")
    return 0


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
    kept: lock.Lock,
    stanzas: dict[Package, str],
    folder: Path,
    listed: dict[str, tuple[str, int] | None],
    homedir: Path,
    signers: Sequence[str],
) -> None:
    text = closure.packages_text(stanzas)
    index = folder / closure.packages_path(kept.suite, kept.architecture)
    index.parent.mkdir(parents=True)
    index.write_text(text, "utf-8")
    release = folder / "dists" / kept.suite / "Release"
    place = names.closure(kept.suite, kept.config, kept.architecture, kept.serial)
    release.write_text(closure.release_text(kept.suite, kept.architecture, kept.epoch, text, place, listed), "utf-8")
    sign.clearly(release, release.with_name("InRelease"), homedir, signers)
    release.unlink()
