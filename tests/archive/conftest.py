# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive for each test, uploaders with keys, and small uploads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from debian_cloud.host.checksums import Digest
from debian_cloud.image.buildinfo import Draft
from debian_cloud.text import deb822
from tests import gnupg
from tests.archive.clients import client as client
from tests.archive.clients import clients as clients
from tests.archive.clients import trees as trees
from tests.gnupg import remove
from tests.samples import DEBIAN, RESOLUTION

ROOT = Path(__file__).resolve().parents[2]
SERIAL = "20261120.0"


def run(
    command: Sequence[str | Path], env: dict[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command; if it fails and must not, its output is shown."""
    done = subprocess.run(command, env=env, text=True, capture_output=True, check=False, timeout=600)
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


VIRTUAL_SIZE = 8 << 30


def qcow2(mark: bytes = b"", size: int = VIRTUAL_SIZE) -> bytes:
    """The smallest qcow2 that QEMU opens: a disk of `size` zero bytes; a mark is the file's last sector."""
    cluster = 1 << 16
    entries = -(-size // (cluster * (cluster // 8)))
    # QEMU, docs/interop/qcow2.txt: the L1 table is the second cluster, the refcount table the third, and its only
    # refcount block the fourth.
    header = struct.pack(
        *(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, size, 0, entries, cluster, 2 * cluster),
        *(1, 0, 0, 0, 0, 0, 4, 104),
    )
    counts = struct.pack(">Q", 3 * cluster) + bytes(cluster - 8) + struct.pack(">5H", 1, 1, 1, 1, int(bool(mark)))
    image = header.ljust(2 * cluster, b"\0") + counts.ljust(2 * cluster, b"\0")
    return image + mark.ljust(512, b"\0") if mark else image


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair in its own GNUPGHOME; `public` is the exported public key."""

    home: Path
    public: Path
    fingerprint: str

    def gpg(self, *arguments: str | Path) -> str:
        """Run gpg on this key's home and return its standard output."""
        return run(
            ["gpg", "--homedir", self.home, "--batch", "--yes", "--quiet", *arguments], dict(os.environ)
        ).stdout

    def clearsign(self, path: Path) -> None:
        """Replace a file with the same file, clear-signed."""
        signed = path.with_name(path.name + ".asc")
        self.gpg("--clearsign", "--output", signed, path)
        signed.replace(path)


@dataclass(frozen=True, slots=True)
class Upload:
    """A .changes and the files that it lists, in one directory."""

    changes: Path
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive at `path`, and the commands that are run on it."""

    path: Path
    env: dict[str, str]

    def run(self, verb: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a verb of debian-cloud-archive on this archive."""
        return run(["debian-cloud-archive", verb, self.path, *arguments], self.env, check=check)

    def killed(self, after: float, verb: str, *arguments: str) -> bool:
        """Run a verb, and kill it and all that it started after `after` seconds; return whether it still ran."""
        command: list[str | Path] = ["debian-cloud-archive", verb, self.path, *arguments]
        with (
            (self.path.parent / "said").open("w+") as said,
            subprocess.Popen(command, env=self.env, stdout=said, stderr=said, start_new_session=True) as process,
        ):
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                # What it had started ends a moment later, and the lock is free when the last of these has ended.
                run(["flock", "--timeout", "20", self.path / "lock", "true"], self.env)
                return True
            said.seek(0)
            assert process.returncode == 0, f"{verb}: {said.read()}"
            return False

    @property
    def public(self) -> Path:
        """The served tree."""
        return self.path / "public"

    @property
    def dist(self) -> Path:
        """The directory of the suite's indexes."""
        return self.public / "dists/trixie"

    @property
    def key(self) -> Key:
        """The archive's own key."""
        return Key(self.path / "gnupg", self.path / "no", "")

    def put(self, upload: Upload) -> None:
        """Put an upload into the queue without dput, which itself would refuse bad ones."""
        for path in (*upload.files, upload.changes):
            if path.exists():
                shutil.copy(path, self.path / "incoming")

    def take(self, upload: Upload) -> None:
        """Put an upload into the queue and accept it."""
        self.put(upload)
        self.run("accept")

    def refuse(self, upload: Upload) -> str:
        """Put a bad upload into the queue, and return the reason why it was refused.

        Asserts what holds for each refusal: status 1, nothing public changed,
        the queue is empty and every file is kept.
        """
        before = self.snapshot()
        number = len(list((self.path / "rejected").glob(f"{upload.changes.name}.*"))) + 1
        self.put(upload)
        done = self.run("accept", check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"refused: {upload.changes.name}: " in done.stdout
        assert f"refused: {upload.changes.name}: " in (self.path / "log/accept.log").read_text()
        assert self.snapshot() == before
        assert self.queue() == []
        kept = self.path / "rejected" / f"{upload.changes.name}.{number}"
        for path in (*upload.files, upload.changes):
            if path.exists():
                assert (kept / path.name).read_bytes() == path.read_bytes()
        reason = (kept / "reason").read_text()
        expected = {path.name for path in (*upload.files, upload.changes) if path.exists()} | {"reason"}
        assert {path.name for path in kept.iterdir()} == expected
        assert sum(line.startswith("error: ") for line in reason.splitlines()) == 1, reason
        assert sum(line.startswith("hint: ") for line in reason.splitlines()) == 1, reason
        return reason

    def queue(self) -> list[str]:
        """The names of the files in the queue."""
        return sorted(path.name for path in (self.path / "incoming").iterdir())

    def packages(self) -> str:
        """The packages that reprepro has, published or not, one per line."""
        return run(["reprepro", "--basedir", self.path, "list", "trixie"], self.env).stdout

    def snapshot(self) -> dict[str, str]:
        """Path -> digest or link target of all public files, and under "" the packages to be published."""
        found = {
            str(path): str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.public.rglob("*"))
            if path.is_symlink() or path.is_file()
        }
        return found | {"": self.packages()}


@dataclass(frozen=True, slots=True)
class Template:
    """An archive in the directory `kept`, with copies for tests in `path`, the only place where it works.

    The signed keyring package and the dput configuration for uploaders have the address `path`.
    """

    kept: Path
    path: Path

    @classmethod
    def begun(cls, short_path: Path, name: str, env: dict[str, str], uploader: Key, *options: str) -> Template:
        """Make an archive with one uploader in `path`, by `init` with these options, for the caller to continue."""
        found = cls(short_path / f"{name}-template", short_path / name / "a")
        found.path.parent.mkdir()
        begin(found.path, env, uploader, *options)
        return found

    def keep(self) -> None:
        """Move the archive from `path` to `kept`; it must be the only thing in its directory."""
        gnupg.end(self.path / "gnupg")
        self.path.rename(self.kept)
        self.path.parent.rmdir()

    @contextmanager
    def copied(self) -> Iterator[None]:
        """Make a copy for one test."""
        self.path.parent.mkdir()
        subprocess.run(["cp", "-a", self.kept, self.path], check=True)
        try:
            yield
        finally:
            remove(self.path.parent)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes uploads in new directories below `path`."""

    path: Path
    env: dict[str, str]

    def folder(self) -> Path:
        """Make a new empty directory."""
        return Path(tempfile.mkdtemp(dir=self.path))

    def changes(self, files: Sequence[Path], key: Key | None, name: str, fields: dict[str, str]) -> Upload:
        """Describe the files in a .changes beside them, signed if there is a key."""
        listing: dict[str, list[str]] = {"Checksums-Sha1": [], "Checksums-Sha256": [], "Files": []}
        for file in files:
            data = file.read_bytes()
            section = "misc optional" if "_" in file.name else "raw-images -"
            listing["Checksums-Sha1"].append(f" {hashlib.sha1(data).hexdigest()} {len(data)} {file.name}")
            listing["Checksums-Sha256"].append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {file.name}")
            listing["Files"].append(f" {hashlib.md5(data).hexdigest()} {len(data)} {section} {file.name}")
        header = {
            "Format": "1.8",
            "Date": "Fri, 20 Nov 2026 12:00:00 +0000",
            "Source": "debian-cloud",
            "Distribution": "trixie",
            "Urgency": "medium",
            "Maintainer": "Test <test@example.org>",
            "Changed-By": "Test <test@example.org>",
            "Description": "\n test - test",
            "Changes": "\n debian-cloud (1) trixie; urgency=medium\n .\n   * Test.",
        }
        header |= fields
        text = deb822.render(header.items())
        text += "".join(f"{field}:\n" + "\n".join(lines) + "\n" for field, lines in listing.items())
        changes = files[0].parent / name
        changes.write_text(text)
        if key:
            key.clearsign(changes)
        return Upload(changes, tuple(files))

    def deb(
        self,
        key: Key | None,
        version: str = "1.0",
        *,
        package: str = "debian-cloud-config-demo",
        content: str = "demo",
        source: str = "debian-cloud",
        suite: str = "trixie",
    ) -> Upload:
        """Make an upload of one small binary package and its .buildinfo."""
        folder = self.folder()
        root = folder / "root"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "usr/share/demo").mkdir(parents=True)
        (root / "usr/share/demo" / package).write_text(content)
        (root / "DEBIAN/control").write_text(
            f"Package: {package}\nSource: {source}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: Test <test@example.org>\nSection: misc\nPriority: optional\nDescription: test\n"
        )
        deb = folder / f"{package}_{version}_all.deb"
        run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", root, deb], self.env)
        shutil.rmtree(root)
        buildinfo = folder / f"{source}_{version}_amd64.buildinfo"
        buildinfo.write_text("Format: 1.0\n")
        fields = {"Source": source, "Binary": package, "Architecture": "all"}
        fields |= {"Version": version, "Distribution": suite}
        return self.changes([deb, buildinfo], key, f"debian-cloud_{version}_all.changes", fields)

    def image(
        self,
        key: Key | None,
        serial: str = SERIAL,
        *,
        record: dict[str, str] | None = None,
        suite: str = "trixie",
        extra: str | None = None,
        content: bytes = qcow2(),
        buildinfo_fields: str = "",
        described: bytes | None = None,
    ) -> Upload:
        """Make an upload of one image; `record` overrides fields of its record, `extra` adds a file of that name.

        The .buildinfo describes the disk `described`, if given, instead of `content`.
        """
        folder = self.folder()
        stem = f"debian-13-ec2-amd64-{serial}"
        disk, buildinfo = folder / f"{stem}.qcow2", folder / f"{stem}.buildinfo"
        disk.write_bytes(content)
        known = Draft.parse(Draft.of(RESOLUTION, serial, ("qcow2",), DEBIAN, "1" * 64).render())
        assert known.buildinfo.stem == stem
        built = content if described is None else described
        digests = {disk.name: Digest(len(built), {"sha256": hashlib.sha256(built).hexdigest()})}
        buildinfo.write_text(known.buildinfo.sealed(digests).render(("apt (= 1)",)) + buildinfo_fields)
        place = f"images/trixie/ec2/amd64/{serial}"
        stanza = {
            "Image": "debian-cloud-config-ec2",
            "Version": serial,
            "Suite": "trixie",
            "Architecture": "amd64",
            "Format": "qcow2",
            "Config-Version": known.buildinfo.config_version,
            "Filename": f"{place}/{disk.name}",
            "Size": str(len(content)),
            "Virtual-Size": str(VIRTUAL_SIZE),
            "SHA256": hashlib.sha256(content).hexdigest(),
            "SHA512": hashlib.sha512(content).hexdigest(),
            "Buildinfo": f"{place}/{buildinfo.name}",
        }
        stanza |= record or {}
        files = [disk, buildinfo, folder / f"{stem}.image"]
        files[2].write_text("".join(f"{field}: {value}\n" for field, value in stanza.items()))
        if extra:
            files.append(folder / extra)
            files[3].write_text("surplus")
        fields = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64"}
        fields |= {"Version": serial, "Distribution": suite}
        return self.changes(files, key, f"{stem}.changes", fields)


@pytest.fixture(scope="session")
def session_path() -> Iterator[Path]:
    """A directory with a short path, shared by all modules: the socket of gpg's agent must fit into 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="dca-"))
    path.chmod(0o711)
    yield path
    remove(path)


@pytest.fixture(scope="module")
def short_path(session_path: Path) -> Path:
    """A directory with a short path for one module, which need not know what names others use."""
    return Path(tempfile.mkdtemp(dir=session_path, prefix=""))


def stubbed(folder: Path, env: dict[str, str], body: str) -> dict[str, str]:
    """An environment whose scripts run `body` as Python; its arguments are the step's name and arguments."""
    folder.mkdir(exist_ok=True)
    (folder / "python3").write_text(f"#!/bin/sh\nshift 3 # -P -m debian_cloud.archive.steps\n{body}\n")
    (folder / "python3").chmod(0o755)
    return {**env, "DEBIAN_CLOUD_PYTHON": str(folder / "python3")}


@pytest.fixture(scope="session")
def env(session_path: Path) -> dict[str, str]:
    """An environment with both commands on PATH, as when installed: one of them is a link."""
    commands = session_path / "bin"
    commands.mkdir()
    (commands / "debian-cloud-archive").symlink_to(ROOT / "archive/debian-cloud-archive")
    (commands / "debian-cloud").write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT / "src"} exec {sys.executable} -m debian_cloud "$@"\n'
    )
    (commands / "debian-cloud").chmod(0o755)
    home = session_path / "home"
    home.mkdir()
    return {"PATH": f"{commands}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}


def make_key(path: Path, name: str) -> Key:
    """A new key in its own GNUPGHOME."""
    home = path / name
    home.mkdir(mode=0o700)
    key = Key(home, path / f"{name}.asc", "")
    address = f"{name} <{name}@example.org>"
    key.gpg("--passphrase", "", "--pinentry-mode", "loopback", "--quick-generate-key", address, "ed25519", "sign")
    key.gpg("--armor", "--export", "--output", key.public)
    listing = key.gpg("--with-colons", "--list-keys")
    fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    return Key(home, key.public, fingerprint)


@pytest.fixture(scope="session")
def uploader(session_path: Path) -> Key:
    """A key that may upload."""
    return make_key(session_path, "uploader")


@pytest.fixture(scope="session")
def stranger(session_path: Path) -> Key:
    """A key that may not upload."""
    return make_key(session_path, "stranger")


@pytest.fixture
def make(tmp_path: Path, env: dict[str, str]) -> Maker:
    """A maker of uploads."""
    return Maker(tmp_path, env)


def begin(path: Path, env: dict[str, str], uploader: Key, *options: str) -> None:
    """Make an archive with one uploader."""
    run(["debian-cloud-archive", "init", path, "--uploader", uploader.public, *options], env)
    # The images of these tests were not built from packages, so there are no closures to keep.
    (path / "conf" / "closures").unlink()


@pytest.fixture(scope="session")
def template(session_path: Path, env: dict[str, str], uploader: Key) -> Template:
    """A new archive that is copied for each test: copying takes a hundredth of the time of `init`."""
    made = Template.begun(session_path, "archive", env, uploader)
    made.keep()
    return made


@pytest.fixture
def archive(template: Template, env: dict[str, str]) -> Iterator[Archive]:
    """A new archive with one uploader; it has the same path in each test."""
    with template.copied():
        yield Archive(template.path, env)


@pytest.fixture(scope="session")
def full_template(
    session_path: Path,
    env: dict[str, str],
    uploader: Key,
    tmp_path_factory: pytest.TempPathFactory,
) -> Template:
    """The same with an image, then a package, published."""
    made = Template.begun(session_path, "full", env, uploader)
    make, archive = Maker(tmp_path_factory.mktemp("uploads"), env), Archive(made.path, env)
    for upload in (make.image(uploader), make.deb(uploader)):
        archive.take(upload)
        archive.run("publish")
    made.keep()
    return made


@pytest.fixture
def full(full_template: Template, env: dict[str, str]) -> Iterator[Archive]:
    """An archive with an image and a package; it has the same path in each test."""
    with full_template.copied():
        yield Archive(full_template.path, env)


@pytest.fixture
def new_archive(short_path: Path, env: dict[str, str], uploader: Key) -> Iterator[Archive]:
    """An archive with a path and a key of its own, because debian-cloud caches what it has read from an address."""
    path = Path(tempfile.mkdtemp(dir=short_path)) / "a"
    begin(path, env, uploader)
    yield Archive(path, env)
    remove(path.parent)
