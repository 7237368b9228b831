# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock pins every package by version and SHA-256, and nothing falls open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud import build, lock, metadata, names, plan
from debian_cloud.checksums import Digest
from debian_cloud.errors import Error
from debian_cloud.resolution import Package
from tests import throwaway
from tests.command import debian_cloud, refused
from tests.test_plan import ARCHIVE, DEBIAN, RESOLUTION, SERIAL
from tests.throwaway import FINE, Archive, configuration

DIGEST = Digest(1, {"sha256": "a" * 64})


def described() -> str:
    """A .buildinfo."""
    known = metadata.parse_facts(metadata.facts(RESOLUTION, SERIAL, ("raw", "qcow2"), DEBIAN, "1" * 64))
    return metadata.buildinfo(known, {f"{known.stem}.{name}": DIGEST for name in known.formats}, ("apt (= 1)",))


def test_what_a_buildinfo_says_is_read_back() -> None:
    found = lock.parse(described(), "x.buildinfo")
    assert found.packages == RESOLUTION.packages
    assert found.tools == RESOLUTION.tools
    assert found.releases == RESOLUTION.releases
    assert [(source.uri, source.suites) for source in found.sources] == [(s.uri, s.suites) for s in DEBIAN]
    assert (found.config, found.suite, found.serial, found.epoch) == ("ec2", "trixie", SERIAL, RESOLUTION.epoch)
    assert found.formats == ("qcow2", "raw")
    assert found.plan == "1" * 64
    assert found.changes == ()
    found.check(RESOLUTION)


def test_the_image_s_sources_are_read_back_with_their_option() -> None:
    """Else an image that takes expired indexes would be made again as one that does not."""
    of_image = (replace(DEBIAN[0], expired=True), DEBIAN[1])
    facts = metadata.facts(RESOLUTION, SERIAL, ("raw",), of_image, "1" * 64)
    known = metadata.parse_facts(facts)
    found = lock.parse(metadata.buildinfo(known, {f"{known.stem}.raw": DIGEST}, ()), "x")
    assert [source.expired for source in found.sources] == [True, False]
    first, again = (build.plan(RESOLUTION, SERIAL, ("raw",), of_image, ARCHIVE, s) for s in ((), found.sources))
    written = "set the image's sources"
    (one,), (other,) = (
        [s.stdin for s in p if s.title == written and isinstance(s, plan.Run)] for p in (first, again)
    )
    assert isinstance(one, str)
    assert "Check-Valid-Until: no" in one
    assert one.replace("/debian.gpg", names.DEBIAN_KEYRING) == other


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        ("^Image-Sources:\n .*", "Image-Sources:\n [check-valid-until=no]"),
        ("^Packages-Sha256:(\n .*)*\n", ""),
        ("(?<=^ )f{64} ", "zz "),
        ("^Version: .*", "Version: ../../x"),
        ("^Image-Suite: .*", "Image-Suite: a/b"),
        ("^Environment:\n .*", "Environment:\n X=1"),
        ("raw$", "iso"),
        ("^Image-Releases:\n .*", "Image-Releases:\n x y"),
        ("(?s)^.*", "hello"),
        ("(?s)^.*", ""),
    ],
)
def test_a_damaged_buildinfo_is_no_lock(pattern: str, by: str) -> None:
    text = re.sub(pattern, by, described(), count=1, flags=re.M)
    assert text != described()
    with pytest.raises(Error):
        lock.parse(text, "x.buildinfo")


@pytest.mark.parametrize("change", ["version", "sha256", "size", "more", "less"])
def test_what_is_not_locked_is_refused(change: str) -> None:
    first, second = RESOLUTION.packages
    got = {
        "version": (replace(first, version="13.7"), second),
        "sha256": (replace(first, sha256="0" * 64), second),
        "size": (replace(first, size=1), second),
        "more": (first, second, Package("nano", "1", "amd64", 1, "0" * 64)),
        "less": (first,),
    }[change]
    with pytest.raises(Error, match=r"is not what the lock has:\n  (not|only) in the lock: "):
        lock.parse(described(), "x").check(replace(RESOLUTION, packages=got))


def test_the_build_s_apt_gets_the_lock_too() -> None:
    pins = lock.parse(described(), "x").preferences
    steps = build.plan(replace(RESOLUTION, pins=pins), SERIAL, ("raw",), DEBIAN, ARCHIVE)
    assert [s.text for s in steps if isinstance(s, plan.Write) and s.path == "preferences"] == [pins]
    assert "Package: *\nPin: release *\nPin-Priority: -1\n" in pins
    assert "Package: login\nPin: version 1:4.16.0-2\nPin-Priority: 1001\n" in pins


# With real apt.


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with throwaway.folder() as top:
        yield throwaway.archive(top, configuration(top / "debs", "fine", FINE, depends="nano"))


@pytest.fixture(scope="module")
def buildinfo(archive: Archive) -> str:
    """What a build of `fine` would write down, without the build."""
    done = debian_cloud("plan", "fine", *archive.sources)
    assert done.returncode == 0, done.stderr
    facts = re.search("> facts <<'END'\n(.*?)\nEND", done.stdout, re.S)
    assert facts is not None
    known = metadata.parse_facts(facts[1])
    return metadata.buildinfo(known, {f"{known.stem}.{name}": DIGEST for name in known.formats}, ())


def locked(archive: Archive, path: Path, text: str, *more: str) -> tuple[int, str, str]:
    path.write_text(text)
    done = debian_cloud("plan", "fine", "--lock", path, *archive.sources, *more)
    if done.returncode:
        refused(done, done.returncode)
    return done.returncode, done.stdout, done.stderr


def test_the_buildinfo_names_who_signed_what(archive: Archive, buildinfo: str) -> None:
    found = lock.parse(buildinfo, "x")
    suites = [release.suite for release in found.releases]
    assert suites == ["trixie", "trixie-updates", "trixie-security", "trixie"]
    assert all(re.fullmatch("[0-9A-F]{40}", key) for release in found.releases for key in release.signers)
    assert found.releases[-1].uri == f"file:{archive.public}"
    (key,) = found.releases[-1].signers
    assert key in throwaway.fingerprints(archive)
    assert found.releases[-1].size == archive.release.stat().st_size


def test_the_same_again(archive: Archive, buildinfo: str, tmp_path: Path) -> None:
    status, script, said = locked(archive, tmp_path / "x.buildinfo", buildinfo)
    assert (status, said) == (0, "")
    assert "Package: *\nPin: release *\nPin-Priority: -1\n" in script
    # Its day and its serial are the lock's.
    earlier = re.sub('(?<=SOURCE_DATE_EPOCH=")[0-9]+', "1700000000", buildinfo)
    earlier = re.sub("(?<=^Version: ).*", "20231114.7", earlier, flags=re.M)
    earlier = earlier.replace(lock.parse(buildinfo, "x").stem, lock.parse(buildinfo, "x").stem[:-10] + "20231114.7")
    _, script, _ = locked(archive, tmp_path / "x.buildinfo", earlier)
    assert "Builds debian-13-fine-amd64-20231114.7:" in script
    assert "SOURCE_DATE_EPOCH=1700000000" in script


@pytest.mark.parametrize(
    ("pattern", "by", "said"),
    [
        ("^ [0-9a-f]{64} [0-9]+ nano .*\n", "", "nano"),
        ("^ [0-9a-f]{64}( [0-9]+ nano )", f" {'0' * 64}\\1", "only in the lock: nano"),
        ("( nano )[^ ]+", "\\g<1>0.1-1", "no source has nano 0.1-1, which the lock names"),
    ],
)
def test_what_the_lock_does_not_have_is_not_taken(
    archive: Archive, buildinfo: str, tmp_path: Path, pattern: str, by: str, said: str
) -> None:
    start = buildinfo.index("Packages-Sha256:")
    changed = buildinfo[:start] + re.sub(pattern, by, buildinfo[start:], count=1, flags=re.M)
    assert changed != buildinfo
    status, script, error = locked(archive, tmp_path / "x.buildinfo", changed)
    assert (status, script) == (1, "")
    assert said in error


def test_a_changed_image_is_not_the_locked_one(archive: Archive, buildinfo: str, tmp_path: Path) -> None:
    status, _, error = locked(archive, tmp_path / "x.buildinfo", buildinfo, "--hostname", "x")
    assert status == 2
    assert "the lock is of an image with no change" in error
