# SPDX-License-Identifier: GPL-3.0-or-later
"""A package belongs to one source: who brings another's is refused, unless an operator gives it away."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.archive.conftest import Archive, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.archive.conftest import Key, Maker, Upload

HPC = "debian-cloud-config-hpc"
OTHER = "debian-cloud-config-other"


@pytest.fixture(scope="module")
def shared(short_path: Path, env: dict[str, str], uploader: Key) -> Iterator[Archive]:
    """An archive of two suites, for all of these tests."""
    path = short_path / "owners"
    suites = ("--suite", "trixie", "--suite", "forky")
    run(["debian-cloud-archive", "init", path, *suites, "--uploader", uploader.public], env)
    (path / "conf/closures").unlink()
    yield Archive(path, env)
    shutil.rmtree(path)


def pair(make: Maker, key: Key, second: str, version: str = "1.0", number: str = "9") -> Upload:
    """An upload of HPC's own package, and of one that may be another's, of a version of its own."""
    own = make.deb(None, version, package=HPC, source=HPC)
    more = make.deb(None, number, package=second, source=f"{HPC} ({version})")
    moved = shutil.move(more.files[0], own.changes.parent / more.files[0].name)
    fields = {"Source": HPC, "Binary": f"{HPC} {second}", "Architecture": "all", "Version": version}
    return make.changes([own.files[0], type(own.files[0])(moved)], key, f"{HPC}_{version}_all.changes", fields)


def test_a_configuration_does_not_bring_the_layers_below_all(shared: Archive, make: Maker, uploader: Key) -> None:
    # Its version first: 999 of a source 1.0.
    for second in ("debian-cloud-config-common", "debian-cloud-config-ec2"):
        reason = shared.refuse(pair(make, uploader, second, number="999"))
        assert "it has the version 999, and by the .changes 1.0" in reason
        # In an archive that has nothing yet, and with the version of the source.
        reason = shared.refuse(pair(make, uploader, second, number="1.0"))
        assert f"error: {second} belongs to the source package debian-cloud, and this is {HPC}\n" in reason


def test_what_one_suite_has_is_taken_in_each(shared: Archive, make: Maker, uploader: Key) -> None:
    shared.take(make.deb(uploader, package=OTHER, source=OTHER))
    own = f"error: {OTHER} belongs to the source package {OTHER}, and this is "
    assert f"{own}{HPC}\n" in shared.refuse(pair(make, uploader, OTHER, number="1.0"))
    for suite in ("trixie", "forky"):
        assert f"{own}debian-cloud\n" in shared.refuse(make.deb(uploader, "9", package=OTHER, suite=suite))
    # A name that is only claimed is none that is free.
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
    assert f"refused: {second.changes.name}: {name} belongs to the source package {name}, and" in done.stdout


def test_an_operator_gives_a_name_away_and_the_log_says_so(shared: Archive, make: Maker, uploader: Key) -> None:
    name = f"{HPC}-given"
    shared.take(make.deb(uploader, "1.0", package=name, source=name))
    overrides = shared.path / "conf/overrides"
    overrides.write_text(f"{name} debian-cloud # it is a part of all images now\n")
    try:
        shared.put(make.deb(uploader, "2.0", package=name))
        done = shared.run("accept")
        word = f"overridden: {name}: debian-cloud may bring it, and {name} did\n"
        assert word in done.stdout
        assert word in (shared.path / "log/accept.log").read_text()
        assert f"{name} 2." in shared.packages()
        # Whoever had it has it no more.
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
    assert f"a line '{name} debian-cloud' in " in done.stderr
    done = shared.run("promote", "forky", "trixie")
    assert "left: debian-cloud: trixie has one of its packages from another source" in done.stdout
    assert shared.packages() == before
    overrides.write_text(f"{name} debian-cloud\n")
    shared.run("copy", "forky", "trixie", "debian-cloud")
    overrides.unlink()
    assert f"{name} 2." in shared.packages()
