# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away archive with only the packages that a test needs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import gnupg

SUITE = "trixie"
FINE = {"Image-Size": "1G", "Image-Format": "qcow2", "Image-Firmware": "bios uefi"}
"""Fields of an image that can be built."""


@dataclass(frozen=True)
class Published:
    """A published archive and its key, as users of the archive have them; both are in `folder`."""

    folder: Path

    @property
    def public(self) -> Path:
        return self.folder / "public"

    @property
    def keyring(self) -> Path:
        return self.folder / "archive.gpg"

    @property
    def sources(self) -> list[str]:
        """The arguments that make it the source of configurations."""
        return ["--archive", f"file:{self.public}", "--keyring", str(self.keyring)]


@dataclass(frozen=True)
class Archive(Published):
    """An archive of one suite, which takes packages without an upload."""

    @property
    def release(self) -> Path:
        return self.public / "dists" / SUITE / "InRelease"

    def run(self, verb: str, *arguments: str | Path) -> None:
        command: list[str | Path] = ["debian-cloud-archive", verb, self.folder, *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def add(self, *debs: Path) -> None:
        """Add packages and publish again."""
        reprepro = ("reprepro", "--silent", "--export=silent-never", "--ignore=longkeyid", "--basedir", self.folder)
        subprocess.run([*reprepro, "includedeb", SUITE, *debs], check=True)
        self.run("publish")

    def sign(self, text: str) -> None:
        """Sign another InRelease with the archive's own key."""
        sign(self.folder / "gnupg", text, self.release)

    def signed_text(self) -> str:
        """The text of its InRelease without the signature."""
        return signed_text(self.release)


def configuration(folder: Path, name: str, fields: dict[str, str], depends: str = "base-files") -> Path:
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    control = {
        "Package": f"debian-cloud-config-{name}",
        "Version": "1.0",
        "Architecture": "amd64",
        "Section": "admin",
        "Priority": "optional",
        "Maintainer": "Nobody <nobody@localhost>",
        "Depends": depends,
        **fields,
        "Description": f"test {name}",
    }
    (tree / "DEBIAN" / "control").write_text("".join(f"{field}: {value}\n" for field, value in control.items()))
    # Large enough that one byte of it can be changed.
    (tree / "usr").mkdir()
    (tree / "usr" / name).write_bytes(os.urandom(4096))
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, folder], stdout=subprocess.DEVNULL, check=True)
    return folder / f"debian-cloud-config-{name}_{control['Version']}_amd64.deb"


@contextmanager
def folder() -> Iterator[Path]:
    """A directory that apt's own user may read, unlike pytest's; its name is short, for gpg-agent's socket."""
    top = Path(tempfile.mkdtemp(prefix="archive."))
    top.chmod(0o755)
    try:
        yield top
    finally:
        gnupg.remove(top)


@contextmanager
def signer() -> Iterator[Path]:
    """A `folder` with a key in the GnuPG home `home`, which can `sign`, and its public part in `key.gpg`."""
    with folder() as top:
        gnupg.new_key(top / "home", "x")
        (top / "key.gpg").write_bytes(gnupg.gpg(top / "home", "--export"))
        yield top


def archive(top: Path, *debs: Path, uploader: Path | str = "") -> Archive:
    """Make an archive in `top` that publishes these packages. `uploader` is a public key that may upload."""
    made = Archive(top / "archive")
    made.run("init", *(("--uploader", str(uploader)) if uploader else ()))
    with made.keyring.open("wb") as out:
        subprocess.run(["gpg", "--homedir", made.folder / "gnupg", "--batch", "--export"], stdout=out, check=True)
    made.add(*debs)
    return made


def fingerprints(archive: Archive) -> list[str]:
    """The fingerprints of the archive's own keys."""
    return fingerprints_of(archive.keyring)


def fingerprints_of(keyring: Path) -> list[str]:
    """The fingerprints of the keys in a file."""
    listed = ("gpg", "--batch", "--with-colons", "--show-keys", keyring)
    said = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    return [line.split(":")[9] for line in said.splitlines() if line.startswith("fpr:")]


def sign(home: Path, text: str, signed: Path) -> None:
    """Clear-sign a text with the key of a GnuPG home."""
    gpg = ("gpg", "--homedir", home, "--batch", "--yes", "--quiet")
    subprocess.run([*gpg, "--output", signed, "--clearsign"], input=text.encode(), check=True)


def signed_text(file: Path) -> str:
    """The text of a clear-signed file."""
    lines = file.read_text().splitlines()
    return "\n".join(lines[lines.index("") + 1 : lines.index("-----BEGIN PGP SIGNATURE-----")]) + "\n"


def sha256(content: bytes) -> str:
    """The SHA-256 in hex digits."""
    return hashlib.sha256(content).hexdigest()
