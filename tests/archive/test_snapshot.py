# SPDX-License-Identifier: GPL-3.0-or-later
"""A publication stays under its id: for both apts, a year later, and for builds from it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import clock
from tests.archive.clients import serving
from tests.archive.conftest import Archive, Maker, Template, run
from tests.gnupg import remove
from tests.mirror.tree import Mirror, serve

if TYPE_CHECKING:
    from tests.archive.clients import Apt
    from tests.archive.conftest import Key

KILLS = 100 if os.environ.get("DEBIAN_CLOUD_ALL") else 8
DEMO = "debian-cloud-config-demo"
DATES = ("Date", "Valid-Until")
KEYS = Path(__file__).resolve().parents[2] / "archive/steps/keys"
FORMAT = "%a, %d %b %Y %H:%M:%S"


def publish(archive: Archive) -> str:
    """Publish what was accepted, and return its id."""
    archive.run("publish")
    return archive.run("snapshot").stdout.strip()


def ids(archive: Archive) -> list[str]:
    """The ids of all snapshots, the newest first."""
    return [line.partition(" ")[0] for line in archive.run("snapshot", "--list").stdout.splitlines()]


def test_each_publication_has_an_id(archive: Archive, make: Maker, uploader: Key) -> None:
    (first,) = ids(archive)
    assert re.fullmatch(r"\d{8}T\d{6}Z", first)
    # The id stays the same while the publication does.
    archive.run("resign")
    assert publish(archive) == first
    archive.take(make.image(uploader))
    assert archive.run("snapshot").stdout == f"{first}\n"
    second = publish(archive)
    archive.take(make.deb(uploader, "1.0"))
    third = publish(archive)
    assert ids(archive) == [third, second, first]
    assert sorted(ids(archive), reverse=True) == ids(archive)
    told = json.loads(archive.run("snapshot", "--list", "--json").stdout)
    assert told == [{"id": name, "suites": ["trixie"]} for name in (third, second, first)]
    for name, version in ((third, "Version: 1.0"), (second, None), (first, None)):
        dist = archive.public / "snap" / name / "dists/trixie"
        packages = (dist / "main/binary-amd64/Packages").read_text()
        assert (version in packages) if version else (DEMO not in packages)
        # It expires with the suite: shown in the suite's place, it does not stop clients for longer.
        dates = [re.findall(f"(?m)^{name}: (.*) UTC$", (dist / "InRelease").read_text())[0] for name in DATES]
        assert timedelta(days=14) == datetime.strptime(dates[1], FORMAT) - datetime.strptime(dates[0], FORMAT)
        archive.key.gpg("--verify", dist / "InRelease")
        archive.key.gpg("--verify", dist / "Release.gpg", dist / "Release")
        (image,) = (archive.public / "snap" / name).glob("images/trixie/ec2/amd64/*.*/*.?.qcow2")
        assert image.exists()
    listed = [
        (archive.public / "snap" / name / "dists/trixie/main/images/Images").read_text() for name in ids(archive)
    ]
    assert ["Version: 20261120.0" in text for text in listed] == [True, True, False]
    # It is removed in one rename; the one that is published now stays.
    removed = archive.run("snapshot", "--remove", second)
    assert removed.stdout == f"removed: {second}\n"
    assert ids(archive) == [third, first]
    assert publish(archive) == third
    for wrong, status, word in (
        (second, 1, f"snapshot {second} does not exist"),
        (third, 1, f"{third} is the last snapshot"),
        ("../dists", 2, "not the id of a snapshot"),
        (f"{first}/dists", 2, "not the id of a snapshot"),
    ):
        done = archive.run("snapshot", "--remove", wrong, check=False)
        assert done.returncode == status
        assert done.stderr.startswith("error: ")
        assert word in done.stderr
        assert "hint: " in done.stderr
    assert ids(archive) == [third, first]


def test_an_archive_without_snapshots_gets_one_when_asked(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.deb(uploader))
    archive.run("publish")
    for name in ids(archive):
        (archive.public / "snap" / name).rename(archive.path / "tmp" / name)
    assert archive.run("snapshot", "--list").stdout == ""
    assert json.loads(archive.run("snapshot", "--list", "--json").stdout) == []
    before = (archive.dist / "InRelease").read_bytes()
    name = archive.run("snapshot").stdout.strip()
    assert ids(archive) == [name]
    assert (archive.dist / "InRelease").read_bytes() == before
    snapped, dist = archive.public / "snap" / name / "dists/trixie", archive.dist
    files = {str(path.relative_to(snapped)) for path in snapped.rglob("*") if path.is_file()}
    assert files == {
        str(path.relative_to(dist)) for path in dist.rglob("*") if path.is_file() and "by-hash" not in str(path)
    }
    assert "Package: debian-cloud-config-demo" in (snapped / "main/binary-amd64/Packages").read_text()
    archive.key.gpg("--verify", snapped / "InRelease")
    # A snapshot dated later than the clock is not followed by one that sorts before it.
    archive.take(make.deb(uploader, "2.0"))
    (archive.public / "snap/29991231T235959Z").mkdir()
    for verb in ("snapshot", "publish"):
        done = archive.run(verb, check=False)
        assert done.returncode == 1
        assert re.search(
            "error: the clock says .*, but the last snapshot, 29991231T235959Z, is not older", done.stderr
        )
    (archive.public / "snap/29991231T235959Z").rmdir()
    # The rest of an interrupted run does not block the next.
    (archive.path / "tmp/snap/left").mkdir(parents=True)
    assert archive.run("snapshot").stdout == f"{name}\n"
    assert publish(archive) > name


def assert_whole(archive: Archive, name: str) -> None:
    """Assert that a snapshot is signed, contains its id, and has all files that it lists."""
    snap = archive.public / "snap" / name
    assert [(snap / link).readlink() for link in ("pool", "images")] == [Path("../../pool"), Path("../../images")]
    for dist in (snap / "dists").iterdir():
        archive.key.gpg("--verify", dist / "InRelease")
        archive.key.gpg("--verify", dist / "Release.gpg", dist / "Release")
        text = (dist / "Release").read_text()
        assert f"\nSnapshot: {name}\n" in text
        listed = re.findall("^ ([0-9a-f]{64}) [0-9]+ (.*)$", text, re.MULTILINE)
        assert len(listed) > 10
        for sha256, path in listed:
            file = dist / path
            # One of the compressed forms may be missing (Packages beside Packages.xz).
            if file.exists() or not file.with_name(f"{file.name}.xz").exists():
                assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256


@pytest.mark.thorough
def test_a_kill_leaves_a_whole_snapshot_or_none(archive: Archive, make: Maker, uploader: Key) -> None:
    chance = random.Random(5)
    archive.take(make.deb(uploader))
    last = publish(archive)
    begun = time.monotonic()
    archive.run("snapshot")
    long = 2 * (time.monotonic() - begun)
    kills = made = removed = 0
    for number in range(KILLS):
        # There is one snapshot to remove, and none of the current publication.
        for name in ids(archive):
            shutil.rmtree(archive.public / "snap" / name)
        old = f"20200101T0000{number:02}Z"
        shutil.copytree(archive.public / "dists", archive.public / "snap" / old / "dists")
        (archive.public / "snap" / old / "dists/trixie/Release").write_text("")
        kills += archive.killed(chance.uniform(0, long), "snapshot")
        found = [name for name in ids(archive) if name != old]
        for name in found:
            assert_whole(archive, name)
        made += len(found)
        last = archive.run("snapshot").stdout.strip()
        assert ids(archive) == [last, old]
        assert_whole(archive, last)
        kills += archive.killed(chance.uniform(0, long), "snapshot", "--remove", old)
        if old in ids(archive):
            assert (archive.public / "snap" / old / "dists/trixie/main/binary-amd64/Packages").exists()
        else:
            removed += 1
        assert archive.run("snapshot").stdout == f"{last}\n"
    print(f"{kills} kills; {made} of {KILLS} snapshots were made, {removed} removed")
    assert kills > KILLS / 2


@pytest.fixture(scope="module")
def web_template(
    short_path: Path, env: dict[str, str], uploader: Key, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Template, list[str]]]:
    make = Maker(tmp_path_factory.mktemp("uploads"), env)
    archive = Archive(short_path / "web" / "a", env)
    # The signed keyring package contains the address: the server stays, and each copy is served there.
    with serving(archive.public, []) as url:
        template = Template.begun(short_path, "web", env, uploader, "--url", f"{url}/")
        found = []
        for version in ("1.0", "2.0", "3.0"):
            archive.take(make.deb(uploader, version, content=version))
            found.append(publish(archive))
        template.keep()
        yield template, found


@pytest.fixture
def web(web_template: tuple[Template, list[str]], env: dict[str, str]) -> Iterator[tuple[Archive, list[str]]]:
    """An archive served over HTTP that published three versions of a package, and the snapshots' ids."""
    template, found = web_template
    with template.copied():
        yield Archive(template.path, env), found


def demo(machine: Apt) -> str:
    """Remove the package, install the candidate, and return its content."""
    for verb in ("remove", "install"):
        done = machine.get(verb, "--yes", DEMO)
        assert done.returncode == 0, done.stdout
    return (machine.root / "usr/share/demo" / DEMO).read_text()


@pytest.mark.thorough
def test_apt_takes_a_snapshot_for_an_archive_a_year_later(web: tuple[Archive, list[str]], client: Apt) -> None:
    archive, (first, second, _) = web
    client.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    assert client.get("update").returncode == 0
    assert demo(client) == "3.0"
    source = client.root / "etc/apt/sources.list.d/debian-cloud.sources"
    text = source.read_text()
    later = client.later(365)
    # The archive itself would have been signed again by then.
    assert "expired" in later.get("update").stdout
    for snapshot, version in ((first, "1.0"), (second, "2.0")):
        moved = re.sub("(?m)^URIs: (.*)$", rf"URIs: \1snap/{snapshot}", text)
        source.write_text(moved)
        assert client.get("update").returncode == 0
        # A user who wants an expired snapshot must allow that.
        done = later.get("update")
        assert done.returncode != 0
        assert "expired" in done.stdout
        source.write_text(f"{moved}Check-Valid-Until: no\n")
        done = later.get("update")
        assert done.returncode == 0, done.stdout
        assert demo(later) == version
    archive.run("snapshot", "--remove", first)
    source.write_text(re.sub("(?m)^URIs: (.*)$", rf"URIs: \1snap/{first}", text))
    done = later.get("update")
    assert done.returncode != 0
    assert "404" in done.stdout


@contextmanager
def swapped(archive: Archive, snapshot: str, *, end: bool) -> Iterator[None]:
    """Show a snapshot in the suite's place; without `end` as an older version signed it."""
    (archive.public / "dists").rename(archive.path / "live")
    shutil.copytree(archive.public / "snap" / snapshot / "dists", archive.public / "dists")
    if not end:
        release = archive.dist / "Release"
        text = re.sub("(?m)^Valid-Until: .*\n", "", release.read_text())
        release.write_text(text)
        archive.key.gpg("--output", archive.dist / "InRelease", "--clearsign", release)
        archive.key.gpg("--armor", "--output", archive.dist / "Release.gpg", "--detach-sign", release)
    shown = int((archive.dist / "InRelease").stat().st_mtime)
    yield
    # A client asks for what was modified since, and HTTP counts in seconds.
    while int(time.time()) <= shown:
        time.sleep(0.05)
    shutil.rmtree(archive.public / "dists")
    (archive.path / "live").rename(archive.public / "dists")


@pytest.mark.parametrize("end", [True, False], ids=["as signed now", "without an end"])
def test_a_snapshot_in_the_place_of_the_suite_freezes_nobody(
    web: tuple[Archive, list[str]],
    client: Apt,
    clients: Callable[[str], Apt],
    request: pytest.FixtureRequest,
    end: bool,
) -> None:
    archive, (first, _, _) = web
    fresh, known = client, clients(request.node.callspec.params["client"])
    for each in (fresh, known):
        each.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    assert known.get("update").returncode == 0
    with swapped(archive, first, end=end):
        # A client that knows a newer release keeps it.
        assert known.get("update").returncode == 0
        assert known.candidate(DEMO) == "3.0"
        for days in (15, 400):
            for each in (fresh, known):
                done = each.later(days).get("update")
                assert done.returncode != 0, done.stdout
                assert "expired" in done.stdout
        # A new client cannot recognize it, as its signature is at most two weeks old.
        assert fresh.get("update").returncode == 0
        assert fresh.candidate(DEMO) == "1.0"
    # A web server compares the file's time with that of the file shown before.
    archive.run("resign")
    for each in (fresh, known):
        assert each.get("update").returncode == 0
        assert each.candidate(DEMO) == "3.0"


def test_the_suite_in_the_place_of_a_snapshot_ends_with_its_signature(
    web: tuple[Archive, list[str]], client: Apt
) -> None:
    """The id is not compared by apt: it accepts a newer release whose signature is good."""
    archive, (first, _, _) = web
    client.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    source = client.root / "etc/apt/sources.list.d/debian-cloud.sources"
    source.write_text(re.sub("(?m)^URIs: (.*)$", rf"URIs: \1snap/{first}", source.read_text()))
    shown = archive.public / "snap" / first / "dists"
    shown.rename(archive.path / "kept")
    shutil.copytree(archive.public / "dists", shown)
    for days in (15, 400):
        done = client.later(days).get("update")
        assert done.returncode != 0, done.stdout
        assert "expired" in done.stdout
    assert client.get("update").returncode == 0
    assert client.candidate(DEMO) == "3.0"
    shutil.rmtree(shown)
    (archive.path / "kept").rename(shown)
    # It silently ignores what is older.
    assert client.get("update").returncode == 0
    assert client.candidate(DEMO) == "3.0"
    for days in (15, 400):
        done = client.later(days).get("update")
        assert done.returncode != 0, done.stdout
        assert "expired" in done.stdout


def test_a_mirror_takes_no_snapshot_for_the_suite(web: tuple[Archive, list[str]], tmp_path: Path) -> None:
    archive, (first, second, third) = web
    keys = tmp_path / "keys"
    keys.write_bytes(subprocess.run([KEYS, archive.path, "keyring"], check=True, capture_output=True).stdout)
    server = serve("http", archive.public, tmp_path / "etc")
    try:
        mirror = Mirror(server.url, tmp_path / "mirror", keys)
        for end in (True, False):
            with swapped(archive, first, end=end):
                mirror.refused(says=f"has a good signature, but is the archive's snapshot {first}")
        mirror.ok()
        with swapped(archive, third, end=True):
            mirror.refused(says=f"the archive's snapshot {third}")
        # A closure's index is signed by the same key for the same suite, and has no Valid-Until.
        with swapped(archive, second, end=False):
            release = archive.dist / "Release"
            release.write_text(re.sub("(?m)^Snapshot: .*\n", "", release.read_text()))
            archive.key.gpg("--output", archive.dist / "InRelease", "--clearsign", release)
            mirror.refused(says="has no Valid-Until")
        mirror.ok()
        # A year later, the live release has expired, and a snapshot in its place is refused all the same.
        later = replace(mirror, prefix=clock.off_by("+400d"))
        later.refused(says="expired")
        for end in (True, False):
            with swapped(archive, third, end=end):
                later.refused(says="expired|the archive's snapshot")
        mirror.ok()
    finally:
        server.kill()


def test_apt_3_takes_a_snapshot_by_its_id_at_once(
    web: tuple[Archive, list[str]], clients: Callable[[str], Apt]
) -> None:
    """With the keyring package, apt 3 knows the snapshots' address before its first update; it skips the suite."""
    archive, (first, second, _) = web
    client = clients("apt-3")
    client.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    done = client.get("install", "--update", "--snapshot", first, "--yes", DEMO)
    assert done.returncode == 0, done.stdout
    assert client.version(DEMO) == "1.0"
    named = clients("apt-3")
    named.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    source = named.root / "etc/apt/sources.list.d/debian-cloud.sources"
    source.write_text(f"{source.read_text()}Snapshot: {second}\n")
    done = named.get("update")
    assert done.returncode == 0, done.stdout
    assert named.candidate(DEMO) == "2.0"
    later = client.later(400)
    assert later.get("update", "--snapshot", first).returncode != 0
    option = ("-o", "Acquire::Check-Valid-Until=false")
    done = later.get("install", *option, "--update", "--snapshot", second, "--yes", DEMO)
    assert done.returncode == 0, done.stdout
    assert client.version(DEMO) == "2.0"


@pytest.mark.parametrize("behind", [240, *(pytest.param(few, marks=pytest.mark.thorough) for few in (3, 60))])
def test_a_machine_whose_clock_is_a_little_slow_goes_on(
    short_path: Path, env: dict[str, str], client: Apt, behind: int
) -> None:
    path = Path(tempfile.mkdtemp(dir=short_path)) / "a"
    run([*clock.off_by("-1d"), "debian-cloud-archive", "init", path], env)
    archive = Archive(path, env)
    archive.run("publish")
    client.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    slow = replace(client, prefix=(*client.prefix, *clock.off_by(f"-{behind}s")))
    done = slow.get("update")
    assert done.returncode == 0, done.stdout
    assert not re.search("^[WE]: ", done.stdout, re.MULTILINE), done.stdout
    remove(path.parent)


def test_apt_3_takes_a_snapshot_by_its_id(web: tuple[Archive, list[str]], clients: Callable[[str], Apt]) -> None:
    archive, (first, _, third) = web
    client = clients("apt-3")
    client.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    assert client.get("update").returncode == 0
    assert demo(client) == "3.0"
    assert re.search(
        "(?m)^Snapshots: http://[0-9.]+:[0-9]+/snap/@SNAPSHOTID@/$", (archive.dist / "Release").read_text()
    )
    assert client.get("remove", "--yes", DEMO).returncode == 0
    done = client.get("install", "--update", "--snapshot", first, "--yes", DEMO)
    assert done.returncode == 0, done.stdout
    assert client.version(DEMO) == "1.0"
    # Without the option, apt uses the suite again.
    assert client.get("update").returncode == 0
    assert client.candidate(DEMO) == "3.0"
    # A field of this archive's source only.
    source = client.root / "etc/apt/sources.list.d/debian-cloud.sources"
    text = source.read_text()
    source.write_text(f"{text}Snapshot: {first}\n")
    assert client.get("update").returncode == 0
    assert client.candidate(DEMO) == "1.0"
    source.write_text(text)
    archive.run("snapshot", "--remove", first)
    assert client.get("update", "--snapshot", first).returncode != 0
    assert client.get("update", "--snapshot", third).returncode == 0
