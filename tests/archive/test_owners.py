# SPDX-License-Identifier: GPL-3.0-or-later
"""A package belongs to one source: an upload of it by another source is refused, unless an operator overrides it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.archive.conftest import Archive, run
from tests.gnupg import remove

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.archive.conftest import Key, Maker, Upload

HPC = "debian-cloud-config-hpc"
OTHER = "debian-cloud-config-other"


@pytest.fixture(scope="module")
def shared(short_path: Path, env: dict[str, str], uploader: Key) -> Iterator[Archive]:
    """An archive of two suites for all tests of this module."""
    path = short_path / "owners"
    suites = ("--suite", "trixie", "--suite", "forky")
    run(["debian-cloud-archive", "init", path, *suites, "--uploader", uploader.public], env)
    (path / "conf/closures").unlink()
    yield Archive(path, env)
    remove(path)


def pair(make: Maker, key: Key, second: str, version: str = "1.0", number: str = "9") -> Upload:
    """Make an upload of HPC's own package and another's package, which has its own version `number`."""
    own = make.deb(None, version, package=HPC, source=HPC)
    more = make.deb(None, number, package=second, source=f"{HPC} ({version})")
    moved = shutil.move(more.files[0], own.changes.parent / more.files[0].name)
    fields = {"Source": HPC, "Binary": f"{HPC} {second}", "Architecture": "all", "Version": version}
    return make.changes([own.files[0], type(own.files[0])(moved)], key, f"{HPC}_{version}_all.changes", fields)


def test_a_configuration_does_not_bring_the_layers_below_all(shared: Archive, make: Maker, uploader: Key) -> None:
    # First with another version: 999 from a source 1.0.
    for second in ("debian-cloud-config-common", "debian-cloud-config-ec2"):
        reason = shared.refuse(pair(make, uploader, second, number="999"))
        assert "it has the version 999, but the .changes 1.0" in reason
        # The name is reserved in an empty archive, too, and for a package with the source's version.
        reason = shared.refuse(pair(make, uploader, second, number="1.0"))
        assert f"error: {second} belongs to the source package debian-cloud, not to {HPC}\n" in reason


def test_what_one_suite_has_is_taken_in_each(shared: Archive, make: Maker, uploader: Key) -> None:
    shared.take(make.deb(uploader, package=OTHER, source=OTHER))
    own = f"error: {OTHER} belongs to the source package {OTHER}, not to "
    assert f"{own}{HPC}\n" in shared.refuse(pair(make, uploader, OTHER, number="1.0"))
    for suite in ("trixie", "forky"):
        assert f"{own}debian-cloud\n" in shared.refuse(make.deb(uploader, "9", package=OTHER, suite=suite))
    # Also refused if only the .changes claims the name.
    claimed = make.deb(None, package=f"{HPC}-a", source=f"{HPC}-a")
    fields = {"Source": f"{HPC}-a", "Binary": f"{HPC}-a {OTHER}", "Version": "1.0", "Architecture": "all"}
    assert f"{own}{HPC}-a\n" in shared.refuse(make.changes(claimed.files, uploader, claimed.changes.name, fields))


def test_of_two_in_one_run_the_first_owns_the_name(shared: Archive, make: Maker, uploader: Key) -> None:
    name = f"{HPC}-first"
    first = make.deb(uploader, "1.0", package=name, source=name)
    second = make.deb(uploader, "2.0", package=name)
    shared.put(first)
    shared.put(second)
    done = shared.run("accept", check=False)
    assert done.returncode == 1
    assert f"accepted: {first.changes.name}: into the pool\n" in done.stdout
    assert f"refused: {second.changes.name}: {name} belongs to the source package {name}, not to" in done.stdout


def test_an_operator_gives_a_name_away_and_the_log_says_so(shared: Archive, make: Maker, uploader: Key) -> None:
    name = f"{HPC}-given"
    shared.take(make.deb(uploader, "1.0", package=name, source=name))
    overrides = shared.path / "conf/overrides"
    overrides.write_text(f"{name} debian-cloud # it is a part of all images now\n")
    try:
        shared.put(make.deb(uploader, "2.0", package=name))
        done = shared.run("accept")
        word = f"overridden: {name}: debian-cloud may upload it, although {name} did\n"
        assert word in done.stdout
        assert word in (shared.path / "log/accept.log").read_text()
        assert f"{name} 2." in shared.packages()
        # The former owner has lost the package.
        assert "belongs to the source package debian-cloud," in shared.refuse(
            make.deb(uploader, "3.0", package=name, source=name)
        )
        overrides.write_text("one word\nand more words\n")
        done = shared.run("accept", check=False)
        assert (done.returncode, "error: conf/overrides, line 2: " in done.stderr) == (1, True)
    finally:
        overrides.unlink()


def test_a_name_of_another_source_is_not_copied(shared: Archive, make: Maker, uploader: Key) -> None:
    name = f"{HPC}-between"
    shared.take(make.deb(uploader, "1.0", package=name, source=name))
    overrides = shared.path / "conf/overrides"
    overrides.write_text(f"{name} debian-cloud\n")
    try:
        shared.take(make.deb(uploader, "2.1", package=name, suite="forky"))
    finally:
        overrides.unlink()
    before = shared.packages()
    done = shared.run("copy", "forky", "trixie", "debian-cloud", check=False)
    assert done.returncode == 1
    assert f"error: debian-cloud has the package {name}, which trixie has from {name}\n" in done.stderr
    assert f"add the line '{name} debian-cloud' to " in done.stderr
    done = shared.run("promote", "forky", "trixie")
    assert "skipped: debian-cloud: trixie has one of its packages from another source" in done.stdout
    assert shared.packages() == before
    overrides.write_text(f"{name} debian-cloud\n")
    shared.run("copy", "forky", "trixie", "debian-cloud")
    overrides.unlink()
    assert f"{name} 2." in shared.packages()


def source_upload(make: Maker, key: Key, name: str, binaries: str, *, trick: tuple[str, str] = ("", "")) -> Upload:
    """Make an upload of only a source package, whose .dsc lists `binaries`, signed as debsign does."""
    folder = make.folder()
    tree = folder / "tree"
    (tree / "debian/source").mkdir(parents=True)
    (tree / "debian/source/format").write_text("3.0 (native)\n")
    (tree / "debian/control").write_text(
        f"Source: {name}\nMaintainer: Test <test@example.org>\nSection: misc\nPriority: optional\n"
        f"\nPackage: {name}\nArchitecture: all\nDescription: test\n"
    )
    (tree / "debian/changelog").write_text(
        f"{name} (1.0) trixie; urgency=medium\n\n  * Test.\n\n"
        " -- Test <test@example.org>  Fri, 20 Nov 2026 12:00:00 +0000\n"
    )
    run(["sh", "-c", 'cd "$1" && dpkg-source --build tree', "sh", folder], make.env)
    shutil.rmtree(tree)
    dsc, tarball = folder / f"{name}_1.0.dsc", folder / f"{name}_1.0.tar.xz"
    dsc.write_text(dsc.read_text().replace(f"Binary: {name}\n", f"Binary: {binaries}\n"))
    key.clearsign(dsc)
    assert not trick[0] or trick[0] in dsc.read_text()
    dsc.write_text(dsc.read_text().replace(*trick, 1) if trick[0] else dsc.read_text())
    fields = {"Source": name, "Version": "1.0", "Architecture": "source"}
    return make.changes([dsc, tarball], key, f"{name}_1.0_source.changes", fields)


def test_a_source_names_no_package_of_another(shared: Archive, make: Maker, uploader: Key) -> None:
    name = f"{HPC}-source"
    for binaries in (f"{name}, debian-cloud-config-common", "debian-cloud-config-common"):
        reason = shared.refuse(source_upload(make, uploader, name, binaries))
        assert "error: debian-cloud-config-common belongs to the source package debian-cloud, not to" in reason
    # The name of a source package is reserved, too.
    reason = shared.refuse(source_upload(make, uploader, "debian-cloud-config-gce", f"{name}"))
    assert "error: debian-cloud-config-gce belongs to the source package debian-cloud, not to" in reason
    begin, end = "-----BEGIN PGP SIGNED MESSAGE-----\n", "-----END PGP SIGNATURE-----\n"
    for trick in (
        (begin, f"Binary: openssh-server\n\n{begin}"),
        (begin, f"-----BEGIN PGP SIGNATUREX\n{begin}"),
        (end, f"{end}Binary: openssh-server\n"),
        (f"Source: {name}\n", f"Source: {name}\n\nSource: openssh\n"),
        (f"Source: {name}\n", f"Source: {name}\n-----BEGIN PGP SIGNATUREX\nBinary: x\n"),
        ("Version: 1.0\n", "Version: 2.0\n"),
        (f"{name}_1.0.tar.xz", f"{name}_2.0.tar.xz"),
    ):
        assert "error: " in shared.refuse(source_upload(make, uploader, name, name, trick=trick)), trick
    shared.take(source_upload(make, uploader, name, name))
    assert f"trixie|main|source: {name} 1.0\n" in shared.packages()
