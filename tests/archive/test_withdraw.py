# SPDX-License-Identifier: GPL-3.0-or-later
"""The lifecycle of images in an archive: withdrawn, deprecated, held back, expired, and attested by others."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud import cli, projections
from debian_cloud.image import index, staleness
from debian_cloud.image.buildinfo import Buildinfo
from debian_cloud.projections import provenance
from debian_cloud.proof import trust
from tests.archive.clients import machine
from tests.archive.conftest import Archive, Maker, Template, run
from tests.gnupg import remove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.archive.conftest import Key

OLD, NEW = "20261119.0", "20261120.0"
REASON = "it does not boot on machines with an NVMe disk: 7 % of all"


def listed(archive: Archive) -> dict[str, index.ImageRecord]:
    """Serial -> record of the images that Images lists."""
    return {r.id.serial: r for r in index.parse((archive.dist / "main/images/Images").read_text())}


def statuses(archive: Archive) -> dict[str, staleness.ImageStatus]:
    """Serial -> status in Images-Status."""
    return {s.id.serial: s for s in staleness.parse((archive.dist / "main/images/Images-Status").read_text())}


def current(archive: Archive) -> str:
    return (archive.public / "images/trixie/ec2/amd64/current").readlink().name


def test_a_withdrawn_image_is_out_of_every_index_at_once(archive: Archive, make: Maker, uploader: Key) -> None:
    for serial in (OLD, NEW):
        archive.take(make.image(uploader, serial))
    archive.run("publish")
    image = f"trixie/ec2/amd64/{NEW}"
    done = archive.run("withdraw", image, "--reason", REASON, "--cve", "CVE-2026-12345", "--cve", "CVE-2026-23456")
    assert done.stdout.startswith(f"withdrawn: {image}\npublished: serial ")
    assert {serial: record.status for serial, record in listed(archive).items()} == {OLD: "current"}
    assert current(archive) == OLD
    # Its files stay for clients with an older index.
    assert list((archive.public / "images" / image).glob("*.qcow2"))
    said = statuses(archive)[NEW]
    assert (said.status, said.reason, said.cves) == ("withdrawn", REASON, ("CVE-2026-12345", "CVE-2026-23456"))
    assert statuses(archive)[OLD].status == "current"
    assert (
        f" {len((archive.dist / 'main/images/Images-Status.xz').read_bytes())} main/images/Images-Status.xz\n"
        in (archive.dist / "InRelease").read_text()
    )

    before = archive.snapshot()
    for arguments, words, code in (
        ((image, "--reason", "again"), "is already withdrawn since", 1),
        ((f"trixie/ec2/amd64/{OLD}",), "the reason is empty", 2),
        ((f"trixie/ec2/amd64/{OLD}", "--reason", "a\nb"), "one line of text", 2),
        (
            (f"trixie/ec2/amd64/{OLD}", "--reason", "x" * 100_000),
            "has 100000 characters, but at most 500 are allowed",
            2,
        ),
        (("trixie/ec2/amd64/20261118.0", "--reason", "x"), "never had", 2),
        (("sid/ec2/amd64/20261118.0", "--reason", "x"), "it has images of trixie", 2),
        (("../../x", "--reason", "x"), "no image ../../x", 2),
    ):
        refused = archive.run("withdraw", *arguments, check=False)
        assert words in refused.stderr
        assert refused.returncode == code
    assert archive.run("withdraw", check=False).returncode == 2
    assert archive.snapshot() == before

    done = archive.run("deprecate", f"images/trixie/ec2/amd64/{OLD}/", "--reason", "there will be better ones")
    assert "deprecated: " in done.stdout
    assert listed(archive)[OLD].status == "deprecated"
    assert listed(archive)[OLD].status_reason == "there will be better ones"
    assert not (archive.public / "images/trixie/ec2/amd64/current").is_symlink()
    # After a run that was interrupted before it published, the verb publishes its result when run again.
    (state,) = (archive.path / "state/images").iterdir()
    entered = state.read_text()
    state.write_text(re.sub(r"(?m)^Status.*\n|^CVEs.*\n", "", entered))
    archive.run("publish")
    state.write_text(entered)
    assert {*listed(archive)} == {OLD, NEW}
    archive.run("withdraw", image, "--reason", "again")
    assert {*listed(archive)} == {OLD}
    assert statuses(archive)[NEW].reason == REASON
    # No other image can be uploaded under its name.
    assert "never rewritten" in archive.refuse(make.image(uploader, NEW))


def test_a_release_that_is_not_whole_is_held_back(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.image(uploader, OLD))
    archive.run("publish")
    sets = archive.path / "conf/releases"
    sets.write_text("# vendors\ntrixie ec2/amd64 azure/amd64 generic/arm64\n")
    archive.take(make.image(uploader, NEW))
    done = archive.run("publish")
    assert f"held back: trixie/{NEW}: ec2/amd64 (missing: azure/amd64 generic/arm64)\n" in done.stdout
    # An image that was published before there were release sets stays published.
    assert {*listed(archive)} == {*statuses(archive)} == {OLD}
    assert current(archive) == OLD
    for arguments, words in (
        (("--partial", "trixie/20261121.0"), "nothing of trixie/20261121.0 is held back"),
        (("--partial",), "--partial needs a value"),
        (("more",), "publish takes one DIR"),
        (("--partial", "sid/20261121.0"), "no image sid/20261121.0"),
    ):
        refused = archive.run("publish", *arguments, check=False)
        assert (words in refused.stderr, refused.returncode) == (True, 2), refused.stderr
    done = archive.run("publish", "--partial", f"trixie/{NEW}")
    assert "held back" not in done.stdout
    assert {serial: record.partial for serial, record in listed(archive).items()} == {OLD: False, NEW: True}
    assert current(archive) == NEW
    sets.write_text("trixie ec2\n")
    before = archive.snapshot()
    refused = archive.run("publish", check=False)
    assert "conf/releases, line 1, is not a set of images" in refused.stderr
    assert refused.returncode == 1
    assert archive.snapshot() == before


def ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d")


def earlier(archive: Archive, days: int) -> None:
    """Move all dates in the archive's state `days` days back."""
    for file in (archive.path / "state/images/trixie", archive.path / "state/leaving"):
        text = file.read_text() if file.exists() else ""
        found = {*re.findall(r"(?m)^(?:Status-Date: )?(\d{4}-\d\d-\d\d)\b", text)}
        for day in sorted(found):
            text = text.replace(day, str(date.fromisoformat(day) - timedelta(days=days)))
        if found:
            file.write_text(text)
    for file in archive.dist.rglob("by-hash/SHA256/*"):
        os.utime(file, (file.stat().st_mtime - days * 86400,) * 2)


def pool(archive: Archive) -> set[str]:
    return {path.name for path in (archive.public / "pool/main/d/debian-cloud").iterdir()}


POLICY = "keep 2\npinned trixie/ec2/amd64/20261118.0\n"
FIRST = "trixie/ec2/amd64/20261117.0"
"""The image that expires."""


@pytest.fixture(scope="module")
def expiring_template(
    short_path: Path, env: dict[str, str], uploader: Key, tmp_path_factory: pytest.TempPathFactory
) -> Template:
    template = Template.begun(short_path, "expiring", env, uploader)
    archive, make = Archive(template.path, env), Maker(tmp_path_factory.mktemp("uploads"), env)
    for serial in ("20261117.0", "20261118.0", OLD, NEW):
        archive.take(make.image(uploader, serial))
    for version in ("1", "2"):
        archive.take(make.deb(uploader, version))
        archive.run("publish")
    for serial in ("20261117.0", NEW):
        closure = archive.public / "closures/trixie/ec2/amd64" / serial
        closure.mkdir(parents=True)
        (archive.path / "kept/aa").mkdir(parents=True, exist_ok=True)
        (archive.path / "kept/aa" / serial).write_text(serial)
        os.link(archive.path / "kept/aa" / serial, closure / "x.deb")
    template.keep()
    return template


@pytest.fixture
def expiring(expiring_template: Template, env: dict[str, str]) -> Iterator[Archive]:
    """An archive with four images, two closures, and two versions of a package."""
    with expiring_template.copied():
        yield Archive(expiring_template.path, env)


def snapshots(archive: Archive) -> list[str]:
    return sorted(path.name for path in (archive.public / "snap").iterdir())


def nothing(archive: Archive, images: int) -> str:
    """The message if nothing expires."""
    number = len(snapshots(archive))
    return f"nothing to expire: {images} images, {number} snapshots and 7 files of the pool stay; conf/expire "


def expired_before(archive: Archive) -> None:
    """Expire the first image 20 days ago, and let snapshots expire now, too."""
    policy = archive.path / "conf/expire"
    policy.write_text(POLICY)
    archive.run("expire")
    earlier(archive, 20)
    policy.write_text(f"{POLICY}snapshots 1\n")


@pytest.mark.thorough
def test_without_a_policy_no_image_expires(expiring: Archive) -> None:
    before = expiring.snapshot()
    kept = f"{nothing(expiring, 4)}does not exist, so no image expires\n"
    for arguments in (), ("--dry-run",):
        assert expiring.run("expire", *arguments).stdout == kept
    assert expiring.snapshot() == before


@pytest.mark.thorough
def test_what_the_policy_does_not_keep_is_listed_no_more(expiring: Archive) -> None:
    before = expiring.snapshot()
    (expiring.path / "conf/expire").write_text(POLICY)
    assert expiring.run("expire", "--dry-run").stdout == f"would be expired: images/{FIRST}\n"
    assert expiring.snapshot() == before
    assert json.loads(expiring.run("expire", "--dry-run", "--json").stdout) == {
        "dry-run": True,
        "expired": [f"images/{FIRST}"],
        "removed": {"folders": [], "snapshots": [], "pool": []},
        "leaving": {},
    }
    done = expiring.run("expire")
    assert re.fullmatch(rf"published: serial \d+\nexpired: images/{FIRST}\n", done.stdout)
    assert {*listed(expiring)} == {"20261118.0", OLD, NEW}
    assert statuses(expiring)["20261117.0"].status == "expired"
    assert (expiring.public / "images" / FIRST).exists()
    assert expiring.run("expire").stdout == f"{nothing(expiring, 3)}expires no more\n"
    # Nothing that a snapshot lists is removed after any time.
    earlier(expiring, 20)
    assert expiring.run("expire").stdout == f"{nothing(expiring, 3)}expires no more\n"


@pytest.mark.thorough
def test_what_no_snapshot_lists_goes_after_two_weeks(expiring: Archive, make: Maker, uploader: Key) -> None:
    folders = expiring.public / "images/trixie/ec2/amd64"
    expired_before(expiring)
    known = snapshots(expiring)
    assert len(known) > 2
    first = "".join(f"removed: snap/{found}\n" for found in known[:-1])
    gone = "".join(f"removed: {kind}/{FIRST}\n" for kind in ("images", "closures"))
    waiting = f"leaving: 3 files of the pool, the first 15 days after {ago(0)}\n"
    dry = expiring.run("expire", "--dry-run").stdout
    assert dry.replace("would be ", "") == first + gone + waiting
    assert expiring.run("expire").stdout == first + gone + waiting
    assert snapshots(expiring) == known[-1:]
    assert [path.name for path in (expiring.path / "kept/aa").iterdir()] == [NEW]
    assert {path.name for path in folders.iterdir()} == {"20261118.0", OLD, NEW, "current"}
    # A removed image cannot be uploaded again, and nothing else is missing.
    refused = expiring.refuse(make.image(uploader, "20261117.0"))
    assert "no path is used twice" in refused
    expiring.run("publish")
    assert {*listed(expiring)} == {"20261118.0", OLD, NEW}


def test_a_file_of_the_pool_goes_after_two_weeks_in_no_index(expiring: Archive) -> None:
    """The files of the package's first version are removed."""
    expired_before(expiring)
    waiting = f"leaving: 3 files of the pool, the first 15 days after {ago(0)}"
    assert expiring.run("expire").stdout.splitlines()[-1] == waiting
    assert len(pool(expiring)) == 6
    earlier(expiring, 14)
    assert expiring.run("expire").stdout.splitlines()[1:] == [waiting.replace(ago(0), ago(14))]
    earlier(expiring, 1)
    # An interrupted run had already removed a file from reprepro's database.
    known = "pool/main/d/debian-cloud/debian-cloud-config-demo_1_all.deb"
    reprepro: tuple[str | Path, ...] = ("reprepro", "--basedir", expiring.path)
    assert known in run([*reprepro, "dumpunreferenced"], expiring.env).stdout
    run([*reprepro, "_forget", known], expiring.env)
    removed = expiring.run("expire").stdout.splitlines()
    assert [line.partition("demo_1")[0] for line in removed] == [
        "removed: pool/main/d/debian-cloud/debian-cloud-config-"
    ] + [f"removed: pool/main/d/debian-cloud/debian-cloud_1_{rest}" for rest in ("all.changes", "amd64.buildinfo")]
    assert {name for name in pool(expiring) if "_1_" in name} == set()
    assert len(pool(expiring)) == 3
    assert run([*reprepro, "dumpunreferenced"], expiring.env).stdout == ""
    assert expiring.run("expire").stdout.startswith(
        "nothing to expire: 3 images, 1 snapshots and 4 files of the pool"
    )
    assert not (expiring.path / "tmp/expire").exists()


def test_a_withdrawn_image_goes_whatever_lists_it(archive: Archive, make: Maker, uploader: Key) -> None:
    for serial in (OLD, NEW):
        archive.take(make.image(uploader, serial))
    archive.run("publish")
    archive.run("withdraw", f"trixie/ec2/amd64/{NEW}", "--reason", "x")
    folder = archive.public / "images/trixie/ec2/amd64" / NEW
    earlier(archive, 13)
    assert archive.run("expire").stdout.startswith("nothing to expire: 1 images")
    earlier(archive, 1)

    # If the shown indexes are truncated, the signed ones still count.
    wanted = archive.run("expire", "--dry-run").stdout
    assert wanted == f"would be removed: images/trixie/ec2/amd64/{NEW}\n"
    shown = [archive.dist / "Release", *archive.public.glob("snap/*/dists/trixie/Release")]
    before = {path: path.read_bytes() for path in shown}
    for cut in (0, 400):
        for path, content in before.items():
            path.write_bytes(content[:cut])
        assert archive.run("expire", "--dry-run").stdout == wanted
    for path, content in before.items():
        path.write_bytes(content)
    # If it is unknown whether the archive signed an index, that may list anything.
    other = archive.public / "dists/sid"
    shutil.copytree(archive.dist, other)
    refused = archive.run("expire", check=False)
    assert f"error: the archive has no record of what it signed for {other}, so nothing is removed" in refused.stderr
    shutil.rmtree(other)

    # After a clock was set back, days would be counted wrongly.
    release = archive.path / "signed/dists/trixie/Release"
    said = release.read_text()
    release.write_text(re.sub("(?m)^(Date|Valid-Until): .*", r"\1: Mon, 01 Jan 2125 00:00:00 UTC", said))
    refused = archive.run("expire", check=False)
    assert refused.returncode == 1
    assert "published later than that" in refused.stderr
    release.write_text(said)

    # An image that an index lists is not removed, whatever the state says, before the next publication.
    index_file = archive.dist / "main/images/Images"
    text = index_file.read_text().replace(OLD, NEW)
    index_file.unlink()  # the snapshot has this file, too
    index_file.write_text(text)
    release.write_text(re.sub(r"(?m)^ \w{64} \d+ main/images/Images$", relisted(index_file), said))
    done = archive.run("expire")
    assert re.fullmatch(rf"published: serial \d+\nremoved: images/trixie/ec2/amd64/{NEW}\n", done.stdout)
    assert not folder.exists()
    assert statuses(archive)[NEW].status == "withdrawn"
    assert {*listed(archive)} == {OLD}

    # An index that does not match its Release is not used, and nothing is removed.
    (packages,) = archive.dist.glob("main/binary-amd64/Packages")
    packages.unlink()
    packages.write_text("damaged")
    refused = archive.run("expire", check=False)
    assert "not the file that its Release lists" in refused.stderr
    (archive.path / "conf/expire").write_text("keep none\n")
    refused = archive.run("expire", check=False)
    assert refused.returncode == 1
    assert "conf/expire, line 1, is not a policy" in refused.stderr
    assert archive.run("expire", "--now", check=False).returncode == 2


def relisted(file: Path) -> str:
    """The line of a Release for an index."""
    content = file.read_bytes()
    return f" {hashlib.sha256(content).hexdigest()} {len(content)} main/images/{file.name}"


def test_what_has_newer_versions_is_published_without_building(archive: Archive, make: Maker, uploader: Key) -> None:
    assert archive.run("stale").stdout == "nothing is stale: the archive has never had an image\n"
    for serial in (OLD, NEW):
        archive.take(make.image(uploader, serial))
    archive.run("publish")
    assert {said.pending_date for said in statuses(archive).values()} == {""}
    archive.run("withdraw", f"trixie/ec2/amd64/{NEW}", "--reason", "x")
    done = archive.run("stale", "--allow-expired")
    assert re.match(r"stale: trixie amd64: 1 images, [01] of them with [^\n]*\npublished: serial \d+\n", done.stdout)
    said = statuses(archive)[OLD]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", said.pending_date)
    # The package versions of trixie before its first point release.
    pending = {found.package: found.have for found in (*said.security, *said.others)}
    assert pending == {"base-files": "13.8", "login": "1:4.16.0-2"}
    assert statuses(archive)[NEW].others == ()

    # If nothing changed, nothing is published; the packages cached from the .buildinfo count, not its changed text.
    snapshots = {*(archive.public / "snap").iterdir()}
    (cache,) = (archive.path / "cache").glob("packages-*")
    assert cache.name == "packages-trixie-amd64"
    (buildinfo,) = (archive.public / "images/trixie/ec2/amd64" / OLD).glob("*.buildinfo")
    text = buildinfo.read_text()
    buildinfo.write_text(text.replace("13.8", "13.7"))
    assert "published" not in archive.run("stale", "--allow-expired").stdout
    assert {*(archive.public / "snap").iterdir()} == snapshots
    # If Debian's indexes cannot be read, the earlier result stays, and the next publication shows it.
    before = statuses(archive)
    refused = archive.run("stale", "--mirror", "http://127.0.0.1:1/debian", check=False)
    assert refused.returncode == 1
    archive.run("publish")
    assert statuses(archive) == before
    # A file that does not match its signature is not used.
    cache.write_text("damaged")
    damaged = archive.run("stale", "--allow-expired", check=False)
    assert damaged.returncode == 1
    assert "is missing, or is not as it was signed" in damaged.stderr
    assert statuses(archive)[OLD].pending_date == ""
    assert not (archive.path / "tmp/stale").exists()


@pytest.mark.thorough
def test_the_word_of_rebuilders_is_listed_and_counts(
    archive: Archive, make: Maker, uploader: Key, stranger: Key, tmp_path: Path
) -> None:
    for serial in (OLD, NEW, "20261121.0"):
        archive.take(make.image(uploader, serial))
    archive.run("publish")
    archive.run("withdraw", f"trixie/ec2/amd64/{OLD}", "--reason", "x")

    def statement(key: Key, serial: str, *, built: bool = False, sha256: str = "") -> Path:
        (buildinfo,) = (archive.public / "images/trixie/ec2/amd64" / serial).glob("*.buildinfo")
        kept = Buildinfo.parse(buildinfo.read_text(), "x.buildinfo")
        subjects = {name: {"sha256": found} for name, (found, _) in kept.digests.items()}
        digests = {buildinfo.name: {"sha256": "0" * 64}}
        said = (
            provenance.built(kept, subjects, uploader.fingerprint, digests)
            if built
            else provenance.rebuilt(kept, subjects, digests)
        )
        text = projections.text(said)
        file = tmp_path / f"{serial}-{key.fingerprint}-{built}-{sha256[:2]}.asc"
        file.write_text(text.replace(next(iter(subjects.values()))["sha256"], sha256) if sha256 else text)
        key.clearsign(file)
        return file

    refused = archive.run("add-statement", statement(stranger, NEW), check=False)
    assert "conf/rebuilders.gpg, the keys of rebuilders, does not exist" in refused.stderr
    keyring = archive.path / "conf/rebuilders.gpg"
    stranger.gpg("--export", "--output", keyring)
    place = f"rebuilds/trixie/ec2/amd64/{NEW}/{stranger.fingerprint.lower()}.asc"
    before = archive.snapshot()
    unsigned = tmp_path / "x.asc"
    unsigned.write_text("{}")
    for file, words in (
        (statement(uploader, NEW), "no valid signature"),
        (statement(stranger, NEW, built=True), "not that it was rebuilt"),
        (statement(stranger, NEW, sha256="f" * 64), "describes other bytes than"),
        (statement(stranger, OLD), "is withdrawn"),
        (unsigned, "no valid signature"),
        (tmp_path / "nothing.asc", "there is no file"),
    ):
        refused = archive.run("add-statement", statement(stranger, "20261121.0"), file, check=False)
        assert (words in refused.stderr, refused.returncode > 0) == (True, True), refused.stderr
        # The good statement before the bad one is not published either.
        left = archive.public / f"rebuilds/trixie/ec2/amd64/20261121.0/{stranger.fingerprint.lower()}.asc"
        left.unlink()
        assert archive.snapshot() == before

    file = statement(stranger, NEW)
    done = archive.run("add-statement", file)
    assert done.stdout.startswith(f"added: {place}\npublished: ")
    assert (archive.public / place).read_bytes() == file.read_bytes()
    (entry,) = listed(archive)[NEW].rebuilds
    text = (archive.dist / "main/images/Images").read_text()
    content = file.read_bytes()
    assert f"Rebuilds:\n {hashlib.sha256(content).hexdigest()} {len(content)} {place}\n" in text
    assert entry.suffix == f"{stranger.fingerprint.lower()}.asc"
    assert listed(archive)["20261121.0"].rebuilds == ()
    refused = archive.run("add-statement", file, check=False)
    assert "already has a statement on images/trixie/ec2/amd64/20261120.0" in refused.stderr
    archive.run("publish")
    assert listed(archive)[NEW].rebuilds == (entry,)

    # `verify --rebuilders` reads that directory.
    (disk,) = (archive.public / "images/trixie/ec2/amd64" / NEW).glob("*.?.qcow2")
    demanded = trust.Rebuilders(1, keyring, (archive.public / place).parent)
    wanted = {disk.name: ("sha256", hashlib.sha256(disk.read_bytes()).hexdigest())}
    assert trust.rebuilders(demanded, wanted) == (stranger.fingerprint,)


def test_a_machine_learns_by_apt_what_became_of_its_image(
    archive: Archive,
    make: Maker,
    uploader: Key,
    tmp_path: Path,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for serial in (OLD, NEW):
        archive.take(make.image(uploader, serial))
    archive.run("publish")
    apt = machine(tmp_path / "machine", env)
    apt.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    record = tmp_path / "cloud-release"
    record.write_text(f'ID=ec2\nVERSION="{OLD}"\n')
    monkeypatch.setattr("debian_cloud.packages.machine._RECORD", record)
    monkeypatch.setenv("APT_CONFIG", apt.env["APT_CONFIG"])

    def told() -> tuple[int, str]:
        done = apt.get("update")
        assert done.returncode == 0, done.stdout
        return cli.run(["status"]), capsys.readouterr().out

    monkeypatch.setattr("debian_cloud.packages.machine._OS_RELEASE", tmp_path / "none")
    if subprocess.run(["dpkg", "--print-architecture"], capture_output=True, check=True).stdout != b"amd64\n":
        pytest.skip("the image is for amd64")
    code, said = told()
    assert code == 0
    assert said == (
        f"image: debian-cloud-config-ec2 {OLD} of trixie for amd64, superseded\nnewer: {NEW}\n"
        "pending: unknown to the archive; see `apt list --upgradable`\n"
    )
    archive.run("withdraw", f"trixie/ec2/amd64/{OLD}", "--reason", REASON, "--cve", "CVE-2026-12345")
    code, said = told()
    assert code == 1
    assert said.splitlines()[:2] == [f"withdrawn since {ago(0)}: {REASON}", "  CVE-2026-12345"]


def unsound(public: Path, *, gone: str) -> list[str]:
    """The files that a published index or a snapshot's lists and that are missing, except the image `gone`."""
    found = []
    for release in (*public.glob("dists/*/Release"), *public.glob("snap/*/dists/*/Release")):
        for sha256, _, name in re.findall(r"(?m)^ (\w{64}) (\d+) (\S+)$", release.read_text()):
            path = release.parent / name
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                found.append(str(path))
            elif path.name in ("Packages", "Images"):
                files = re.findall(r"(?m)^(?:Filename|Buildinfo): (.*)$", path.read_text())
                found += [file for file in files if gone not in file and not (public / file).exists()]
    return found


CALLS = os.environ.get("DEBIAN_CLOUD_CALLS", "18 30 40 49")
"""Numbers of the calls of a tool after which `expire` is killed: some that differ, or all (about 60)."""


@pytest.mark.thorough
def test_expire_killed_anywhere_removes_nothing_that_is_listed(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path
) -> None:
    withdrawn, old = "20261118.0", "20261119.0"
    for serial in (withdrawn, old, NEW):
        archive.take(make.image(uploader, serial))
    for version in ("1", "2"):
        archive.take(make.deb(uploader, version))
        archive.run("publish")
    archive.run("withdraw", f"trixie/ec2/amd64/{withdrawn}", "--reason", "x")
    policy = archive.path / "conf/expire"
    policy.write_text("keep 2\nsnapshots 1\n")
    archive.run("expire")
    # One image is due to expire and one to be removed, and a snapshot and three files of the pool, too.
    earlier(archive, 15)
    policy.write_text("keep 1\nsnapshots 1\n")

    shims, count = tmp_path / "shims", tmp_path / "count"
    shims.mkdir()
    for tool in ("cp", "find", "ln", "mv", "python3", "reprepro", "rm", "rmdir", "sync"):
        (shims / tool).write_text(
            f'#!/bin/sh\n{shutil.which(tool, path=archive.env["PATH"])} "$@"; status=$?\necho {tool} >>{count}\n'
            f'[ "$(wc -l <{count})" != "$KILL" ] || kill -9 0\nexit $status\n'
        )
        (shims / tool).chmod(0o755)

    def expired(at: int) -> tuple[Archive, int]:
        """A copy of the archive on which `expire` was killed after `at` calls, and its status."""
        copied = replace(archive, path=archive.path.with_name(f"k{at}"))
        subprocess.run(["cp", "-a", archive.path, copied.path], check=True)
        count.write_text("")
        env = {**archive.env, "PATH": f"{shims}:{archive.env['PATH']}", "KILL": str(at)}
        env["DEBIAN_CLOUD_PYTHON"] = str(shims / "python3")
        command = ["debian-cloud-archive", "expire", str(copied.path)]
        done = subprocess.run(command, env=env, start_new_session=True, capture_output=True, check=False, timeout=60)
        return copied, done.returncode

    def there(one: Archive) -> set[str]:
        """The served files, except indexes."""
        return {
            str(path.relative_to(one.public))
            for kind in ("pool", "images")
            for path in (one.public / kind).rglob("*")
        }

    whole, code = expired(0)
    assert code == 0
    assert len(there(whole)) < len(there(archive))
    assert not any(withdrawn in path or "demo_1" in path for path in there(whole))
    number = len(count.read_text().splitlines())
    assert number > 50
    for at in map(int, CALLS.split()):
        cut, code = expired(at)
        if at > number:
            break
        assert code == -signal.SIGKILL
        assert unsound(cut.public, gone=withdrawn) == [], at
        cut.run("expire")
        assert unsound(cut.public, gone=withdrawn) == [], at
        assert there(cut) == there(whole), at
        assert statuses(cut)[old].status == "expired"
        assert {*listed(cut)} == {NEW}
        remove(cut.path)
