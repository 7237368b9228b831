# SPDX-License-Identifier: GPL-3.0-or-later
"""`fetch --proof` fetches what `verify` needs, from a mirror or the archive itself, and refuses what was changed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud.image.resolution import Package
from debian_cloud.proof import bundle
from tests.archive.clients import Apt, machine, serving
from tests.archive.conftest import Archive, Key, Maker, Template
from tests.command import refused
from tests.gnupg import remove
from tests.samples import RESOLUTION

if TYPE_CHECKING:
    from collections.abc import Iterator

STEM = "debian-13-ec2-amd64-20261120.0"
PLACE = "trixie/ec2/amd64/20261120.0"
PROOF = {f"{STEM}.buildinfo", f"{STEM}.image", "SHA512SUMS", "SHA512SUMS.gpg", "closure"}


@dataclasses.dataclass(frozen=True, slots=True)
class Proved:
    """An archive with an image and its closure, and a machine that fetches from a copy of it."""

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

    def command(self, output: Path | None = None) -> list[str]:
        """The command that fetches image and proof."""
        return ["debian-cloud", "fetch", "ec2", "--arch", "amd64", "--proof", f"--output={output or self.out}"]

    def fetch(self, output: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = self.command(output)
        return subprocess.run(command, env=self.apt.env, text=True, capture_output=True, check=False, timeout=120)


def tree(folder: Path) -> dict[str, str]:
    """Path -> digest of each file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def published(
    short_path: Path, env: dict[str, str], uploader: Key, tmp_path_factory: pytest.TempPathFactory
) -> Template:
    """The archive to copy."""
    template = Template.begun(short_path, "proved", env, uploader)
    archive = Archive(template.path, env)
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
    listed = "".join(
        f" {hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_size} {file.relative_to(closure)}\n"
        if file.name not in ("InRelease",)
        else f" - - {file.relative_to(closure)}\n"
        for file in sorted(closure.rglob("*"))
        if file.is_file() and file.relative_to(closure).parts[0] != "dists"
    )
    (closure / "dists/trixie/InRelease").write_text(f"Codename: trixie\nClosure-Files:\n{listed}")
    made = dataclasses.replace(RESOLUTION, packages=(*packages[:2],), tools=(packages[2],))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Maker.image.__globals__, "RESOLUTION", made)
        archive.take(Maker(tmp_path_factory.mktemp("uploads"), env).image(uploader))
    archive.run("publish")
    template.keep()
    return template


@pytest.fixture
def proved(published: Template, tmp_path: Path, env: dict[str, str]) -> Iterator[Proved]:
    with published.copied():
        archive = Archive(published.path, env)
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
    # Only the image is named: `verify` finds the .buildinfo by the signed sums, and the closure beside it.
    keyring = proved.apt.root / "usr/share/keyrings/debian-cloud-archive-keyring.gpg"
    debian = ("--mirror", "http://debian.example/debian", "--security-mirror", "http://debian.example/security")
    image = proved.out / f"{STEM}.qcow2"
    done = proved.apt.run("debian-cloud", "verify", image, "--rebuilt", image, "--keyring", keyring, *debian)
    assert done.returncode == 1
    assert f"{proved.folder}/closure/evidence/0/InRelease has no valid signature by a key of Debian" in done.stdout
    for name in (f"{STEM}.buildinfo", f"{STEM}.image"):
        assert bundle.closure_of(proved.folder / name) == str(proved.folder / "closure")
    assert bundle.closure_of(proved.out / f"{STEM}.buildinfo") == ""
    # A second fetch fetches nothing.
    shutil.rmtree(proved.mirror / "images")
    done = proved.fetch()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{image}\n", "")


def test_a_mirror_without_closures(proved: Proved) -> None:
    """The archive's own address is in its signed index; if the closure is missing there too, both are reported."""
    original = proved.archive.public / "closures"
    proved.closure.rename(proved.mirror / "kept")
    original.rename(original.with_name("kept"))
    done = proved.fetch()
    assert done.returncode == 0, done.stderr
    (warning,) = (line for line in done.stderr.splitlines() if line.startswith("debian-cloud: warning: "))
    url = next(line for line in warning.split() if line.startswith("http://"))
    assert f"the closure of {STEM} is not at {url} nor at copy://{original}/{PLACE}: `verify` needs it" in warning
    assert {path.name for path in proved.folder.iterdir()} == PROOF - {"closure"}
    done = proved.apt.run("debian-cloud", "verify", proved.out / f"{STEM}.qcow2")
    assert done.returncode == 2
    assert f"the closure of {STEM}.qcow2 is not beside it" in done.stdout
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
    assert ("disagree on" if name == "SHA512SUMS" else "is not the signed file") in done.stderr
    left = {path.name for path in proved.out.iterdir()} - {f"{STEM}.qcow2"}
    assert left == ({f"{STEM}.proof"} if name == "closure" else set())
    if name == "closure":
        assert {path.name for path in proved.folder.iterdir()} == PROOF - {"closure"}


def test_what_a_closure_lists_is_brought_whole(proved: Proved) -> None:
    """A closure is fetched completely or not at all, even if a file cannot be fetched now."""
    lost = proved.closure / "evidence/1/contrib_binary-amd64_Packages.xz"
    content = lost.read_bytes()
    lost.unlink()
    done = proved.fetch()
    assert done.returncode == 1
    assert "contrib_binary-amd64_Packages.xz could not be fetched" in done.stderr
    assert {path.name for path in proved.folder.iterdir()} == PROOF - {"closure"}
    lost.write_bytes(content[:-1] + b"x")
    assert proved.fetch().returncode == 1
    lost.write_bytes(content)
    done = proved.fetch()
    assert done.returncode == 0, done.stderr
    assert tree(proved.folder / "closure") == tree(proved.closure)


def test_a_closure_of_an_older_archive_lists_nothing(proved: Proved) -> None:
    (proved.closure / "dists/trixie/InRelease").write_text("Codename: trixie\n")
    done = proved.fetch()
    assert done.returncode == 0, done.stderr
    assert tree(proved.folder / "closure") == tree(proved.closure)


@pytest.mark.parametrize(
    "row", [f"{'0' * 64} 1 evidence/0/../../x", "- - evidence/0", "- - /etc/passwd", "0 1 pool/x"]
)
def test_a_closure_that_lists_what_it_cannot_have(proved: Proved, row: str) -> None:
    release = proved.closure / "dists/trixie/InRelease"
    release.write_text(f"{release.read_text()} {row}\n")
    done = proved.fetch()
    assert done.returncode == 1
    assert f"error: a closure lists {row!r}"[:40] in done.stderr
    assert {path.name for path in proved.folder.iterdir()} == PROOF - {"closure"}


def assert_whole_or_not_there(proved: Proved) -> bool:
    """Assert that each file that has its final name is complete; return whether all are there."""
    image, folder = proved.out / f"{STEM}.qcow2", proved.folder
    if image.exists():
        assert image.read_bytes() == (proved.mirror / "images" / PLACE / image.name).read_bytes()
    if folder.exists():
        shown = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert shown | {"closure"} == PROOF
        for name in PROOF - {"closure"}:
            assert (folder / name).read_bytes() == (proved.mirror / "images" / PLACE / name).read_bytes()
    kept = folder / "closure"
    assert not kept.exists() or tree(kept) == tree(proved.closure)
    return kept.exists()


def test_killed_at_any_moment(proved: Proved) -> None:
    states = set()
    for number in range(20) if os.environ.get("DEBIAN_CLOUD_ALL") else (0, 1, 3, 8, 14):
        shutil.rmtree(proved.out, ignore_errors=True)
        with subprocess.Popen(
            proved.command(),
            env=proved.apt.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            within(number, proved.out)
            os.killpg(process.pid, signal.SIGKILL)
        states.add(assert_whole_or_not_there(proved))
        done = proved.fetch()
        assert done.returncode == 0, done.stderr
        assert assert_whole_or_not_there(proved)
        # Nothing of the killed run is left.
        assert {path.name for path in proved.out.iterdir()} == {f"{STEM}.qcow2", f"{STEM}.proof"}
        assert {path.name for path in proved.folder.iterdir()} == PROOF
    assert False in states


def within(number: int, out: Path) -> None:
    """Wait until a fetch has made `number` files."""
    end = time.monotonic() + 60
    # os.walk() skips a directory that has been renamed meanwhile; rglob() raises an error.
    while time.monotonic() < end and sum(len(names) + len(files) for _, names, files in os.walk(out)) <= number:
        time.sleep(0.002)


def test_two_at_once(proved: Proved) -> None:
    """Two fetches at once leave complete files; one may report that the output is in use by the other."""
    words = proved.command()
    both = [
        subprocess.Popen(words, env=proved.apt.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    for text, status in said:
        assert status == 0 or "another debian-cloud uses " in text, text
        assert "Traceback" not in text
    assert 0 in [status for _, status in said]
    assert assert_whole_or_not_there(proved)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount the small file system that this needs")
    (folder := tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_and_shows_nothing_half(proved: Proved, small: Path) -> None:
    full = dataclasses.replace(proved, out=small / "out")
    states = set()
    for free in (0, 8, 64, 136, 160, 200, 1000) if os.environ.get("DEBIAN_CLOUD_ALL") else (0, 136, 160, 1000):
        shutil.rmtree(full.out, ignore_errors=True)
        room = os.statvfs(small)
        (small / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - free * 1024))
        done = full.fetch()
        states.add(done.returncode)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or "error: the disk is full: " in done.stderr, f"{free} KiB: {done.stderr}"
        assert done.returncode in (0, 1)
        assert "warning" not in done.stderr
        assert assert_whole_or_not_there(full) is (done.returncode == 0), free
        (small / "filler").unlink()
        done = full.fetch()
        assert done.returncode == 0, f"{free} KiB, then {done.stderr}"
        assert assert_whole_or_not_there(full)
    assert states == {0, 1}


NAMES = (
    "a b",
    "p%20q",
    "p%2e%2e",
    "#1",
    "ä",
    "new\nline",
    "-dash",
    "quo'te\"",
    "b\\s",
    "a,b[c]",
    os.fsdecode(b"\xff"),
)


@pytest.mark.thorough
def test_an_output_of_any_name(proved: Proved) -> None:
    """The output directory may have any name, also relative to the working directory."""
    for name in NAMES:
        done = subprocess.run(
            proved.command(Path(name)),
            env=proved.apt.env,
            cwd=proved.mirror.parent,
            text=True,
            errors="surrogateescape",
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "W:" not in done.stderr
        assert assert_whole_or_not_there(dataclasses.replace(proved, out=proved.mirror.parent / name)), name


def test_an_output_that_cannot_be(proved: Proved, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (taken := tmp_path / "taken").mkdir()
    (taken / f"{STEM}.qcow2").mkdir()
    (linked := tmp_path / "linked").mkdir()
    (linked / f"{STEM}.qcow2").symlink_to("nowhere")
    (other := tmp_path / "other").mkdir()
    (other / f"{STEM}.proof").write_text("mine")
    wrong = {
        tmp_path / "file": "cannot be written to",
        tmp_path / "file/x": "cannot be written to",
        Path("/proc/x"): "cannot be written to",
        Path("x" * 300): "cannot be written to",
        taken: f"{STEM}.qcow2 exists already and is another file",
        linked: f"{STEM}.qcow2 exists already and is another file",
        other: f"{STEM}.proof exists already and is another file",
    }
    for output, said in wrong.items():
        refused(proved.fetch(output), 2, said, "--output")
    assert (tmp_path / "file").read_text() == (other / f"{STEM}.proof").read_text() == "mine"
    assert (linked / f"{STEM}.qcow2").readlink() == Path("nowhere")
    # Without a name, the output is the working directory.
    (here := tmp_path / "here").mkdir()
    command = proved.command()[:-1]
    for words in command, [*command, "--output="]:
        done = subprocess.run(words, env=proved.apt.env, cwd=here, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in here.iterdir()} == {f"{STEM}.qcow2", f"{STEM}.proof"}


@pytest.fixture
def address(proved: Proved, short_path: Path) -> Iterator[Path]:
    """An address of the archive that debian-cloud has not read yet, because it caches what it has read."""
    folder = Path(tempfile.mkdtemp(dir=short_path))
    (folder / "a").symlink_to(proved.archive.path)
    yield folder / "a/public"
    remove(folder)


@pytest.fixture
def own(proved: Proved, address: Path, env: dict[str, str], tmp_path: Path) -> Proved:
    """The same on a machine whose apt knows no archive of images, for a user whose configuration names this one."""
    apt = machine(tmp_path / "clean", env)
    file = tmp_path / "config/debian-cloud/mine.sources"
    file.parent.mkdir(parents=True)
    file.write_text(
        f"Types: deb\nURIs: file:{address}\nSuites: trixie\nComponents: main\n"
        f"Signed-By: {proved.archive.path}/keyring.gpg\n"
    )
    apt.env["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    return dataclasses.replace(proved, apt=apt)


def test_an_archive_of_one_s_own_needs_no_keyring_package(own: Proved) -> None:
    done = own.apt.run("debian-cloud", "list", "--images")
    assert done.returncode == 0, done.stdout
    assert re.findall(r"^ec2 +trixie +amd64 +20261120\.0 +qcow2 .* current$", done.stdout, re.M)
    done = own.fetch()
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert assert_whole_or_not_there(own)
    # The .buildinfo's signature is the archive's own; the closure is not real.
    debian = ("--mirror", "http://debian.example/debian", "--security-mirror", "http://debian.example/security")
    image = own.out / f"{STEM}.qcow2"
    done = own.apt.run("debian-cloud", "verify", image, "--rebuilt", image, *debian)
    assert done.returncode == 1
    assert f"{own.folder}/closure/evidence/0/InRelease has no valid signature by a key of Debian" in done.stdout
    done = own.apt.run("debian-cloud", "rebuild", own.folder / f"{STEM}.buildinfo", *debian)
    assert done.returncode == 1
    assert "key is unknown" not in done.stdout
    assert f"{own.folder}/closure" in done.stdout


def test_what_became_of_an_image_of_one_s_own(own: Proved, address: Path) -> None:
    own.archive.run("withdraw", PLACE, "--reason", "login without a key")
    done = own.fetch()
    refused(done, 1, f"ec2 20261120.0 of trixie for amd64 was withdrawn by file:{address}", "login without")
    done = own.apt.run("debian-cloud", "list", "--images")
    assert (done.returncode, done.stdout) == (0, "debian-cloud: warning: no image is published for trixie\n")


def test_two_archives_of_which_one_is_one_s_own(own: Proved, proved: Proved, address: Path) -> None:
    """The user's own archive is used first; an image that it lacks comes from the machine's."""
    both = dataclasses.replace(proved, apt=dataclasses.replace(proved.apt, env={**proved.apt.env}))
    both.apt.env["XDG_CONFIG_HOME"] = own.apt.env["XDG_CONFIG_HOME"]
    done = both.apt.run("debian-cloud", "list", "--images")
    assert done.stdout.count("ec2 ") == 2, done.stdout
    done = both.fetch()
    assert done.returncode == 0, done.stderr
    assert f"copy:{address}/images/" in done.stderr
    shutil.rmtree(both.out)
    command = [*both.command(), "--archive", url(proved)]
    done = subprocess.run(command, env=both.apt.env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{url(proved)}/images/" in done.stderr
    # An archive that cannot be read is reported, and the other is listed.
    proved.archive.public.rename(proved.archive.public.with_name("gone"))
    done = both.apt.run("debian-cloud", "list", "--images")
    assert done.returncode == 1
    assert f"warning: file:{address} is ignored: " in done.stdout
    assert done.stdout.count("ec2 ") == 1
    shutil.rmtree(both.out)
    done = both.fetch()
    assert done.returncode == 0, done.stderr
    assert f"warning: file:{address} is ignored: " in done.stderr


def url(proved: Proved) -> str:
    """The address from which the machine fetches."""
    text = (proved.apt.root / "etc/apt/sources.list.d/debian-cloud.sources").read_text()
    return next(line.split()[1] for line in text.splitlines() if line.startswith("URIs: "))
