# SPDX-License-Identifier: GPL-3.0-or-later
"""How apt behaves with a good archive and with a tampered one."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud import names
from tests.archive.clients import machine, serving
from tests.archive.conftest import run
from tests.gnupg import remove

if TYPE_CHECKING:
    from tests.archive.clients import Apt
    from tests.archive.conftest import Archive, Key, Maker

STEP = Path(__file__).resolve().parents[2] / "archive/steps/keyring-package"


@pytest.fixture
def apt(tmp_path: Path, env: dict[str, str], full: Archive) -> Apt:
    """A machine that trusts the archive."""
    client = machine(tmp_path / "machine", env)
    client.installs(full.public / "debian-cloud-archive-keyring_trixie.deb")
    return client


def stanza(package: str, version: str, **fields: str) -> str:
    """A stanza of Packages or of dpkg's status."""
    more = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return f"Package: {package}\nVersion: {version}\nArchitecture: all\nMaintainer: x\nDescription: x\n{more}\n"


def test_archive_never_replaces_packages_that_are_not_its_own(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path, env: dict[str, str]
) -> None:
    archive.take(make.deb(uploader, "1.0"))
    for package in ("libc6", "libc6-new", "libc6-local", "only-here", "xdebian-cloud"):
        (deb, _) = make.deb(None, "999", package=package).files
        run(["reprepro", "--basedir", archive.path, "--export=silent-never", "includedeb", "trixie", deb], env)
    archive.run("publish")
    apt = machine(tmp_path / "machine", env)
    debian = tmp_path / "debian"
    debian.mkdir()
    where = {"Filename": "./x.deb", "Size": "1", "SHA256": "0" * 64}
    theirs = ("libc6", "libc6-new", "libc6-local", "xdebian-cloud", "debian-cloud-config-demo")
    (debian / "Packages").write_text("".join(stanza(package, "0.5", **where) for package in theirs))
    (apt.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{debian} ./\n")
    # One is installed in Debian's version, one in a version that Debian no longer has.
    (apt.root / "var/lib/dpkg/status").write_text(
        stanza("libc6", "0.5", Status="install ok installed")
        + stanza("libc6-local", "0.6", Status="install ok installed")
    )
    apt.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    done = apt.get("update")
    assert done.returncode == 0, done.stdout
    assert {package: apt.candidate(package) for package in (*theirs, "only-here")} == {
        "libc6": "0.5",
        "libc6-new": "0.5",
        "libc6-local": "0.6",
        "xdebian-cloud": "0.5",
        "debian-cloud-config-demo": "1.0",
        "only-here": "999",
    }
    # Without the pin, apt would take the archive's version.
    (apt.root / "etc/apt/preferences.d/debian-cloud").unlink()
    assert apt.candidate("libc6") == "999"


def test_changed_keyring_package_is_an_upgrade(archive: Archive, tmp_path: Path, env: dict[str, str]) -> None:
    """A machine with the first keyring package gets another address, even on the same day or with an earlier date."""
    apt = machine(tmp_path / "machine", env)
    apt.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    assert apt.get("update").returncode == 0
    versions = [apt.candidate("debian-cloud-archive-keyring")]
    assert versions[0] == datetime.now(UTC).strftime("13+%Y.%m.%d")
    dates: list[dict[str, str]] = [{}, {}, {"SOURCE_DATE_EPOCH": "1000000000"}]
    for number, date in enumerate(dates):
        deb = tmp_path / f"{number}.deb"
        run([STEP, archive.path, f"file://{archive.public}/.", "trixie", deb], {**env, **date})
        run(["reprepro", "--basedir", archive.path, "--export=silent-never", "includedeb", "trixie", deb], env)
        archive.run("publish")
        assert apt.get("update").returncode == 0
        versions.append(apt.candidate("debian-cloud-archive-keyring"))
    assert versions == [versions[0], *(f"{versions[0]}.{number}" for number in (1, 2, 3))]


def test_a_newer_release_s_keyring_package_is_newer_whenever_it_was_built(
    archive: Archive, tmp_path: Path, env: dict[str, str]
) -> None:
    """A newer release's keyring package has a newer version even if built earlier; unnumbered suites sort last."""
    suites = [*names.RELEASES, "a-sid", "sid"]
    with (archive.path / "conf/distributions").open("a") as conf:
        for suite in suites:
            if suite != "trixie":
                conf.write(f"\nCodename: {suite}\nArchitectures: amd64\nComponents: main\nValidFor: 14d\n")
    built = []
    for number, suite in enumerate(suites):
        deb = tmp_path / f"{suite}.deb"
        # The packages of older releases are built later.
        day = {"SOURCE_DATE_EPOCH": str(1800000000 - number * 86400)}
        run([STEP, archive.path, "file:///x", suite, deb], {**env, **day})
        built.append(run(["dpkg-deb", "-f", deb, "Version"], env).stdout.strip())
    assert built[: len(names.RELEASES)] == [
        f"{release}+{day}"
        for release, day in zip(names.RELEASES.values(), ("2027.01.15", "2027.01.14", "2027.01.13"), strict=True)
    ]
    for older, newer in itertools.pairwise([*built[:-1], "100"]):
        run(["dpkg", "--compare-versions", older, "lt", newer], env)
    assert built[-2].startswith("99.a.sid+")
    # All packages are in one directory of the pool, so the versions must differ.
    assert len(set(built)) == len(suites)


def test_a_keyring_package_that_would_be_older_is_not_built(
    archive: Archive, tmp_path: Path, env: dict[str, str]
) -> None:
    deb = tmp_path / "x.deb"
    run([STEP, archive.path, "file:///x", "trixie", deb], env)
    run(["dpkg-deb", "-R", deb, tmp_path / "x"], env)
    control = tmp_path / "x/DEBIAN/control"
    control.write_text(re.sub("(?m)^Version: .*", "Version: 2026.11.21+deb13", control.read_text("utf-8")), "utf-8")
    run(["dpkg-deb", "-b", tmp_path / "x", deb], env)
    run(["reprepro", "--basedir", archive.path, "--export=silent-never", "includedeb", "trixie", deb], env)
    deb.unlink()
    done = run([STEP, archive.path, "file:///x", "trixie", deb], env, check=False)
    assert done.returncode == 1
    assert "error: trixie has debian-cloud-archive-keyring 2026.11.21+deb13, newer than any 13+" in done.stderr
    assert not deb.exists()


def test_same_keyring_package_is_the_same_bytes(archive: Archive, tmp_path: Path, env: dict[str, str]) -> None:
    for name in ("a.deb", "b.deb"):
        command: list[str | Path] = [STEP, archive.path, "file:///x", "trixie", tmp_path / name]
        run(command, {**env, "SOURCE_DATE_EPOCH": "1800000000"})
        # The second build is in another second.
        time.sleep(1.1)
    assert (tmp_path / "a.deb").read_bytes() == (tmp_path / "b.deb").read_bytes()


@pytest.fixture
def web(short_path: Path, tmp_path: Path, env: dict[str, str], uploader: Key) -> Iterator[tuple[Path, Apt]]:
    """A new archive served over HTTP on loopback, and a machine that trusts it; requests are recorded."""
    client = machine(tmp_path / "machine", env)
    path = Path(tempfile.mkdtemp(dir=short_path)) / "a"

    with serving(path / "public", client.requests) as url:
        init: list[str | Path] = ["debian-cloud-archive", "init", path, "--url", url, "--uploader", uploader.public]
        subprocess.run(init, env=env, check=True, capture_output=True)
        # Its images were not built from packages, so there are no closures to keep.
        (path / "conf/closures").unlink()
        client.installs(path / "public/debian-cloud-archive-keyring_trixie.deb")
        yield path, client
    remove(path.parent)


def test_update_finds_packages_and_images(full: Archive, apt: Apt) -> None:
    done = apt.get("update")
    assert done.returncode == 0, done.stdout
    targets = apt.get("indextargets", "--format", "$(FILENAME)", "Created-By: Images")
    (images,) = targets.stdout.split()
    assert Path(images).read_text() == (full.dist / "main/images/Images").read_text()
    simulated = apt.get("install", "--simulate", "debian-cloud-config-demo")
    assert "Inst debian-cloud-config-demo (1.0" in simulated.stdout


def test_update_of_a_new_and_empty_archive(web: tuple[Path, Apt]) -> None:
    done = web[1].get("update")
    assert done.returncode == 0, done.stdout


def test_update_fetches_by_hash(web: tuple[Path, Apt], env: dict[str, str], make: Maker, uploader: Key) -> None:
    path, apt = web
    upload = make.image(uploader)
    for file in (*upload.files, upload.changes):
        shutil.copy(file, path / "incoming")
    for verb in ("accept", "publish"):
        subprocess.run(["debian-cloud-archive", verb, path], env=env, check=True, capture_output=True)
    done = apt.get("update")
    assert done.returncode == 0, done.stdout
    asked = "\n".join(apt.requests)
    assert re.search(r"/main/images/by-hash/SHA256/[0-9a-f]{64} HTTP/1.1. 200", asked)
    assert re.search(r"/main/binary-amd64/by-hash/SHA256/[0-9a-f]{64} HTTP/1.1. 200", asked)
    assert "/Images" not in asked
    assert "/Packages" not in asked


def tamper(archive: Archive, folder: str) -> None:
    """Change every index in a directory, under its name and under its hash."""
    # A file has several names, and must be changed only once.
    for path in {path.stat().st_ino: path for path in (archive.dist / folder).rglob("*") if path.is_file()}.values():
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"")


@pytest.mark.parametrize("folder", ["main/binary-amd64", "main/images"])
def test_update_refuses_tampered_index(full: Archive, apt: Apt, folder: str) -> None:
    tamper(full, folder)
    done = apt.get("update")
    assert done.returncode != 0
    assert "Hash Sum mismatch" in done.stdout or "unexpected size" in done.stdout


def sign_again(archive: Archive, key: Key, **fields: str) -> None:
    """Sign the Release again with a key and other values of some fields."""
    text = (archive.dist / "Release").read_text()
    for name, value in fields.items():
        title = name.replace("_", "-")
        text = re.sub(f"^{title}: .*$", f"{title}: {value}", text, flags=re.MULTILINE)
    release = archive.dist / "Release"
    release.write_text(text)
    key.gpg("--clearsign", "--output", archive.dist / "InRelease", release)
    key.gpg("--armor", "--detach-sign", "--output", archive.dist / "Release.gpg", release)


def test_update_refuses_another_key(full: Archive, apt: Apt, stranger: Key) -> None:
    sign_again(full, stranger)
    done = apt.get("update")
    assert done.returncode != 0
    assert "NO_PUBKEY" in done.stdout


def test_update_refuses_an_uploaders_key(full: Archive, apt: Apt, uploader: Key) -> None:
    sign_again(full, uploader)
    assert apt.get("update").returncode != 0


def test_update_refuses_edited_release(full: Archive, apt: Apt) -> None:
    release = full.dist / "InRelease"
    release.write_text(release.read_text().replace("Label: debian-cloud", "Label: debian-clown"))
    assert apt.get("update").returncode != 0


def test_update_refuses_expired_release(full: Archive, apt: Apt) -> None:
    then = datetime.now(UTC) - timedelta(days=20)
    sign_again(
        full,
        full.key,
        Date=format_datetime(then, usegmt=True).replace("GMT", "UTC"),
        Valid_Until=format_datetime(then + timedelta(days=14), usegmt=True).replace("GMT", "UTC"),
    )
    done = apt.get("update")
    assert done.returncode != 0
    assert "expired" in done.stdout


def test_download_refuses_tampered_package(full: Archive, apt: Apt) -> None:
    assert apt.get("update").returncode == 0
    (deb,) = full.public.glob("pool/main/d/debian-cloud/*.deb")
    data = deb.read_bytes()
    deb.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = apt.get("install", "--download-only", "--yes", "debian-cloud-config-demo")
    assert done.returncode != 0
    assert "Hash Sum mismatch" in done.stdout


def test_each_apt_installs_and_heeds_the_dates(full: Archive, client: Apt) -> None:
    client.installs(full.public / "debian-cloud-archive-keyring_trixie.deb")
    done = client.get("update")
    assert done.returncode == 0, done.stdout
    done = client.get("install", "--yes", "debian-cloud-config-demo")
    assert done.returncode == 0, done.stdout
    assert client.version("debian-cloud-config-demo") == "1.0"
    assert (client.root / "usr/share/demo/debian-cloud-config-demo").read_text() == "demo"
    assert client.later(13).get("update").returncode == 0
    done = client.later(15).get("update")
    assert done.returncode != 0
    assert "expired" in done.stdout
    done = client.later(-2).get("update")
    assert done.returncode != 0
    # The message of apt, or that of apt 3's verifier.
    assert "is not valid yet" in done.stdout or "Not live until" in done.stdout
