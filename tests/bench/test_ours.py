# SPDX-License-Identifier: GPL-3.0-or-later
"""What is prepared for our works: a changed configuration, an archive at one address, and the floor."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bench import ours
from bench.measure import measure
from debian_cloud.build import layers
from debian_cloud.build.stages import stages
from debian_cloud.host import memory
from debian_cloud.image.resolution import Needs, Package, Resolution
from tests import throwaway
from tests.packaging.build import ROOT
from tests.samples import RESOLUTION


def test_a_changed_configuration_has_one_more_line_and_a_higher_version(tmp_path: Path) -> None:
    deb = throwaway.configuration(tmp_path, "ec2", throwaway.FINE)
    (tmp_path / "changed").mkdir()
    made = ours.changed(deb, tmp_path / "changed", Path("usr/ec2"))
    for each, version in ((deb, "1.0"), (made, "1.0+1")):
        subprocess.run(["dpkg-deb", "--extract", each, tmp_path / version], check=True)
        field = subprocess.run(["dpkg-deb", "--field", each, "Version"], capture_output=True, text=True, check=True)
        assert field.stdout == f"{version}\n"
    before, after = ((tmp_path / version / "usr/ec2").read_bytes() for version in ("1.0", "1.0+1"))
    assert after == before + b"# One more line.\n"
    assert subprocess.run(["dpkg", "--compare-versions", "1.0+1", "gt", "1.0"], check=False).returncode == 0


def test_the_drop_in_that_is_changed_is_the_vendor_s() -> None:
    assert (ROOT / f"configs/{ours.CONFIG}/files" / ours.DROP_IN).is_file()


def test_the_vendors_are_configurations() -> None:
    assert len(ours.VENDORS) == 6
    assert all((ROOT / "configs" / name / "stanza.j2").is_file() for name in ours.VENDORS)


def test_an_archive_is_at_one_address_before_and_after_an_upload(tmp_path: Path) -> None:
    archive = throwaway.Archive(tmp_path / "archive")
    archive.public.mkdir(parents=True)
    archive.keyring.write_text("keys")
    served = ours.Served(tmp_path / "served")
    for name in ("before", "after"):
        (archive.public / "InRelease").write_text(name)
        served.add(name, archive)
    served.show("before")
    address = Path(served.sources[1].removeprefix("file:"))
    assert (address / "InRelease").read_text() == "before"
    with served.changed():
        assert (address / "InRelease").read_text() == "after"
    assert (address / "InRelease").read_text() == "before"
    assert Path(served.sources[3]).read_text() == "keys"


def test_an_update_of_a_package_of_the_first_stage_changes_every_layer() -> None:
    updated, own = ours.UPDATED_PACKAGE, RESOLUTION.config.name
    needs = {updated: Needs(), "apt": Needs(depends=((updated,),)), own: Needs(depends=(("apt",),))}

    def built(sha256: str) -> Resolution:
        packages = tuple(Package(name, "1", "amd64", 1, sha256 if name == updated else "0" * 64) for name in needs)
        return replace(RESOLUTION, packages=packages, needs=needs, essential=(updated,), required=("apt",))

    before, after = built("1" * 64), built("2" * 64)
    made = [layers.identified([(stage, "") for stage in stages(one)], one, ()) for one in (before, after)]
    ids = [[layer for _, _, layer in one] for one in made]
    assert len(ids[0]) == len(ids[1]) == 3
    assert {*ids[0]}.isdisjoint(ids[1])


def test_the_floor_unpacks_every_package(tmp_path: Path) -> None:
    debs = tmp_path / "debs"
    debs.mkdir()
    for name in ("one", "two"):
        deb = throwaway.configuration(tmp_path, name, throwaway.FINE)
        deb.rename(debs / hashlib.sha256(name.encode()).hexdigest())
    (debs / "partial").mkdir()
    (tmp_path / "work").mkdir()
    assert measure(ours.floor(debs, tmp_path / "names"), tmp_path / "work").seconds > 0
    assert sorted(path.name for path in tmp_path.glob("work/*/usr/*")) == ["one", "two"]
    # One that is damaged is an error.
    (debs / "damaged").write_text("no package")
    (tmp_path / "again").mkdir()
    done = subprocess.run(
        ours.floor(debs, tmp_path / "names"), cwd=tmp_path / "again", capture_output=True, check=False
    )
    assert done.returncode != 0


def test_the_callers_wishes_for_the_tree_are_not_the_bench_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.NEVER, "1")
    env = ours.environment(tmp_path)
    assert memory.NEVER not in env
    assert env["XDG_CACHE_HOME"] == str(ours.caches_of(tmp_path).home)
    assert os.environ["PATH"] in env["PATH"]
