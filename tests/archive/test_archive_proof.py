# SPDX-License-Identifier: GPL-3.0-or-later
"""`fetch --proof` brings what `verify` needs, of a mirror or of the archive itself, and nothing that was changed."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud import proof
from debian_cloud.resolution import Package
from tests.archive.clients import Apt, machine, serving
from tests.test_plan import RESOLUTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.archive.conftest import Archive, Key, Maker

STEM = "debian-13-ec2-amd64-20261120.0"
PLACE = "trixie/ec2/amd64/20261120.0"
PROOF = {f"{STEM}.buildinfo", f"{STEM}.image", "SHA512SUMS", "SHA512SUMS.gpg", "closure"}


@dataclasses.dataclass(frozen=True, slots=True)
class Proved:
    """An archive with an image and its closure, and a machine that takes from a copy of it."""

    archive: Archive
    mirror: Path
    apt: Apt
    out: Path

    @property
    def closure(self) -> Path:
        return self.mirror / "closures" / PLACE

    @property
    def folder(self) -> Path:
        return self.out / f"{STEM}.proof"

    def fetch(self) -> subprocess.CompletedProcess[str]:
        command = ("debian-cloud", "fetch", "ec2", "--arch", "amd64", "--proof", "--output", self.out)
        return subprocess.run(command, env=self.apt.env, text=True, capture_output=True, check=False, timeout=120)


def tree(folder: Path) -> dict[str, str]:
    """Path -> digest of each file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def proved(
    archive: Archive,
    make: Maker,
    uploader: Key,
    tmp_path: Path,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Proved]:
    closure = archive.public / "closures" / PLACE
    (closure / "pool").mkdir(parents=True)
    packages = []
    for name, version in (("base-files", "13.8"), ("login", "1:4.16~a+b-2"), ("mtools", "4.0.48-1")):
        content = name.encode() * 1000
        (closure / f"pool/{name}_{version.rpartition(':')[2]}_amd64.deb").write_bytes(content)
        packages.append(Package(name, version, "amd64", len(content), hashlib.sha256(content).hexdigest()))
    for name in (
        *("dists/trixie/InRelease", "dists/trixie/main/binary-amd64/Packages"),
        *("evidence/0/InRelease", "evidence/0/main_binary-amd64_Packages.xz"),
        *("evidence/0/non-free-firmware_binary-amd64_Packages.xz", "evidence/1/Release", "evidence/1/Release.gpg"),
        "evidence/1/contrib_binary-amd64_Packages.xz",
    ):
        (closure / name).parent.mkdir(parents=True, exist_ok=True)
        (closure / name).write_text(f"{name}\n")
    made = dataclasses.replace(RESOLUTION, packages=(*packages[:2],), tools=(packages[2],))
    # pytest has its conftest under a name of its own.
    monkeypatch.setitem(type(make).image.__globals__, "RESOLUTION", made)
    archive.take(make.image(uploader))
    archive.run("publish")
    mirror = tmp_path / "mirror"
    shutil.copytree(archive.public, mirror, symlinks=True)
    apt = machine(tmp_path / "machine", env)
    apt.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    entry = apt.root / "etc/apt/sources.list.d/debian-cloud.sources"
    with serving(mirror, []) as url:
        entry.write_text(entry.read_text().replace(f"file://{archive.public}", url))
        done = apt.get("update")
        assert done.returncode == 0, done.stdout
        yield Proved(archive, mirror, apt, tmp_path / "out")


def test_all_that_verify_needs_is_beside_the_image(proved: Proved) -> None:
    shutil.rmtree(proved.archive.public / "closures")
    done = proved.fetch()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(proved.out / f"{STEM}.qcow2")
    assert "warning" not in done.stderr
    assert {path.name for path in proved.out.iterdir()} == {f"{STEM}.qcow2", f"{STEM}.proof"}
    assert {path.name for path in proved.folder.iterdir()} == PROOF
    assert tree(proved.folder / "closure") == tree(proved.closure)
    for name in PROOF - {"closure"}:
        assert (proved.folder / name).read_bytes() == (proved.mirror / "images" / PLACE / name).read_bytes()
    # Nothing but the image is named: the .buildinfo is that of the signed sums, and the closure is looked into.
    keyring = proved.apt.root / "usr/share/keyrings/debian-cloud-archive-keyring.gpg"
    debian = ("--mirror", "http://debian.example/debian", "--security-mirror", "http://debian.example/security")
    image = proved.out / f"{STEM}.qcow2"
    done = proved.apt.run("debian-cloud", "verify", image, "--rebuilt", image, "--keyring", keyring, *debian)
    assert done.returncode == 1
    assert f"{proved.folder}/closure/evidence/0/InRelease has no good signature by a key of Debian" in done.stdout
    for name in (f"{STEM}.buildinfo", f"{STEM}.image"):
        assert proof.closure_of(proved.folder / name) == str(proved.folder / "closure")
    assert proof.closure_of(proved.out / f"{STEM}.buildinfo") == ""
    # Once more fetches nothing.
    shutil.rmtree(proved.mirror / "images")
    done = proved.fetch()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{image}\n", "")


def test_a_mirror_without_closures(proved: Proved) -> None:
    """The archive's own address stands in its signed index; where it has none either, both are named."""
    original = proved.archive.public / "closures"
    proved.closure.rename(proved.mirror / "kept")
    original.rename(original.with_name("kept"))
    done = proved.fetch()
    assert done.returncode == 0, done.stderr
    (warning,) = (line for line in done.stderr.splitlines() if line.startswith("debian-cloud: warning: "))
    url = next(line for line in warning.split() if line.startswith("http://"))
    assert f"what {STEM} was made of is not at {url} nor at copy://{original}/{PLACE}: `verify` needs it" in warning
    assert {path.name for path in proved.folder.iterdir()} == PROOF - {"closure"}
    done = proved.apt.run("debian-cloud", "verify", proved.out / f"{STEM}.qcow2")
    assert done.returncode == 2
    assert f"what {STEM}.qcow2 was made of is not beside it" in done.stdout
    original.with_name("kept").rename(original)
    done = proved.fetch()
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert tree(proved.folder / "closure") == tree(original / PLACE)


@pytest.mark.parametrize("name", ["closure", f"{STEM}.buildinfo", f"{STEM}.image", "SHA512SUMS"])
def test_what_was_changed_is_not_brought(proved: Proved, name: str) -> None:
    file = proved.mirror / "images" / PLACE / name
    if name == "closure":
        (file,) = proved.closure.glob("pool/login_*.deb")
    content = file.read_bytes()
    if name == "SHA512SUMS":
        lines = content.decode().splitlines()
        file.write_text("".join(f"{'0' * 128}  {STEM}.qcow2\n" if "qcow2" in line else f"{line}\n" for line in lines))
    else:
        file.write_bytes(content[:-1] + b"x")
    done = proved.fetch()
    assert done.returncode == 1
    assert ("disagree on" if name == "SHA512SUMS" else "is not what was signed") in done.stderr
    left = {path.name for path in proved.out.iterdir()} - {f"{STEM}.qcow2"}
    assert left == ({f"{STEM}.proof"} if name == "closure" else set())
    if name == "closure":
        assert {path.name for path in proved.folder.iterdir()} == PROOF - {"closure"}
