# SPDX-License-Identifier: GPL-3.0-or-later
"""`check` repairs what a crash left, and names or restores what was damaged."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from tests.archive.conftest import SERIAL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.archive.conftest import Archive, Key, Maker

PLACE = f"images/trixie/ec2/amd64/{SERIAL}"
STEM = f"debian-13-ec2-amd64-{SERIAL}"


def check(archive: Archive, *arguments: str) -> tuple[int, list[str]]:
    """The exit status and the lines."""
    done = archive.run("check", *arguments, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_what_is_whole_is_called_so(full: Archive) -> None:
    before = full.snapshot()
    assert check(full) == (0, ["checked: all is as it was signed"])
    assert check(full, "--fast") == (0, ["checked: all is as it was signed"])
    assert full.snapshot() == before


def test_what_was_refused_leaves_nothing_to_mend(archive: Archive, make: Maker, uploader: Key) -> None:
    """A refusal is not an interruption: the verb removes what it began."""
    archive.put(make.image(uploader, record={"Official": "no"}))
    assert "refused: " in archive.run("accept", check=False).stdout
    assert len(list((archive.path / "states").iterdir())) == 1
    for refused in (
        ("promote", "trixie", "forky"),
        ("copy", "trixie", "trixie", "nothing"),
        ("withdraw", "trixie/ec2/amd64/20200101.0", "--reason", "none"),
        ("deprecate", "trixie/ec2/amd64/20200101.0"),
        ("publish", "--partial", "trixie/20200101.0"),
    ):
        done = archive.run(*refused, check=False)
        assert done.returncode in (1, 2), done.stdout
        assert len(list((archive.path / "states").iterdir())) == 1, refused
    assert check(archive) == (0, ["checked: all is as it was signed"])


def test_damage_is_named(full: Archive) -> None:
    deb = next(full.public.glob("pool/main/d/debian-cloud/*demo*.deb"))
    data = deb.read_bytes()
    image = full.public / PLACE
    disk = image / f"{STEM}.qcow2"
    deb.write_bytes(b"x" + data[1:])
    disk.write_bytes(b"x" + disk.read_bytes()[1:])
    for name in f"{STEM}.spdx.json", f"{STEM}.buildinfo":
        (image / name).write_bytes((image / name).read_bytes() + b"\n")
    (image / f"{STEM}.cdx.json").unlink()
    (image / "more").write_text("nobody's")
    status, lines = check(full)
    assert status == 1
    problems = {line.split(": ")[1] for line in lines if line.startswith("problem: ")}
    assert problems == {
        str(deb.relative_to(full.public)),
        *(
            f"{PLACE}/{name}"
            for name in (disk.name, f"{STEM}.spdx.json", f"{STEM}.buildinfo", f"{STEM}.cdx.json", "more")
        ),
    }
    # These have the same size, and --fast compares only sizes.
    deb_and_disk = {str(deb.relative_to(full.public)), f"{PLACE}/{disk.name}"}
    _, fast = check(full, "--fast")
    assert {line.split(": ")[1] for line in fast if line.startswith("problem: ")} == problems - deb_and_disk
    deb.unlink()
    assert any("is missing" in line for line in check(full, "--fast")[1])


def test_a_link_that_leads_elsewhere_is_named(full: Archive) -> None:
    link = full.public / PLACE / f"{STEM.removesuffix('-' + PLACE.rpartition('/')[2])}.qcow2"
    target = str(link.readlink())
    for other in (f"{STEM}.buildinfo", f"../{PLACE.rpartition('/')[2]}/{target}", ""):
        link.unlink()
        if other:
            link.symlink_to(other)
        else:
            link.write_bytes((link.parent / target).read_bytes())
        expected = f"problem: {PLACE}/{link.name}: it is not a link to {target}"
        assert check(full, "--fast") == (1, [expected])
    link.unlink()
    assert check(full) == (1, [f"problem: {PLACE}/{link.name}: it is missing"])


def test_sums_that_were_changed_with_their_file_are_named(full: Archive) -> None:
    image = full.public / PLACE
    buildinfo, sums = image / f"{STEM}.buildinfo", image / "SHA512SUMS"
    old, new = (hashlib.sha512(buildinfo.read_bytes() + more).hexdigest() for more in (b"", b"\n"))
    assert old in sums.read_text()
    buildinfo.write_bytes(buildinfo.read_bytes() + b"\n")
    sums.write_text(sums.read_text().replace(old, new))
    status, lines = check(full)
    assert status == 1
    assert lines == [f"problem: {PLACE}/SHA512SUMS: it is not the file that the archive signed"]


def test_a_package_is_restored_from_what_images_were_made_of(full: Archive) -> None:
    deb = next(full.public.glob("pool/main/d/debian-cloud/*demo*.deb"))
    data = deb.read_bytes()
    name = hashlib.sha256(data).hexdigest()
    kept = full.path / "kept" / name[:2] / name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(data)
    deb.write_bytes(b"x" + data[1:])
    status, lines = check(full)
    assert (status, deb.read_bytes()) == (0, data)
    assert lines[0].startswith(f"repaired: {deb.relative_to(full.public)}: ")


@pytest.mark.parametrize("which", ["name", "hash"])
def test_an_index_is_restored_from_its_other_name(full: Archive, which: str) -> None:
    byname = full.dist / "main/binary-amd64/Packages.xz"
    data = byname.read_bytes()
    byhash = byname.parent / "by-hash/SHA256" / hashlib.sha256(data).hexdigest()
    damaged = byname if which == "name" else byhash
    damaged.unlink()
    damaged.write_bytes(data[:-1])
    status, lines = check(full)
    assert status == 0
    assert lines[0].startswith(f"repaired: {damaged.relative_to(full.public)}: ")
    assert byname.read_bytes() == byhash.read_bytes() == data


def test_an_index_that_is_damaged_in_place_is_named_and_made_anew(full: Archive) -> None:
    index = full.dist / "main/images/Images"
    index.write_bytes(b"x" + index.read_bytes()[1:])  # the file by hash is the same one
    status, lines = check(full)
    assert status == 1
    assert f"problem: {index.relative_to(full.public)}: it is not the index that Release lists; publish" in lines
    full.run("publish")
    # The snapshot had the same file, too, which is lost.
    assert {line.split("/")[0] for line in check(full)[1]} <= {"problem: snap"}


def test_what_a_crash_left_is_set_aside(full: Archive) -> None:
    before = full.snapshot()
    shutil.copytree(full.public / PLACE, full.public / PLACE.replace(SERIAL, "20991231.0"))
    orphan = full.public / "pool/main/d/debian-cloud/left_1_all.deb"
    orphan.write_text("half of one")
    shutil.copytree(full.path / "state", full.path / "states/99")
    status, lines = check(full)
    assert status == 0
    assert len([line for line in lines if line.startswith("repaired: ")]) == 3
    assert full.snapshot() == before
    assert (full.path / "lost/pool/main/d/debian-cloud/left_1_all.deb").read_text() == "half of one"
    assert (full.path / "lost" / PLACE.replace(SERIAL, "20991231.0")).is_dir()
    assert check(full) == (0, ["checked: all is as it was signed"])


def redated(archive: Archive, **dates: str) -> None:
    """Make the archive sign and publish its Release with another date."""
    release = archive.dist / "Release"
    text = release.read_text()
    for field, value in dates.items():
        text = re.sub(
            f"^{field.replace('_', '-')}: .*", f"{field.replace('_', '-')}: {value}", text, flags=re.MULTILINE
        )
    release.write_text(text)
    (archive.path / "signed/dists/trixie/Release").write_text(text)
    archive.key.gpg("--yes", "--clearsign", "--output", str(archive.dist / "InRelease"), str(release))
    archive.key.gpg("--yes", "--armor", "--output", f"{release}.gpg", "--detach-sign", str(release))


def test_expiry_is_warned_of_and_then_named(full: Archive) -> None:
    redated(full, Valid_Until="Fri, 01 Jan 2100 00:00:00 UTC")
    assert check(full)[0] == 0
    then = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(time.time() + 2 * 86400))
    redated(full, Valid_Until=then)
    status, lines = check(full)
    assert (status, lines[0]) == (0, f"warning: dists/trixie/InRelease expires on {then}: resign")
    redated(full, Date="Thu, 01 Jan 2026 00:00:00 UTC", Valid_Until="Fri, 02 Jan 2026 00:00:00 UTC")
    status, lines = check(full)
    assert status == 1
    assert "problem: dists/trixie/InRelease: it expired on Fri, 02 Jan 2026 00:00:00 UTC; resign" in lines
    full.run("resign")
    assert check(full) == (0, ["checked: all is as it was signed"])


def test_a_clock_that_was_set_back_stops_what_clients_would_not_take(full: Archive) -> None:
    redated(full, Date="Fri, 01 Jan 2100 00:00:00 UTC", Valid_Until="Fri, 15 Jan 2100 00:00:00 UTC")
    before = full.snapshot()
    for verb in "publish", "resign":
        done = full.run(verb, check=False)
        assert done.returncode == 1
        assert "was published later than that" in done.stderr
        assert "clock" in done.stderr
    assert full.snapshot() == before
    assert any("dated in the future" in line for line in check(full)[1])


def test_a_key_that_expires_soon_is_warned_of(full: Archive) -> None:
    fingerprint = full.key.gpg("--with-colons", "--list-keys").split("fpr:::::::::")[1].split(":")[0]
    full.key.gpg("--passphrase", "", "--pinentry-mode", "loopback", "--quick-set-expire", fingerprint, "20d")
    status, lines = check(full)
    assert status == 0
    assert any(line.startswith("warning: the key ") and "expires on" in line for line in lines)


def test_wrong_use(archive: Archive, tmp_path: Path) -> None:
    assert archive.run("check", "--fats", check=False).returncode == 2
    assert archive.run("check", str(tmp_path), check=False).returncode == 2
