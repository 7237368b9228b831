# SPDX-License-Identifier: GPL-3.0-or-later
"""An image is built from an archive's earlier publication, at the given address or at the one that it names."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from debian_cloud import names
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.image import sources
from debian_cloud.image.buildinfo import Buildinfo, Draft
from debian_cloud.packages import images
from tests import clock, throwaway
from tests.archive.clients import serving
from tests.command import debian_cloud, refused
from tests.throwaway import FINE, Archive, configuration


@dataclass(frozen=True)
class Web:
    """An archive that published two versions of a configuration, its own address, and that of a mirror."""

    archive: Archive
    old: str
    new: str
    own: str
    mirror: str

    def sources(self, url: str) -> list[str]:
        """The arguments that make `url` the source of configurations."""
        return ["--archive", url, "--keyring", str(self.archive.keyring)]

    @property
    def snap(self) -> Path:
        return self.archive.public / "snap"


def snapshot(archive: Archive) -> str:
    """The id of the current publication."""
    command: list[str | Path] = ["debian-cloud-archive", "snapshot", archive.folder]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with throwaway.folder() as top:
        archive = throwaway.archive(top, configuration(top / "debs", "fine", FINE))
        mirrored = top / "mirror"
        with serving(archive.public, []) as own, serving(mirrored, []) as mirror:
            (archive.folder / "conf/url").write_text(f"{own}\n")
            archive.run("publish")
            old = snapshot(archive)
            archive.add(configuration(top / "new", "fine", {**FINE, "Version": "2.0"}))
            new = snapshot(archive)
            shutil.copytree(archive.public, mirrored, symlinks=True, ignore=shutil.ignore_patterns("snap"))
            yield Web(archive, old, new, own, mirror)


def planned(web: Web, url: str, *more: str) -> Buildinfo:
    """What would be the .buildinfo of an image, without building it."""
    done = debian_cloud("plan", "fine", *web.sources(url), *more)
    assert done.returncode == 0, done.stderr
    facts = re.search("> facts <<'END'\n(.*?)\nEND", done.stdout, re.S)
    assert facts is not None
    return Draft.parse(facts[1]).buildinfo


@pytest.mark.thorough
def test_what_is_built_is_what_was_published_then(web: Web) -> None:
    now = planned(web, f"file:{web.archive.public}")
    assert now.config_version == "2.0"
    for url, address, identifier, version in (
        # A file: address is used as it is, wherever the archive will be served.
        (f"file:{web.archive.public}", f"file:{web.archive.public}", web.old, "1.0"),
        (web.own, web.own, web.new, "2.0"),
        (web.mirror, web.own, web.old, "1.0"),
    ):
        known = planned(web, url, "--snapshot", identifier)
        assert known.config_version == version
        assert ("debian-cloud-config-fine", version) in {
            (package.name, package.version) for package in known.packages
        }
        # The recorded release file is the one that was read.
        release = known.releases[-1]
        signed = (web.snap / identifier / "dists" / release.suite / "InRelease").read_bytes()
        assert release.uri.rstrip("/") == f"{address}/snap/{identifier}"
        assert names.snapshot_at(release.uri) == identifier
        assert (release.sha256, release.size) == (hashlib.sha256(signed).hexdigest(), len(signed))
        # Debian's sources are the same, in the build and in the image.
        assert known.releases[:-1] == now.releases[:-1]
        assert known.sources == now.sources
    assert {names.snapshot_at(release.uri) for release in now.releases} == {""}


def test_it_is_shown_and_listed(web: Web) -> None:
    arguments = (*web.sources(web.mirror), "--snapshot", web.old, "--json")
    done = debian_cloud("list", *arguments)
    assert [config["version"] for config in json.loads(done.stdout)] == ["1.0"]
    done = debian_cloud("show", "fine", *arguments)
    assert json.loads(done.stdout)["config"]["version"] == "1.0"
    refused(
        debian_cloud("list", "--images", "--snapshot", web.old),
        2,
        "--images lists the images of the archives that",
    )


@pytest.mark.parametrize("identifier", ["20261121", "../../etc", "20261121T000000Z/../x", "20261121t000000z", "now"])
def test_an_id_that_is_none(web: Web, identifier: str) -> None:
    done = debian_cloud("plan", "fine", *web.sources(web.own), "--snapshot", identifier)
    refused(done, 2, f"{identifier!r} is not the id of a snapshot", "an id is a day and a time: 20261120T143000Z")


@pytest.mark.parametrize("place", ["file", "own", "mirror"])
def test_a_snapshot_that_is_gone(web: Web, place: str) -> None:
    url = f"file:{web.archive.public}" if place == "file" else getattr(web, place)
    done = debian_cloud("build", "fine", *web.sources(url), "--snapshot", "20200101T000000Z", "--output", "/nowhere")
    refused(done, 1, "snapshot 20200101T000000Z of the archive cannot be read", "operator may have removed it")


def test_a_snapshot_in_the_place_of_another_is_refused(web: Web) -> None:
    kept = web.snap / "kept"
    (web.snap / web.new).rename(kept)
    shutil.copytree(web.snap / web.old, web.snap / web.new, symlinks=True)
    try:
        done = debian_cloud("plan", "fine", *web.sources(web.own), "--snapshot", web.new)
    finally:
        shutil.rmtree(web.snap / web.new)
        kept.rename(web.snap / web.new)
    refused(done, 1, f"is validly signed, but is not the snapshot {web.new}")


def redated(web: Web, release: Path, *, end: str = "Sat, 01 Jan 2022 00:00:00 UTC") -> None:
    """Make the archive sign a release file with dates long ago."""
    text = re.sub("(?m)^Date: .*", "Date: Fri, 31 Dec 2021 00:00:00 UTC", throwaway.signed_text(release))
    text = re.sub("(?m)^Valid-Until: .*\n", f"Valid-Until: {end}\n" if end else "", text)
    throwaway.sign(web.archive.folder / "gnupg", text, release)


@contextmanager
def kept(*files: Path) -> Iterator[None]:
    """Restore these files at the end of the block."""
    before = {file: file.read_bytes() for file in files}
    try:
        yield
    finally:
        for file, content in before.items():
            file.write_bytes(content)


def test_an_archive_that_has_expired_still_has_its_snapshots(web: Web) -> None:
    mirrored = web.archive.folder.parent / "mirror/dists/trixie/InRelease"
    with kept(mirrored):
        redated(web, mirrored)
        refused(debian_cloud("list", *web.sources(web.mirror)), 1, "expired")
        done = debian_cloud("list", *web.sources(web.mirror), "--snapshot", web.old)
    assert done.returncode == 0, done.stderr
    assert re.search("^fine +1.0 ", done.stdout, re.MULTILINE)


def shown_for_the_suite(web: Web, dists: Path) -> tuple[Path, list[str]]:
    """Make a new mirror that shows these indexes as the suite's; return its InRelease, and arguments."""
    folder = Path(tempfile.mkdtemp(dir=web.archive.folder.parent))
    folder.chmod(0o755)
    shutil.copytree(dists, folder / "dists")
    (folder / "pool").symlink_to(web.archive.public / "pool")
    return folder / "dists/trixie/InRelease", web.sources(f"file:{folder}")


@pytest.mark.thorough
@pytest.mark.parametrize("end", ["Sat, 01 Jan 2022 00:00:00 UTC", ""], ids=["expired", "without an end"])
def test_a_snapshot_that_has_expired_is_had_by_its_id_alone(web: Web, end: str) -> None:
    old = web.snap / web.old / "dists/trixie/InRelease"
    with kept(old):
        redated(web, old, end=end)
        for url in (web.own, f"file:{web.archive.public}"):
            assert planned(web, url, "--snapshot", web.old).config_version == "1.0"
        # The snapshot is refused in the suite's place, and so is an expired suite in the snapshot's place.
        _, sources = shown_for_the_suite(web, web.snap / web.old / "dists")
        word = "expired" if end else f"serves its snapshot {web.old}, which is validly signed, in place of trixie"
        refused(debian_cloud("plan", "fine", *sources), 1, word)
        old.write_bytes(web.archive.release.read_bytes())
        redated(web, old)
        done = debian_cloud("plan", "fine", *web.sources(web.own), "--snapshot", web.old)
        refused(done, 1, f"is validly signed, but is not the snapshot {web.old}")


def test_a_snapshot_is_not_taken_for_the_suite(web: Web) -> None:
    release, sources = shown_for_the_suite(web, web.snap / web.new / "dists")
    for verb in (("list",), ("plan", "fine"), ("show", "fine")):
        done = debian_cloud(*verb, *sources)
        refused(done, 1, f"serves its snapshot {web.new}, which is validly signed, in place of trixie")
    # An index without Valid-Until and Snapshot, as a closure's.
    text = re.sub("(?m)^(Valid-Until|Snapshot): .*\n", "", throwaway.signed_text(release))
    throwaway.sign(web.archive.folder / "gnupg", text, release)
    refused(debian_cloud("list", *sources), 1, "serves an index without Valid-Until, which is validly signed")
    # It is accepted, because its address was given.
    assert planned(web, f"{web.own}/snap/{web.old}").config_version == "1.0"


@pytest.mark.thorough
def test_a_snapshot_that_was_read_is_there_without_a_network(web: Web, tmp_path: Path) -> None:
    """Both release files are kept: the archive's, which says where snapshots are, and the snapshot's."""
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "http://127.0.0.1:1";\n')
    for url in (web.own, web.mirror):
        words = ("show", "fine", *web.sources(url), "--snapshot", web.old)
        # The cache has a bound, and builds of other tests may displace what was read.
        for _ in range(10):
            online = debian_cloud(*words)
            assert "debian-cloud-config-fine 1.0" in online.stdout, online.stderr
            assert debian_cloud(*words, APT_CONFIG=str(tmp_path / "apt.conf")).returncode == 1
            offline = debian_cloud(*words, "--offline", APT_CONFIG=str(tmp_path / "apt.conf"))
            if offline.returncode == 0:
                break
        assert offline.stdout == online.stdout, offline.stderr


@pytest.mark.thorough
def test_a_year_later_a_snapshot_is_had_by_its_id_alone(web: Web, tmp_path: Path) -> None:
    """Tested with another clock, not with changed dates."""
    # The builder gives its tools a clean environment, so the clock must be changed for each of them.
    for tool in ("apt-get", "apt-cache", "apt-helper", "gpgv", "gpg", "date"):
        real = f'"$(PATH=/usr/bin command -v {tool})"'
        (tmp_path / tool).write_text(f'#!/bin/sh\n{clock.OWN_PLACE}\nexec faketime -f +400d {real} "$@"\n')
        (tmp_path / tool).chmod(0o755)

    def later(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*clock.off_by("+400d"), "debian-cloud", *arguments],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    live, asked = web.sources(web.own), ("--snapshot", web.old)
    refused(later("list", *live), 1, "expired")
    # The option also allows Debian's expired releases, but never the archive's expired suite.
    for verb in (("plan", "fine"), ("build", "fine", "--output", "/nowhere")):
        refused(later(*verb, *live, "--allow-expired"), 1, "expired")
    _, replayed = shown_for_the_suite(web, web.snap / web.old / "dists")
    refused(later("list", *replayed), 1)
    refused(later("plan", "fine", *replayed, "--allow-expired"), 1)
    done = later("list", *live, *asked, "--allow-expired")
    assert done.returncode == 0, done.stderr
    assert re.search("^fine +1.0 ", done.stdout, re.MULTILINE)
    done = later("plan", "fine", *live, *asked, "--allow-expired")
    assert done.returncode == 0, done.stderr
    assert " 1.0 " in done.stdout
    with kept(old := web.snap / web.old / "dists/trixie/InRelease"):
        old.write_bytes(web.archive.release.read_bytes())
        refused(later("plan", "fine", *live, *asked, "--allow-expired"), 1, f"not the snapshot {web.old}")


@pytest.mark.parametrize("files", [("InRelease",), ("Release", "Release.gpg")], ids=["clear", "detached"])
@pytest.mark.parametrize(
    "ask", [lambda: images.known("trixie"), lambda: images.statuses(bool)], ids=["images", "statuses"]
)
def test_what_apt_took_for_the_suite_is_looked_at(
    web: Web, ask: Callable[[], object], files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "mirror_dists_trixie"
    uri = web.mirror

    def answer(command: tuple[str, ...]) -> str:
        if command[: len(sources.INDEXTARGETS)] != sources.INDEXTARGETS:
            return ""
        row = f"debian-cloud|debian-cloud|trixie|{uri}|{place}_main_images"
        return f"Images|{row}_Images|yes|/x:1\nImages-Status|{row}_Images-Status|yes|/x:1\n"

    monkeypatch.setattr(names, "ARCHIVE_KEYRING", str(web.archive.keyring))
    monkeypatch.setattr(run, "output", answer)
    for name in ("Images", "Images-Status"):
        place.with_name(f"{place.name}_main_images_{name}").touch()

    def take(folder: Path) -> None:
        for name in files:
            shutil.copy(folder / name, place.with_name(f"{place.name}_{name}"))

    take(web.archive.release.parent)
    ask()
    take(web.snap / web.old / "dists/trixie")
    with pytest.raises(Error, match=f"serves its snapshot {web.old}, which is validly signed, in place of trixie"):
        ask()
    # It is accepted, because its address was given.
    uri = f"{web.own}/snap/{web.old}/"
    ask()
    uri = f"{web.own}/snap/{web.new}/"
    with pytest.raises(Error, match="which is validly signed, in place of"):
        ask()
