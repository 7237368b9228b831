# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive and a mirror for each test; servers and keys for all."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ALL
from tests.gnupg import remove
from tests.mirror.tree import Archive, Key, Mirror, Server, serve

SCHEMES = ("rsync", "http")


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    key = Key.make(tmp_path_factory.mktemp("gpg") / "archive")
    yield key
    key.end()


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    key = Key.make(tmp_path_factory.mktemp("gpg") / "other")
    yield key
    key.end()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="session")
def servers(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    etc = tmp_path_factory.mktemp("etc")
    running = {scheme: serve(scheme, site, etc / scheme) for scheme in SCHEMES}
    yield running
    for server in running.values():
        server.kill()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, key: Key) -> Archive:
    archive = Archive(tmp_path_factory.mktemp("template") / "archive", key)
    archive.add_deb("debian-cloud-config-ec2", "0.1.0")
    archive.add_deb("libcloud++", "1.0+b1~rc1")
    archive.add_source("debian-cloud", "0.1.0")
    archive.add_image("ec2", "20261119.0")
    archive.add_image("ec2", "20261120.0")
    archive.add_image("generic", "20261120.0")
    archive.publish()
    return archive


@pytest.fixture(scope="session")
def next_template(template: Archive, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The same archive, after it has published one more package, source and image."""
    archive = copied(template, tmp_path_factory.mktemp("next") / "archive")
    archive.add_deb("new", "1")
    archive.add_source("debian-cloud", "0.2.0")
    archive.add_image("ec2", "20261121.0")
    archive.publish()
    return archive


def copied(template: Archive, root: Path) -> Archive:
    shutil.copytree(template.root, root, symlinks=True)
    return Archive(
        root,
        template.key,
        packages=dict(template.packages),
        images=dict(template.images),
        current=dict(template.current),
        date=template.date,
        sources=template.sources,
    )


@pytest.fixture
def archive(template: Archive, site: Path, request: pytest.FixtureRequest) -> Iterator[Archive]:
    """An archive for one test: two packages, a source, three images of two configurations."""
    made = copied(template, site / re.sub(r"\W+", "-", request.node.name))
    yield made
    remove(made.root)


@pytest.fixture
def next_archive(next_template: Archive, site: Path, request: pytest.FixtureRequest) -> Iterator[Archive]:
    """The same archive after its next publication, for one test."""
    made = copied(next_template, site / re.sub(r"\W+", "-", request.node.name))
    yield made
    remove(made.root)


@pytest.fixture(scope="session")
def mirrored(
    template: Archive, site: Path, servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """Directories of mirrors of the archive, by the scheme with which they fetched it."""
    made = copied(template, site / "mirrored")
    dests = {}
    for scheme, server in servers.items():
        mirror = Mirror(f"{server.url}/mirrored", tmp_path_factory.mktemp("mirrored") / scheme, template.key.keyring)
        mirror.ok()
        dests[scheme] = mirror.dest
    yield dests
    remove(made.root)


@pytest.fixture
def follower(next_archive: Archive, mirrored: dict[str, Path], server: Server, key: Key, tmp_path: Path) -> Mirror:
    """A mirror with the state before the next publication."""
    subprocess.run(["cp", "-a", mirrored[server.scheme], tmp_path / "mirror"], check=True)
    return Mirror(f"{server.url}/{next_archive.root.name}", tmp_path / "mirror", key.keyring)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make check` runs each test over one protocol, half of the tests over each; `make check-all` over both."""
    if not ALL:
        items[:] = [item for item in items if not _is_for_check_all(item)]


def _is_for_check_all(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return False
    scheme = str(item.callspec.params.get("server", ""))
    return scheme in SCHEMES and scheme != SCHEMES[zlib.crc32(item.nodeid.replace(scheme, "").encode()) % 2]


@pytest.fixture(params=SCHEMES)
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]


@pytest.fixture
def mirror(archive: Archive, server: Server, key: Key, tmp_path: Path) -> Mirror:
    """A mirror of the test's archive that has not run yet."""
    return Mirror(f"{server.url}/{archive.root.name}", tmp_path / "mirror", key.keyring)


@pytest.fixture
def slow(archive: Archive, tmp_path: Path) -> Iterator[Callable[[str, int], Server]]:
    """A function that starts a slow server of the test's archive, which the test may kill."""
    started: list[Server] = []

    def start(scheme: str, rate: int) -> Server:
        started.append(serve(scheme, archive.root, tmp_path / f"etc-{scheme}", rate))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.kill()
