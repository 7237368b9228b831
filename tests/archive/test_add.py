# SPDX-License-Identifier: GPL-3.0-or-later
"""`add` takes the user's own packages and images into the archive, signed by the archive's maintainer key."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud.text import openpgp
from tests.archive.conftest import run

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker, Upload


def maintainer(archive: Archive) -> str:
    """The fingerprint of the archive's maintainer key."""
    listed = run(
        ["gpg", "--homedir", archive.path / "maintainer", "--batch", "--with-colons", "--list-secret-keys"],
        archive.env,
    )
    found: str
    (found,) = re.findall(r"^fpr:+([0-9A-F]{40}):", listed.stdout, re.MULTILINE)
    return found


def signed_by_the_maintainer(archive: Archive, file: Path) -> None:
    run(["gpg", "--homedir", archive.path / "maintainer", "--batch", "--verify", file], archive.env)


def in_one(maker: Maker, *uploads: Upload) -> Path:
    """Copy the files of some uploads into one directory."""
    folder = maker.folder()
    for upload in uploads:
        for file in (*upload.files, upload.changes):
            shutil.copy(file, folder)
    return folder


def test_a_directory_of_packages_and_of_an_image(archive: Archive, make: Maker) -> None:
    """`add` needs no key of the user's and no other tool, and does not change the directory."""
    assert not (archive.path / "maintainer").exists()
    folder = in_one(make, make.deb(None), make.image(None))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = archive.run("add", folder)
    assert "accepted: debian-cloud_1.0_all.changes: " in done.stdout
    assert "accepted: debian-13-ec2-amd64-20261120.0.changes: " in done.stdout
    assert done.stdout.count("published: serial ") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "Package: debian-cloud-config-demo\n" in (archive.dist / "main/binary-amd64/Packages").read_text()
    assert "Version: 20261120.0\n" in (archive.dist / "main/images/Images").read_text()
    place = archive.public / "images/trixie/ec2/amd64/20261120.0"
    for file in (*place.glob("*.changes"), *place.glob("*.buildinfo"), *archive.public.glob("pool/**/*.changes")):
        signed_by_the_maintainer(archive, file)
    # The maintainer's right is an ordinary line.
    (line,) = (w for w in (archive.path / "conf/uploaders").read_text().splitlines() if maintainer(archive) in w)
    assert line.split()[1:3] == ["all", "*"]
    assert (archive.path / "maintainer").stat().st_mode & 0o777 == 0o700

    # A second time changes nothing.
    again = archive.run("add", folder)
    assert "already in the archive: debian-cloud_1.0_all.changes\n" in again.stderr
    assert "already in the archive: debian-13-ec2-amd64-20261120.0.changes\n" in again.stderr
    assert "published" not in again.stdout
    assert archive.queue() == []
    assert not (archive.path / "tmp/add").exists()


def test_debs_alone(archive: Archive, make: Maker) -> None:
    """Each source gets a .changes; .debs of one source and version share it, as reprepro names it by these."""
    first, second, other, late = (
        next(f for f in make.deb(None, version, package=name, source=source).files if f.name.endswith(".deb"))
        for name, version, source in (
            ("debian-cloud-config-one", "1.0", "debian-cloud"),
            ("debian-cloud-config-two", "1.0", "debian-cloud"),
            ("debian-cloud-config-own", "3:7~1", "debian-cloud-config-own"),
            ("debian-cloud-config-late", "1.0", "debian-cloud"),
        )
    )
    # The name that apt-get download gives it.
    named = other.rename(other.with_name("debian-cloud-config-own_3%3a7~1_all.deb"))
    done = archive.run("add", second, first, named)
    assert len(re.findall("^accepted: debian-cloud", done.stdout, re.MULTILINE)) == 2
    found = (archive.dist / "main/binary-amd64/Packages").read_text()
    for deb in (first, second, named):
        assert f"SHA256: {hashlib.sha256(deb.read_bytes()).hexdigest()}\n" in found
    assert "already in the archive: " in archive.run("add", first).stderr
    done = archive.run("add", late, check=False)
    assert done.returncode == 1
    assert "the archive already has debian-cloud_1.0_all.changes, with different content" in done.stdout


def test_accept_decides(archive: Archive, make: Maker) -> None:
    """`add` does not bypass the rules of accept: the maintainer key may upload only what others may."""
    (deb,) = (f for f in make.deb(None, package="bash", source="bash").files if f.name.endswith(".deb"))
    good = make.deb(None)
    done = archive.run("add", deb, good.changes, check=False)
    assert done.returncode == 1
    assert "refused: bash_1.0_added-" in done.stdout
    assert "accepted: debian-cloud_1.0_all.changes" in done.stdout
    assert "published: serial " in done.stdout
    assert re.search("^error: bash_1.0_added-.* was not accepted\nhint: the reason is in ", done.stderr, re.MULTILINE)
    # The maintainer's right can be removed like any other.
    rules = archive.path / "conf/uploaders"
    rules.write_text("".join(w for w in rules.read_text().splitlines(True) if maintainer(archive) not in w))
    done = archive.run("add", make.deb(None, "2.0").changes, check=False)
    assert done.returncode == 1
    assert "may no longer upload" in done.stdout


def test_a_source_package(archive: Archive, make: Maker) -> None:
    """Each list of a file that is signed here has the hash of the signed file, as with debsign."""
    folder = make.folder()
    tree = folder / "debian-cloud-config-own"
    (tree / "debian/source").mkdir(parents=True)
    (tree / "debian/source/format").write_text("3.0 (native)\n")
    (tree / "debian/changelog").write_text(
        "debian-cloud-config-own (1.0) trixie; urgency=medium\n\n  * New.\n\n"
        " -- Test <test@example.org>  Fri, 20 Nov 2026 12:00:00 +0000\n"
    )
    (tree / "debian/control").write_text(
        "Source: debian-cloud-config-own\nSection: admin\nPriority: optional\nMaintainer: Test <test@example.org>\n"
        "Standards-Version: 4.6.2\nRules-Requires-Root: no\n\nPackage: debian-cloud-config-own\nArchitecture: all\n"
        "Description: test\n test\n"
    )
    rules = tree / "debian/rules"
    rules.write_text(
        "#!/usr/bin/make -f\nclean build build-arch build-indep binary-arch:\nbinary binary-indep:\n"
        "\tmkdir -p debian/debian-cloud-config-own/DEBIAN\n"
        "\tdpkg-gencontrol -pdebian-cloud-config-own -Pdebian/debian-cloud-config-own\n"
        "\tdpkg-deb --root-owner-group --build debian/debian-cloud-config-own ..\n"
    )
    rules.chmod(0o755)
    subprocess.run(["dpkg-buildpackage", "-us", "-uc"], cwd=tree, env=archive.env, check=True, capture_output=True)
    done = archive.run("add", folder)
    assert "accepted: debian-cloud-config-own_1.0_amd64.changes: into the pool" in done.stdout
    (pool,) = archive.public.glob("pool/main/d/debian-cloud-config-own")
    for suffix in ("dsc", "buildinfo", "changes"):
        (file,) = pool.glob(f"*.{suffix}")
        signed_by_the_maintainer(archive, file)
        text = openpgp.inner(file.read_bytes()).decode()
        for digest, name in re.findall(r"^ ([0-9a-f]{64}) \d+ (?:\S+ \S+ )?(\S+)$", text, re.MULTILINE):
            assert hashlib.sha256((pool / name).read_bytes()).hexdigest() == digest, (file, name)
    assert "Package: debian-cloud-config-own\n" in (archive.dist / "main/source/Sources").read_text()


def test_what_is_none(archive: Archive, make: Maker) -> None:
    before = archive.snapshot()
    empty = make.folder()
    (empty / "a.deb").write_text("no")
    (empty / "x").write_text("no")
    cases: dict[tuple[str | Path, ...], str] = {
        (): "error: add takes DIR and FILEs",
        (make.folder(),): "has neither a .changes nor a .deb",
        (empty / "x",): "is neither a .changes, nor a .deb, nor a directory",
        (empty / "a.deb",): "a.deb: ",
        (empty / "no.deb",): "there is no file",
        (empty / "no.changes",): "cannot be read",
        (empty / "a.deb", "--suite", "sid"): "the archive has no suite 'sid'",
        (empty / "a.deb", "--suite"): "--suite needs a value",
        ("--frob", empty / "a.deb"): "unknown option --frob",
    }
    for words, said in cases.items():
        done = archive.run("add", *words, check=False)
        assert done.returncode in (1, 2), words
        assert said in done.stderr, (words, done.stderr)
        assert re.search("^(debian-cloud: )?hint: ", done.stderr, re.MULTILINE), done.stderr
        assert "Traceback" not in done.stderr
        assert "gpg" not in done.stderr
    assert archive.snapshot() == before
    assert archive.queue() == []


@pytest.mark.thorough
def test_several_suites_and_a_key_that_is_another_s(
    short_path: Path, env: dict[str, str], make: Maker, uploader: Key
) -> None:
    """If an archive has several suites, .debs need --suite; a .changes with another signature is signed again."""
    path = short_path / make.folder().name
    run(["debian-cloud-archive", "init", path, "--suite", "trixie", "--suite", "forky"], env)
    (path / "conf/closures").unlink()
    upload = make.deb(uploader)
    (deb,) = (f for f in upload.files if f.name.endswith(".deb"))
    done = run(["debian-cloud-archive", "add", path, deb], env, check=False)
    assert (done.returncode, "hint: choose the suite of the .debs with" in done.stderr) == (2, True), done
    run(["debian-cloud-archive", "add", "--suite", "forky", path, deb], env)
    listed = run(["reprepro", "--basedir", path, "list", "forky", "debian-cloud-config-demo"], env)
    assert listed.stdout.count("\n") == 2
    done = run(["debian-cloud-archive", "add", path, make.deb(uploader, "2.0").changes], env)
    assert "accepted: debian-cloud_2.0_all.changes" in done.stdout
