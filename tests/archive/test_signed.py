# SPDX-License-Identifier: GPL-3.0-or-later
"""Only what the archive made is signed: not changes in its public directory, and nothing by a wrong clock."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud.archive import lifecycle
from debian_cloud.errors import Error
from debian_cloud.host import sign
from tests import clock
from tests.archive.conftest import Archive, Key, run
from tests.gnupg import remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.archive.conftest import Maker

STEPS = Path(__file__).resolve().parents[2] / "archive/steps"
DAY = 86400


def check(archive: Archive, *arguments: str) -> tuple[int, list[str]]:
    """The exit status and the lines."""
    done = archive.run("check", *arguments, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def refused(archive: Archive, words: str, verb: str, *arguments: str) -> None:
    """Assert that a verb fails with these words and a hint, and changes nothing."""
    before = archive.snapshot()
    done = archive.run(verb, *arguments, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert archive.snapshot() == before


def rewrite(file: Path, text: str) -> None:
    """Replace a file under this name only, whatever other names it has."""
    file.unlink()
    file.write_text(text)


def empty(archive: Archive) -> None:
    rewrite(archive.dist / "Release", "")


def cut(archive: Archive) -> None:
    rewrite(archive.dist / "Release", (archive.dist / "Release").read_text()[:400])


def evil(archive: Archive) -> None:
    text = (archive.dist / "Release").read_text().replace("Origin: debian-cloud", "Origin: Evil")
    rewrite(archive.dist / "Release", text.replace("\nSuite: ", "\nEvil: yes\nSuite: "))


def evil_in_all(archive: Archive) -> None:
    """Change Release and sign it, as a thief of the key could."""
    evil(archive)
    for how, name in (("--clearsign", "InRelease"), ("--detach-sign", "Release.gpg")):
        archive.key.gpg("--armor", "--output", archive.dist / name, how, archive.dist / "Release")


def old(archive: Archive) -> None:
    """Restore all indexes of an earlier publication, which are signed correctly."""
    first = min((archive.public / "snap").iterdir()) / "dists/trixie"
    for name in ("Release", "Release.gpg", "InRelease"):
        shutil.copy(first / name, archive.dist / name)
    for file in (path for path in first.rglob("*") if path.is_file() and path.parent != first):
        target = archive.dist / file.relative_to(first)
        target.unlink()
        shutil.copy(file, target)


def another_signature(archive: Archive) -> None:
    shutil.copy(min((archive.public / "snap").iterdir()) / "dists/trixie/Release.gpg", archive.dist / "Release.gpg")


def fifo(archive: Archive) -> None:
    (archive.dist / "InRelease").unlink()
    os.mkfifo(archive.dist / "InRelease")


def index_is_cut(archive: Archive) -> None:
    """Truncate an index under both names."""
    (archive.dist / "main/binary-amd64/Packages.xz").write_bytes(b"")


def image_index_is_gone(archive: Archive) -> None:
    for name in ("Images", "Images.xz"):
        index = archive.dist / "main/images" / name
        (index.parent / "by-hash/SHA256" / hashlib.sha256(index.read_bytes()).hexdigest()).unlink()
        index.unlink()


DAMAGES = (
    (empty, "Release"),
    (cut, "Release"),
    (evil, "Release"),
    (evil_in_all, "InRelease"),
    (old, "InRelease"),
    (another_signature, "Release.gpg"),
    (fifo, "InRelease"),
    (index_is_cut, "main/binary-amd64/Packages.xz"),
    (image_index_is_gone, "main/images/Images"),
)


def test_what_lies_in_the_public_folder_is_not_signed_for_lying_there(
    full: Archive, stranger: Key, tmp_path: Path
) -> None:
    full.run("add-key", "--cosigner", stranger.public)
    for damage, named in DAMAGES:
        signed = (full.path / "signed/dists/trixie/Release").read_bytes()
        damage(full)
        before = {path: path.read_bytes() for path in full.dist.rglob("*") if path.is_file()}
        for verb in ("resign", "snapshot") if damage is old else ("resign",):
            refusal = full.run(verb, check=False)
            assert refusal.returncode == 1, named
            assert "error: a served index is not as it was signed" in refusal.stderr
            assert f": {full.dist}/{named}: " in refusal.stderr
            assert "hint: run debian-cloud-archive check, which repairs what it can, or publish" in refusal.stderr
        # A cosigner's signature of the changed Release is refused.
        stranger.gpg("--output", tmp_path / "cosigned", "--clearsign", full.dist / "Release")
        refusal = full.run("cosign", tmp_path / "cosigned", check=False)
        assert refusal.returncode == 1, named
        assert "error: a served index is not as it was signed" in refusal.stderr
        assert {path: path.read_bytes() for path in full.dist.rglob("*") if path.is_file()} == before
        assert (full.path / "signed/dists/trixie/Release").read_bytes() == signed
        status, lines = check(full, "--fast")
        assert status == 1
        assert any(line.startswith(f"problem: dists/trixie/{named}: ") for line in lines), (named, lines)
        # publish makes all indexes from the archive's state, without the change.
        full.run("publish")
        assert "Evil" not in (full.dist / "InRelease").read_text()
        assert "Package: debian-cloud-config-demo" in (full.dist / "main/binary-amd64/Packages").read_text()
    full.run("resign")
    assert check(full) == (0, ["checked: all is as it was signed"])


def test_check_names_each_difference(full: Archive, make: Maker) -> None:
    byhash = full.dist / "main/binary-amd64/by-hash/SHA256"
    listed = set(re.findall("(?m)^ ([0-9a-f]{64}) ", (full.dist / "Release").read_text()))
    former = next(path for path in byhash.iterdir() if path.name not in listed)
    former.unlink()
    former.write_text("another")
    first, _, last = sorted((full.public / "snap").iterdir())
    swapped = first / "dists/trixie/InRelease"
    shutil.copy(last / "dists/trixie/InRelease", swapped)
    closure = full.public / "closures/trixie/ec2/amd64/20261120.0"
    made = closure / "dists/trixie/main/binary-amd64/Packages"
    made.parent.mkdir(parents=True)
    (closure / "pool").mkdir()
    deb = make.deb(None).files[0]
    shutil.copy(deb, closure / "pool/x.deb")
    made.write_text(f"Package: x\nFilename: pool/x.deb\nSize: {deb.stat().st_size}\nSHA256: {'0' * 64}\n")
    evidence = closure / "evidence/0"
    evidence.mkdir(parents=True)
    shutil.copy(full.dist / "InRelease", evidence / "InRelease")
    (evidence / "main_binary-amd64_Packages.xz").write_bytes(b"nothing of the kind")
    release = closure / "dists/trixie/Release"
    digest, size = hashlib.sha256(made.read_bytes()).hexdigest(), made.stat().st_size
    release.write_text(f"Suite: trixie\nSHA256:\n {digest} {size} main/binary-amd64/Packages\n")
    full.key.gpg("--clearsign", "--output", release.with_name("InRelease"), release)
    release.unlink()
    status, lines = check(full)
    assert status == 1
    assert {line.split(": ")[1] for line in lines if line.startswith("problem: ")} == {
        str(path.relative_to(full.public))
        for path in (former, swapped, swapped.with_name("Release"), closure / "pool/x.deb")
    } | {str((evidence / "main_binary-amd64_Packages.xz").relative_to(full.public))}


def faulty(folder: Path, program: str, then: str) -> str:
    """A PATH on which a program does its work, and then `then` is run."""
    folder.mkdir()
    real = shutil.which(program)
    (folder / program).write_text(f'#!/bin/sh\n{real} "$@" || exit\n{then}\n')
    (folder / program).chmod(0o755)
    return str(folder)


CUT = 'case "$*" in *export) cd "${0%/*}/../archive/tmp/publishing/dists/trixie/main/binary-amd64"; WHAT ;; esac'
# Also correct what Release lists for it.
RIGHT = (
    "old=$(sha256sum <Packages) size=$(stat -c %s Packages); : >Packages; xz -k -f Packages;"
    ' for f in Packages Packages.xz; do sed -i "s,^ .* [0-9]* main/binary-amd64/$f\\$,'
    ' $(sha256sum <$f | cut -c 1-64) $(stat -c %s $f) main/binary-amd64/$f," ../../Release; done'
)


CUTS = (
    (": >Packages", "main/binary-amd64/Packages: it is not"),
    ("truncate -s 100 Packages.xz", "main/binary-amd64/Packages.xz: it is not"),
    ("rm Packages Packages.xz", "main/binary-amd64/Packages: it is missing"),
    (": >../../Release", "is not a complete release file"),
    ("truncate -s 400 ../../Release", "main/binary-amd64/Packages: Release does not list it"),
    ("sed -i s/trixie/sid/ ../../Release", "belongs to the suite sid"),
    (RIGHT, "does not list debian-cloud-archive-keyring"),
    ("rm -r ../../../trixie; mkdir ../../../trixie", "nothing more was published"),
)


def test_what_was_cut_while_it_was_made_is_not_signed(full: Archive) -> None:
    (full.path.parent / "archive").symlink_to(full.path)
    for number, (what, says) in enumerate(CUTS):
        path = faulty(full.path.parent / f"bin{number}", "reprepro", CUT.replace("WHAT", what))
        broken = Archive(full.path, {**full.env, "PATH": f"{path}:{full.env['PATH']}"})
        refused(broken, says, "publish")
        assert not (full.path / "publishing").exists()
    full.run("publish")
    assert check(full)[0] == 0


def staged(archive: Archive) -> Path:
    """Stage a publication, as a run leaves it that is interrupted before it is shown."""
    run([STEPS / "stage", archive.path, "anew"], archive.env)
    return archive.path / "publishing"


CHANGES: tuple[Callable[[Path], object], ...] = (
    lambda dist: rewrite(dist / "InRelease", "evil"),
    lambda dist: rewrite(dist / "Release", (dist / "Release").read_text() + "Evil: x\n"),
    lambda dist: rewrite(dist / "main/binary-amd64/Packages", ""),
    lambda dist: (dist / "main/binary-amd64/Packages.xz").unlink(),
    lambda dist: shutil.rmtree(dist / "main/binary-amd64"),
    lambda dist: dist.rename(dist.with_name("sid")),
    lambda dist: dist.chmod(0o777),
    lambda dist: (dist / "Release").chmod(0o664),
    *((lambda dist: os.chown(dist / "Release", 65534, -1),) if os.geteuid() == 0 else ()),
)
"""Changes that another user can make to a staged publication."""


def test_what_a_cut_left_is_shown_as_it_was_made_or_not_at_all(full: Archive, make: Maker, uploader: Key) -> None:
    full.take(make.deb(uploader, "2.0"))
    for change in CHANGES:
        before = (full.dist / "InRelease").read_bytes()
        change(staged(full) / "dists/trixie")
        # Any verb that follows refuses; the next one works.
        refused(full, "an index to be published", "resign")
        assert (full.dist / "InRelease").read_bytes() == before
        shutil.rmtree(full.path / "lost/publishing")
    full.run("resign")
    full.run("publish")
    assert "Version: 2.0" in (full.dist / "main/binary-amd64/Packages").read_text()
    assert check(full)[0] == 0


def test_a_snapshot_that_a_thief_has_signed_is_not_vouched_for(full: Archive, tmp_path: Path) -> None:
    first, _, last = sorted((full.public / "snap").iterdir())
    states = full.path / "conf/keys"
    (thief,) = re.findall("(?m)^([0-9A-F]{40}) active", states.read_text())
    forged = first / "dists/trixie"
    text = (forged / "Release").read_text().replace("Origin: debian-cloud", "Origin: Evil")
    rewrite(forged / "Release", text)
    for how, name in (("--clearsign", "InRelease"), ("--detach-sign", "Release.gpg")):
        full.key.gpg("--armor", "--output", forged / name, how, forged / "Release")
    # A snapshot that was never published.
    shutil.copytree(first, first.with_name("20200101T000000Z"), symlinks=True)
    full.run("add-key")
    done = full.run("revoke-key", thief, check=False)
    assert done.returncode == 1
    assert "is not what the archive has signed" in done.stderr
    keyring = tmp_path / "keyring"
    keyring.write_bytes(
        subprocess.run([STEPS / "keys", full.path, "keyring"], capture_output=True, check=True).stdout
    )
    for folder in (forged, first.with_name("20200101T000000Z") / "dists/trixie"):
        with pytest.raises(Error, match="no valid signature"):
            sign.verified(keyring, folder / "InRelease")
    assert sign.verified(keyring, last / "dists/trixie/InRelease").signers
    problems = {line.split(": ")[1] for line in check(full)[1] if line.startswith("problem: ")}
    assert {str(forged.relative_to(full.public) / "InRelease")} < problems


@pytest.mark.thorough
def test_who_else_can_write_is_named(full: Archive) -> None:
    incoming = full.path / "incoming"
    incoming.chmod(0o2775)
    assert check(full)[0] == 0
    for name, mode in (
        *(("gnupg", 0o777), ("gnupg", 0o750), ("uploaders", 0o770), ("conf", 0o775), ("states", 0o777)),
        *(("conf/uploaders", 0o666), ("incoming", 0o2777), ("signed", 0o775), ("public/pool", 0o777), ("log", 0o775)),
    ):
        path = full.path / name
        before = path.stat().st_mode
        path.chmod(mode)
        done = full.run("check", "--fast", check=False)
        path.chmod(before & 0o7777)
        assert done.returncode == 1, name
        assert f"problem: {name}: users other than the archive's owner can write there" in done.stdout
    if os.geteuid() != 0:
        return  # only root can change the owner
    os.chown(full.path / "conf/distributions", 65534, -1)
    assert "problem: conf/distributions: " in "\n".join(check(full)[1])


def field(file: Path, name: str) -> str:
    (value,) = re.findall(f"(?m)^{name}: (.*)$", file.read_text())
    return str(value)


def seconds(file: Path, name: str) -> float:
    return parsedate_to_datetime(field(file, name).replace("UTC", "+0000")).timestamp()


def endless(archive: Archive) -> None:
    """Make an archive of an older version: snapshots without Valid-Until, and no record of what was signed."""
    shutil.rmtree(archive.path / "signed")
    for folder in archive.public.glob("snap/*/dists/trixie"):
        rewrite(folder / "Release", re.sub("(?m)^Valid-Until: .*\n", "", (folder / "Release").read_text()))
        archive.key.gpg("--output", folder / "InRelease", "--clearsign", folder / "Release")
        archive.key.gpg("--armor", "--output", folder / "Release.gpg", "--detach-sign", folder / "Release")


@pytest.mark.thorough
def test_snapshots_of_an_older_version_get_an_end(full: Archive) -> None:
    conf = full.path / "conf/distributions"
    conf.write_text(conf.read_text().replace("ValidFor: 14d", "ValidFor: 1m 3d"))
    endless(full)
    first, _, last = sorted((full.public / "snap").iterdir())
    # A snapshot that was changed after its signature is not signed again.
    changed = first.with_name("20200101T000000Z")
    shutil.copytree(first, changed, symlinks=True)
    full.run("resign")
    status, lines = check(full)
    assert status == 1
    assert f"problem: snap/{first.name}/dists/trixie/InRelease: it has no Valid-Until, " in "\n".join(lines)
    done = full.run("publish")
    assert f"signed anew: snap/{first.name}/dists/trixie/InRelease" in done.stdout
    for name in (first.name, last.name):
        folder = full.public / "snap" / name / "dists/trixie"
        assert seconds(folder / "InRelease", "Valid-Until") - seconds(folder / "InRelease", "Date") == 34 * DAY
        assert field(folder / "InRelease", "Snapshot") == name
        full.key.gpg("--verify", folder / "InRelease")
        full.key.gpg("--verify", folder / "Release.gpg", folder / "Release")
    assert "Valid-Until" not in (changed / "dists/trixie/Release").read_text()
    shutil.rmtree(changed)
    assert check(full)[0] == 0
    # A second publish signs none of them again, and the loss of a key does not remove their end.
    assert "signed anew" not in full.run("publish").stdout
    full.run("add-key")
    (first_key,) = re.findall("(?m)^([0-9A-F]{40}) active", (full.path / "conf/keys").read_text())[:1]
    full.run("revoke-key", first_key)
    assert seconds(full.public / "snap" / last.name / "dists/trixie/InRelease", "Valid-Until") > time.time()
    assert check(full)[0] == 0


@pytest.mark.thorough
@pytest.mark.parametrize("damage", [empty, evil, old])
def test_an_archive_of_an_older_version_signs_nothing_that_is_not_whole(
    full: Archive, damage: Callable[[Archive], None]
) -> None:
    damage(full)
    endless(full)
    refused(full, "so nothing is signed again", "resign")
    full.run("publish")
    full.run("resign")


def test_valid_for_is_read_as_reprepro_reads_it(archive: Archive) -> None:
    conf, out, root = archive.path / "conf/distributions", archive.path / "tmp/dists", archive.path.parent / "x"
    text = conf.read_text()
    for value in ("3d", "1m", "2y 1m 3d", "", "1m 11 d"):
        conf.write_text(text.replace("ValidFor: 14d\n", f"ValidFor: {value}\n" if value else ""))
        term = lifecycle.valid_for(value)
        if value:
            run(["reprepro", "--silent", "--basedir", archive.path, "--distdir", out, "export"], archive.env)
            release = out / "trixie/Release"
            assert seconds(release, "Valid-Until") - seconds(release, "Date") == term
            continue
        # Without ValidFor, an index and the keyring package's sources have the default.
        archive.run("publish")
        release = archive.dist / "InRelease"
        assert seconds(release, "Valid-Until") - seconds(release, "Date") == term == 14 * DAY
        run(["dpkg-deb", "-x", archive.public / "debian-cloud-archive-keyring_trixie.deb", root], archive.env)
        assert field(root / "etc/apt/sources.list.d/debian-cloud.sources", "Valid-Until-Max") == str(term)
    conf.write_text(text.replace("ValidFor: 14d\n", "ValidFor: 1m 3d\n"))
    archive.run("publish")
    run(["dpkg-deb", "-x", archive.public / "debian-cloud-archive-keyring_trixie.deb", root], archive.env)
    assert field(root / "etc/apt/sources.list.d/debian-cloud.sources", "Valid-Until-Max") == str(34 * DAY)


@pytest.mark.parametrize("value", ["x", "14", "0d", "14d x", "-3d"])
def test_a_valid_for_that_is_none(value: str) -> None:
    with pytest.raises(Error, match="is not a span of time"):
        lifecycle.valid_for(value)


def test_what_a_signature_lists_that_is_good_stays_whatever_valid_for_says_now(full: Archive) -> None:
    conf = full.path / "conf/distributions"
    text = conf.read_text()
    conf.write_text(text.replace("ValidFor: 14d", "ValidFor: 40d"))
    full.run("publish")
    conf.write_text(text.replace("ValidFor: 14d", "ValidFor: 3d"))
    full.run("publish")
    assert seconds(full.dist / "Release", "Valid-Until") < time.time() + 4 * DAY
    byhash = full.dist / "main/binary-amd64/by-hash/SHA256"
    listed = set(re.findall("(?m)^ ([0-9a-f]{64}) ", (full.dist / "Release").read_text()))
    former = next(path for path in byhash.iterdir() if path.name not in listed)
    for days, there in ((39, True), (41, False)):
        os.utime(former, (time.time() - days * DAY,) * 2)
        full.run("publish")
        assert former.exists() is there
    remembered = full.path / "signed/dists/trixie/terms"
    assert [int(line.split()[0]) // DAY for line in remembered.read_text().splitlines()] == [40]


def test_an_image_stays_while_a_signature_is_good_that_lists_it(full: Archive) -> None:
    """A withdrawn image stays while an index that lists it has a good signature, even long after its withdrawal."""
    folder = full.public / "images/trixie/ec2/amd64/20261120.0"
    full.run("withdraw", "trixie/ec2/amd64/20261120.0", "--reason", "broken")
    records = full.path / "state/images/trixie"
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 15 * DAY))
    records.write_text(re.sub("(?m)^Status-Date: .*", f"Status-Date: {day}", records.read_text()))
    indexes = (full.dist / "main/images/by-hash/SHA256").iterdir()
    listing = [path for path in indexes if b"20261120.0/" in path.read_bytes()]
    assert listing
    for days, there in ((13, True), (15, False)):
        for path in listing:
            os.utime(path, (time.time() - days * DAY,) * 2)
        full.run("expire")
        assert folder.exists() is there


class TestClock:
    """One resign ten years ahead, and what follows from it."""

    @staticmethod
    def ahead(
        archive: Archive, days: int, verb: str, *arguments: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [*clock.off_by(f"{days:+}d"), "debian-cloud-archive", verb, archive.path]
        return run([*command, *arguments], {**archive.env, **env}, check=False)

    def test_a_clock_that_is_far_ahead_does_nothing(self, full: Archive) -> None:
        before = full.snapshot()
        for verb in ("resign", "publish", "accept", "snapshot", "add-key", "expire"):
            done = self.ahead(full, 3650, verb)
            assert done.returncode == 1, done.stdout
            assert re.search("error: the clock says .* 2036, but the newest known date is 20..-..-..", done.stderr)
            assert "hint: set the clock of this machine; if it is right, set DEBIAN_CLOUD_CLOCK=right" in done.stderr
        assert full.snapshot() == before
        assert "warning: the clock says " in self.ahead(full, 3650, "status").stderr
        assert "warning: the clock says " in self.ahead(full, 3650, "check").stdout
        # An archive that was not used for a while, then other limits in conf/clock.
        assert self.ahead(full, 59, "resign").returncode == 0
        (full.path / "conf/clock").write_text("# days\n5 # of each of us\n")
        assert self.ahead(full, 70, "resign").returncode == 1
        (full.path / "conf/clock").write_text("20\n")
        assert self.ahead(full, 70, "resign").returncode == 0
        (full.path / "conf/clock").write_text("long\n")
        assert "is not a number of days: long" in self.ahead(full, 80, "resign").stderr

    @pytest.mark.thorough
    def test_the_way_back(self, full: Archive, make: Maker, uploader: Key) -> None:
        image = "trixie/ec2/amd64/20261120.0"
        right = {"DEBIAN_CLOUD_CLOCK": "right"}
        before = [path.name for path in (full.public / "snap").iterdir()]
        full.take(make.deb(uploader, "2.0"))
        for verb in ("resign", "publish"):
            assert self.ahead(full, 3650, verb, **right).returncode == 0
        assert self.ahead(full, 3650, "withdraw", image, "--reason", "it is broken", **right).returncode == 0
        serial = field(full.public / "project/trace/master", "Archive serial")
        for verb in ("publish", "resign"):
            refused(full, "was published later than that", verb)
            assert "publish --after-wrong-clock" in full.run(verb, check=False).stderr
        assert "warning: trixie is dated in the future" in full.run("status").stderr
        full.run("status", "--json")
        assert "it is dated in the future" in full.run("check", check=False).stdout
        done = full.run("publish", "--after-wrong-clock")
        assert "moved: snap/20361" in done.stdout
        # All dates of that day are gone; other data stays.
        assert seconds(full.dist / "InRelease", "Date") <= time.time()
        ids = {path.name for path in (full.public / "snap").iterdir()}
        assert {*before} < ids
        assert max(ids) < time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + 60))
        assert field(full.path / "state/images/trixie", "Status-Date") <= time.strftime("%Y-%m-%d", time.gmtime())
        assert field(full.public / "project/trace/master", "Archive serial") > serial
        assert "Version: 2.0" in (full.dist / "main/binary-amd64/Packages").read_text()
        assert all(path.stat().st_mtime <= time.time() for path in full.public.rglob("dists/**/by-hash/SHA256/*"))
        assert check(full) == (0, ["checked: all is as it was signed"])
        for verb in ("resign", "publish", "snapshot"):
            full.run(verb)
        # A second run does no harm.
        full.run("publish", "--after-wrong-clock")
        assert {path.name for path in (full.public / "snap").iterdir()} == ids

    def test_a_key_of_that_day_is_named(self, full: Archive) -> None:
        assert self.ahead(full, 3650, "add-key", DEBIAN_CLOUD_CLOCK="right").returncode == 0
        done = full.run("publish", "--after-wrong-clock")
        assert "cannot sign any more: it has expired, is revoked, or was made with" in done.stderr
        (_, key) = re.findall("(?m)^([0-9A-F]{40}) active", (full.path / "conf/keys").read_text())
        assert key in done.stderr
        full.run("retire-key", key)
        full.run("resign")
        full.run("check")


@pytest.fixture
def aged(short_path: Path, env: dict[str, str]) -> Iterator[Archive]:
    """An archive that was made yesterday."""
    path = Path(tempfile.mkdtemp(dir=short_path)) / "a"
    run([*clock.off_by("-1d"), "debian-cloud-archive", "init", path], env)
    yield Archive(path, env)
    remove(path.parent)


def test_dates_and_signatures_go_back_by_five_minutes_and_no_further(aged: Archive) -> None:
    def times() -> tuple[float, float, float]:
        """The seconds from Date to now, from Date to Valid-Until, and from the signature to now."""
        now, release = time.time(), aged.dist / "InRelease"
        said = aged.key.gpg("--status-fd", "1", "--verify", release)
        stamp = float(re.findall(r"VALIDSIG \w+ \S+ (\d+)", said)[0])
        return now - seconds(release, "Date"), seconds(release, "Valid-Until") - seconds(release, "Date"), now - stamp

    for verb in ("publish", "resign"):
        aged.run(verb)
        behind, term, signed = times()
        assert 295 < behind < 330
        assert 295 < signed < 330
        assert term == 14 * DAY
    last = seconds(aged.dist / "InRelease", "Date")
    aged.run("resign")
    # Date is later than before, even in the same second.
    assert seconds(aged.dist / "InRelease", "Date") > last
    # A key that was just made signs nothing that is dated before it.
    begun = time.time()
    done = aged.run("add-key")
    assert not done.stderr
    behind, term, signed = times()
    assert behind <= time.time() - begun + 1
    assert signed <= time.time() - begun + 1
    assert check(aged)[0] == 0
