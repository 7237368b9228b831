# SPDX-License-Identifier: GPL-3.0-or-later
"""Images and configurations follow Debian's policy: packages own all files, and removing them leaves nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_cloud.image.generated import GENERATED, is_copy, matches
from tests.built.conftest import IMAGES, Root
from tests.built.dpkg import Dpkg
from tests.built.tree import Tree, as_root
from tests.conftest import ALL
from tests.packaging import build
from tools import render

OURS = "debian-cloud"
CONFIGURATION = tuple(f"{OURS}-config-{name}" for name in ("ec2", "cloud-init", "cloud", "common"))
"""The packages that make up an EC2 machine's configuration, the outermost first."""

PLACES = ("etc", "usr", "boot", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Directories in which a file without a package needs a line in the table; `verify` checks that for all paths."""

_used: dict[str, set[str]] = {}
"""Image -> the lines of the table that it uses."""


def test_packages_own_all_but_what_is_generated(root: Root) -> None:
    dpkg = Dpkg(root.tree.path)
    entries = root.tree.entries()
    assert len(entries) > 10_000
    foreign = sorted(set(entries) - set(dpkg.owners) - set(dpkg.alternatives))
    used = {path: [pattern for pattern, _ in GENERATED if matches(pattern, path)] for path in foreign}
    unknown = [path for path, patterns in used.items() if path.partition("/")[0] in PLACES and not patterns]
    # A copy of a package's file is recognized by its content, which `verify` compares (test_verify.py).
    assert [path for path in unknown if not is_copy(path)] == []
    # A file of a package is in the table if it later gets another owner, mode or name.
    moved = {to for to, _ in dpkg.diversions.values()}
    shipped = {line for line, _ in GENERATED if line in dpkg.owners or any(matches(line, to) for to in moved)}
    _used[root.name] = shipped.union(*used.values())


@pytest.mark.counts_over_all_images
@pytest.mark.skipif(not ALL, reason="some lines are for images that `make check-all` looks into")
def test_no_line_of_the_table_is_idle() -> None:
    """Each line of the table is used by some image; runs after the tests of all images."""
    assert set(_used) == set(IMAGES), "needs the test above, for every image"
    assert sorted({pattern for pattern, _ in GENERATED} - set().union(*_used.values())) == []


def test_the_place_of_the_administrator_is_empty(root: Root) -> None:
    assert [path for path, entry in root.tree.entries("usr/local").items() if entry.kind == "f"] == []


def test_no_file_of_a_package_was_changed(root: Root) -> None:
    """All files of packages, also conffiles, are as shipped, and no obsolete conffile is left."""
    command = as_root("debsums", f"--root={root.tree.path}", "--all", "--changed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Dpkg(root.tree.path).obsolete == []


@pytest.mark.thorough
def test_debsums_finds_a_changed_conffile(base: Tree, tmp_path: Path) -> None:
    tree = base.copy(tmp_path / "tree")
    try:
        tree.run("sh", "-c", "echo x >>/etc/bash.bashrc")
        command = as_root("debsums", f"--root={tree.path}", "--all", "--changed")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines() == [f"{tree.path}/etc/bash.bashrc"]
    finally:
        tree.remove()


def test_nothing_of_ours_diverts_or_overrides(root: Root) -> None:
    dpkg = Dpkg(root.tree.path)
    assert [(path, owner) for path, (_, owner) in dpkg.diversions.items() if owner.startswith((OURS, ":"))] == []
    ours = {path for path, owners in dpkg.owners.items() if any(owner.startswith(OURS) for owner in owners)}
    others = {path for path, owners in dpkg.owners.items() if any(not owner.startswith(OURS) for owner in owners)}
    folders = {path for path, entry in root.tree.entries().items() if entry.kind == "d"} | {""}
    assert ours & others - folders == set()
    assert [line for line in dpkg.overrides if dpkg.real(line.split()[3]) in ours] == []


def test_packages_are_whole(root: Root) -> None:
    assert root.tree.run("dpkg", "--audit").stdout == ""
    assert set(Dpkg(root.tree.path).installed) == set(Dpkg(root.tree.path).packages)


@pytest.fixture
def ready(base: Tree, ec2: Tree, tmp_path: Path) -> Iterator[Tree]:
    """A system with all packages of an EC2 machine except its configuration."""
    tree = base.copy(tmp_path / "tree")
    tree.apt("install", *sorted(set(Dpkg(ec2.path).installed) - set(CONFIGURATION)))
    yield Tree(tree.path, (*tree.shown, tmp_path / "older"))
    tree.remove()


DROP_IN = "etc/ssh/sshd_config.d/60-debian-cloud.conf"


def older(tmp: Path) -> Path:
    """Build an older version of the configurations with another drop-in; return the directory of its .debs."""
    tree = build.copy(build.ROOT, tmp)
    changelog = tree / "debian/changelog"
    changelog.write_text(re.sub(r"\([^)]*\)", "(0.0.1)", changelog.read_text("utf-8"), count=1), "utf-8")
    path = tree / "configs/cloud/files" / DROP_IN
    path.write_text(path.read_text("utf-8").replace("ClientAliveInterval 120", "ClientAliveInterval 60"), "utf-8")
    render.adopt(tree, "trixie")
    folder = tmp / "older"
    folder.mkdir()
    for deb in build.build(tree).glob(f"{OURS}-config-*.deb"):
        shutil.move(deb, folder)
    return folder


RESIDUE = (
    ("var/log/**", "dpkg's and apt's journals"),
    ("var/cache/**", "apt's, debconf's and man's indexes"),
    ("var/lib/dpkg/status*", "the state: compared without the packages of the test, below"),
    ("var/lib/dpkg/available*", "dpkg's memory"),
    ("var/lib/dpkg/lock*", "made by the first use of dpkg"),
    ("var/lib/dpkg/triggers/*", "dpkg's list of who waits for what: files and their times"),
    ("var/lib/apt/extended_states", "apt's marks: compared below"),
    ("var/lib/apt/listchanges*", "apt-listchanges' memory of what it has shown"),
    ("boot/initrd.img-*", "made anew: the time is in it"),
    ("tmp/**", "what is at work"),
)
"""Path -> why it differs after a package was installed and removed."""


@pytest.mark.thorough
def test_a_configuration_comes_upgrades_and_goes_without_question_and_residue(ready: Tree, tmp_path: Path) -> None:
    debs = older(tmp_path)
    files = [str(path) for name in CONFIGURATION for path in debs.glob(f"{name}_*.deb")]
    assert len(files) == len(CONFIGURATION)
    before, dpkg = ready.entries(), Dpkg(ready.path)
    installed = dpkg.installed

    ready.apt("install", *(f"/mnt/older/{Path(name).name}" for name in files))
    assert "ClientAliveInterval 60" in ready.text(DROP_IN)
    assert set(Dpkg(ready.path).installed) == {*installed, *CONFIGURATION}

    said = ready.apt("install", f"{OURS}-config-ec2")
    assert not re.search(r"[Cc]onfiguration file|==>", said), said
    assert "ClientAliveInterval 120" in ready.text(DROP_IN)
    versions = {Dpkg(ready.path).installed[name] for name in CONFIGURATION}
    assert len(versions) == 1
    assert not versions.pop().startswith("0.0.1")
    assert not [path for path in ready.entries() if re.search(r"\.(dpkg-|ucf-)", path)]

    ready.apt("remove", *CONFIGURATION)
    left = {path for path, owners in Dpkg(ready.path).owners.items() if owners & set(CONFIGURATION)}
    there = {path for path, entry in ready.entries().items() if entry.kind != "d"} & left
    assert there
    assert all(path.startswith("etc/") for path in there)

    for name in CONFIGURATION:
        ready.apt("purge", name)
        assert name not in Dpkg(ready.path).packages
        assert not list((ready.path / "var/lib/dpkg/info").glob(f"{name}.*"))
    after = ready.entries()
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    assert [path for path in changed if not any(matches(pattern, path) for pattern, _ in RESIDUE)] == []
    assert Dpkg(ready.path).installed == installed
