# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of images share: the root file system of each image, and systems with a configuration installed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from debian_cloud.names import RELEASES
from tests.built import nspawn
from tests.built.tree import Tree, as_root, bootstrap
from tests.conftest import ALL, DISKS, SUITE, World

IMAGES = ("container", *(name for name in DISKS if ALL or name != "generic"))
"""That of forky is looked into, and that of trixie is booted; `make check-all` looks into both."""


@dataclass(frozen=True, slots=True)
class Root:
    """The root file system of one image of the world."""

    name: str
    suite: str
    config: str
    serial: str
    file: Path
    tree: Tree


@contextmanager
def unpacked(world: World, name: str, folder: Path) -> Iterator[Root]:
    """Unpack the root file system of an image into `folder` for the duration of a block. `name` is one of IMAGES."""
    suite, config = DISKS.get(name, (SUITE, name))
    stem = f"debian-{RELEASES[suite]}-{config}-amd64-"
    found = [path for end in ("raw", "tar.xz") for path in (world.folder / "images").glob(f"{stem}*.{end}")]
    assert len(found) == 1, f"{len(found)} images {stem}*"
    tree = Tree(folder / "tree")
    try:
        if found[0].suffix == ".raw":
            nspawn.extract(found[0], tree.path)
        else:
            tree.path.mkdir()
            unpack = ("tar", "--extract", "--numeric-owner", "--preserve-permissions", "--directory", tree.path)
            subprocess.run(as_root(*unpack, "--file", found[0]), check=True)
        serial = found[0].name.removeprefix(stem).removesuffix(".raw").removesuffix(".tar.xz")
        yield Root(name, suite, config, serial, found[0], tree)
    finally:
        tree.remove()


@pytest.fixture(scope="session", params=IMAGES)
def root(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """Each image's root file system in turn."""
    with unpacked(world, request.param, tmp_path_factory.mktemp("root")) as found:
        yield found


@pytest.fixture(scope="session")
def base(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """A minimal Debian with the world's archive; tests work in copies of it, and share what apt fetches."""
    tree = bootstrap(tmp_path_factory.mktemp("base") / "tree", SUITE, world.public, world.keyring)
    yield tree
    tree.remove()


@pytest.fixture(scope="session")
def ec2(base: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """A system with only the configuration of EC2 installed, as for an image."""
    yield from _installed(base, tmp_path_factory, "ec2")


@pytest.fixture(scope="session")
def azure(base: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """A system with only the configuration of Azure installed."""
    yield from _installed(base, tmp_path_factory, "azure")


def _installed(base: Tree, tmp_path_factory: pytest.TempPathFactory, config: str) -> Iterator[Tree]:
    tree = base.copy(tmp_path_factory.mktemp(config) / "tree")
    tree.apt("install", f"debian-cloud-config-{config}")
    yield tree
    tree.remove()
