# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock pins every package by version and SHA-256, and anything that it cannot pin is refused."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud import names, plan
from debian_cloud.build import steps as build_steps
from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.image import lock
from debian_cloud.image.buildinfo import Buildinfo, Draft
from debian_cloud.image.entries import FILE, Entry
from debian_cloud.image.resolution import Package
from debian_cloud.packages import evidence
from debian_cloud.packages.described import of
from debian_cloud.proof import verification
from tests import throwaway
from tests.command import debian_cloud, refused
from tests.samples import ARCHIVE, CONFIG, DEBIAN, DIGEST, RESOLUTION, SERIAL, described
from tests.throwaway import FINE, Archive, configuration


def test_what_a_buildinfo_says_is_read_back() -> None:
    found = Buildinfo.parse(described(), "x.buildinfo")
    assert found.packages == RESOLUTION.packages
    assert found.tools == RESOLUTION.tools
    assert found.releases == RESOLUTION.releases
    assert [(source.uri, source.suites) for source in found.sources] == [(s.uri, s.suites) for s in DEBIAN]
    assert (found.id, found.epoch) == (CONFIG.image(SERIAL), RESOLUTION.epoch)
    assert found.formats == ("qcow2", "raw")
    assert found.plan == "1" * 64
    assert found.changes == ()
    lock.check(found, RESOLUTION)


def test_the_image_s_sources_are_read_back_with_their_option() -> None:
    """Without the option, an image that accepts expired indexes would be rebuilt as one that does not."""
    of_image = (replace(DEBIAN[0], expired=True), DEBIAN[1])
    known = Draft.parse(Draft.of(RESOLUTION, SERIAL, ("raw",), of_image, "1" * 64).render()).buildinfo
    found = Buildinfo.parse(known.sealed({known.id.file("raw"): DIGEST}).render(()), "x")
    assert found.sources == known.sources
    assert [source.expired for source in found.sources] == [True, False]
    first, again = (build_steps.plan(RESOLUTION, SERIAL, ("raw",), of_image, ARCHIVE, s) for s in ((), found.sources))
    written = "set the image's sources"
    (one,), (other,) = (
        [s.stdin for s in p if s.title == written and isinstance(s, plan.Run)] for p in (first, again)
    )
    assert isinstance(one, str)
    assert "Check-Valid-Until: no" in one
    assert one.replace("/debian.gpg", names.DEBIAN_KEYRING) == other


def test_a_draft_is_what_a_buildinfo_will_say_without_files() -> None:
    draft = Draft.of(RESOLUTION, SERIAL, ("raw", "qcow2"), DEBIAN, "1" * 64)
    read = Draft.parse(draft.render())
    assert read.render() == draft.render()
    assert (read.buildinfo.digests, read.buildinfo.formats) == ({}, ())
    found = Buildinfo.parse(described(), "x")
    assert replace(found, digests={}) == read.buildinfo
    assert found.render(("apt (= 1)",)) == described()


def test_a_draft_keeps_what_the_machine_s_apt_asks() -> None:
    """A build may use Tor for Debian; since others cannot use such an address, a reader refuses it."""
    tor = replace(DEBIAN[0], uri="tor+https://debian.example/debian")
    draft = Draft.parse(Draft.of(RESOLUTION, SERIAL, ("raw",), (tor, DEBIAN[1]), "1" * 64).render())
    assert draft.buildinfo.sources[0].uri == tor.uri
    sealed = draft.buildinfo.sealed({draft.buildinfo.id.file("raw"): DIGEST}).render(())
    assert f"Image-Sources:\n {tor.uri} trixie" in sealed
    with pytest.raises(Error, match="is not a URI that apt accepts"):
        Buildinfo.parse(sealed, "x")


@pytest.mark.parametrize("change", ["", "Epoch: x", "Serial: ../x", "Plan: 1", "Formats", "two"])
def test_a_damaged_draft_is_not_sealed(change: str) -> None:
    text = Draft.of(RESOLUTION, SERIAL, ("raw",), DEBIAN, "1" * 64).render()
    if change == "two":
        damaged = f"{text}\n{text}"
    elif change:
        damaged = re.sub(f"(?m)^{change.partition(':')[0]}: .*\n", f"{change}\n" if ":" in change else "", text)
    else:
        damaged = ""
    assert damaged != text
    with pytest.raises(Error, match="the file facts does not have the form that a plan writes") as refused:
        Draft.parse(damaged)
    assert refused.value.status == 1


DAMAGES = {
    "a source without suites": ("^Image-Sources:\n .*", "Image-Sources:\n http://d.example/debian"),
    "an option alone": ("^Image-Sources:\n .*", "Image-Sources:\n [check-valid-until=no]"),
    "another option": ("^Image-Sources:\n ", "Image-Sources:\n [trusted=yes] "),
    "no source": ("^Image-Sources:\n .*\n .*", "Image-Sources:"),
    "an open bracket": ("^Image-Sources:\n [^ ]+", "Image-Sources:\n http://["),
    "a port that is none": ("^Image-Sources:\n [^ ]+", "Image-Sources:\n http://d.example:port/"),
    "another method": ("^Image-Sources:\n [^ ]+", "Image-Sources:\n cdrom:/x"),
    "a program": ("^Image-Sources:\n [^ ]+", "Image-Sources:\n store:/x"),
    "blanks between": ("^Image-Sources:\n ([^ ]+) ", "Image-Sources:\n \\1  "),
    "no packages": ("^Packages-Sha256:(\n .*)*\n", ""),
    "a list of none": ("^Packages-Sha256:(\n .*)*\n", "Packages-Sha256:\n"),
    "a package twice": ("(?<=^Packages-Sha256:)(\n .*)", r"\1\1"),
    "a pattern for a name": ("(?<= )login 1:", "* 1:"),
    "a path in a version": ("(?<= login )1:4.16.0-2", "1:4/../../x"),
    "a path in an architecture": ("(?<= login 1:4.16.0-2 )amd64", "../amd64"),
    "no hash": ("(?<=^ )f{64} ", "zz "),
    "a size with a sign": ("(?<=^ f{64} )[0-9]+", "-1"),
    "a size with a blank digit": ("(?<=^ f{64} )[0-9]+", "\N{FULLWIDTH DIGIT ONE}"),
    "a size of an underscore": ("(?<=^ f{64} )[0-9]+", "1_0"),
    "a size of 2^51": ("(?<=^ f{64} )[0-9]+", str(2**51)),
    "a size of 5000 digits": ("(?<=^ f{64} )[0-9]+", "9" * 5000),
    "a serial that leads elsewhere": ("^Version: .*", "Version: ../../x"),
    "a day that is none": ("^Version: .*", "Version: 20261399.0"),
    "a suite that leads elsewhere": ("^Image-Suite: .*", "Image-Suite: a/b"),
    "no day": ("^Environment:\n .*", "Environment:\n X=1"),
    "two days": ("^Environment:\n (.*)", "Environment:\n \\1\n \\1"),
    "a day of 10^17": ("(?<=SOURCE_DATE_EPOCH=.)[0-9]+", str(10**17)),
    "a day of 1970": ("(?<=SOURCE_DATE_EPOCH=.)[0-9]+", "1"),
    "a day before all days": ("(?<=SOURCE_DATE_EPOCH=.)[0-9]+", "-1"),
    "another format": ("raw$", "iso"),
    "another image's file": ("debian-13-ec2-amd64-[0-9.]+.raw", "raw"),
    "no file at all": ("^Checksums-Sha256:(\n .*)*\nChecksums-Sha256-Blocks:(\n .*)*\n", ""),
    "a disk whose bytes are hashed by blocks": ("^Checksums-Sha256:", "Checksums-Sha256-Blocks:"),
    "a raw disk whose bytes are all hashed": ("\nChecksums-Sha256-Blocks:", ""),
    "two digests of a file": (
        "^(Checksums-Sha256-Blocks:\n .*\n)",
        "\\1 " + "b" * 64 + " 1 debian-13-ec2-amd64-20261121.0.raw\n",
    ),
    "a release file of two words": ("^Image-Releases:\n .*", "Image-Releases:\n x y"),
    "a key that is none": ("(?<= )[0-9A-F,]{40,}$", "x"),
    "an option of the shell": ("^Image-Builder: .*", "Image-Builder: debian-cloud $(id)"),
    "a change of two lines": ("^Image-Builder", "Image-Changes:\n add a\n,b\nImage-Builder"),
    "a change that is none": ("^Image-Builder", "Image-Changes:\n hook x\nImage-Builder"),
    "a comment": ("^Image-Builder", "# x\nImage-Builder"),
    "a field twice": ("^Image-Builder", "Image-Suite: sid\nImage-Builder"),
    "two stanzas": ("^Image-Builder", "\nImage-Builder"),
    "a stanza after": (r"\Z", "\nName: x\n"),
    "a line separator": ("^Image-Builder: ", "Image-Builder: \u2028"),
    "a word": ("(?s)^.*", "hello"),
    "nothing": ("(?s)^.*", ""),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_buildinfo_is_no_lock(how: str) -> None:
    pattern, by = DAMAGES[how]
    text = re.sub(pattern, by, described(), count=1, flags=re.M)
    assert text != described()
    with pytest.raises(Error, match=r"^x\.buildinfo is not the \.buildinfo of an image: ") as caught:
        Buildinfo.parse(text, "x.buildinfo")
    assert len(caught.value.message) < 600
    assert caught.value.message.isprintable()


def test_whatever_a_buildinfo_says_ends_in_a_sentence() -> None:
    """Parts are changed, doubled or removed at random, with a fixed seed and number of runs."""
    chance = random.Random(12)
    genuine = described().encode()
    pieces = (b"", b"\n", b" ", b":", b"\n\n", b"-----", b"http://[", b"9" * 30, b"\xc2\x85", b"\xff", b"\0", b"\r")
    read = 0
    for _ in range(400):
        data = bytearray(genuine)
        for _ in range(chance.randrange(1, 4)):
            start = chance.randrange(len(data))
            end = min(len(data), start + chance.choice((0, 1, 1, 8, 80)))
            data[start:end] = chance.choice((*pieces, bytes(data[start:end]) * 2, chance.randbytes(2)))
        try:
            Buildinfo.parse(sign.decoded(bytes(data), "x"), "x")
            read += 1
        except Error:
            pass
    # Changes in fields that are not read here are accepted.
    assert 0 < read < 200


def test_a_day_that_has_not_come_is_none_yet(tmp_path: Path) -> None:
    path = tmp_path / "x.buildinfo"
    path.write_text(re.sub("(?<=SOURCE_DATE_EPOCH=.)[0-9]+", str(int(time.time()) + 3 * 86400), described()))
    with pytest.raises(Error, match="has a date in the future"):
        of(path)


@pytest.mark.parametrize(
    "uri",
    [
        "http://debian.org.evil.example/debian",
        "http://evil.example/any.debian.org/debian",
        "http://x@any.debian.org/debian",
        "http://evil.example#.debian.org/debian",
        "http://evil.example?.debian.org/debian",
        "http://evil.example\\.debian.org/debian",
        "http://any.debian.org:8080/debian",
        "http://people.debian.org/~x/debian",
        "http://any.debian.org/debian?x",
        "http://any.debian.org/debian/../x",
        "ftp://any.debian.org/debian",
        "file:/debian",
        "mirror+http://any.debian.org/debian",
        "http://evildebian.org/debian",
    ],
)
def test_what_only_looks_like_debian_is_not_debian(uri: str) -> None:
    kept = Buildinfo.parse(described(), "x")
    both = tuple(replace(source, uri=uri) for source in kept.sources)
    with pytest.raises(Error, match=r"which is not a known mirror of Debian"):
        evidence.refuse_sources(replace(kept, sources=both), ())


def test_debian_is_where_it_is_known_to_be() -> None:
    kept = Buildinfo.parse(described(), "x")
    main, security = kept.sources
    evidence.refuse_sources(kept, (main.uri + "/", security.uri))
    with pytest.raises(Error, match=f"uses {security.uri}, which is not a known mirror"):
        evidence.refuse_sources(kept, (main.uri,))
    known = (
        replace(main, uri="https://ftp.xy.debian.org/debian/"),
        replace(security, uri="http://any.debian.org/debian-security"),
    )
    evidence.refuse_sources(replace(kept, sources=known), ())
    with pytest.raises(Error, match="after their Valid-Until"):
        evidence.refuse_sources(replace(kept, sources=(replace(known[0], expired=True), known[1])), ())
    evidence.refuse_sources(replace(kept, sources=(replace(known[0], expired=True), known[1])), (), expired=True)
    sid = replace(kept, id=replace(kept.id, suite="sid"), sources=(replace(known[0], suites=("sid",)),))
    evidence.refuse_sources(sid, ())
    for wrong in (
        (known[0],),
        (known[1], known[0]),
        (*known, known[0]),
        (replace(known[0], suites=("trixie",)), known[1]),
    ):
        with pytest.raises(Error, match="the image's apt uses"):
            evidence.refuse_sources(replace(kept, sources=wrong), ())


def test_the_host_name_that_was_asked_for_is_explained() -> None:
    entry = Entry("etc/hostname", FILE, 0o644, 0, 0, 1, 4, "a" * 64)
    (verdict,) = verification.verify([entry], {}, [entry])
    assert verdict == verification.Explained(
        "etc/hostname", FILE, generator="builder: the host name that was asked for"
    )
    other = replace(entry, sha256="b" * 64)
    (verdict,) = verification.verify([other], {}, [entry])
    assert isinstance(verdict, verification.Unexplained)


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
    with pytest.raises(Error, match=r"than the lock lists:\n  (not|only) in the lock: "):
        lock.check(Buildinfo.parse(described(), "x"), replace(RESOLUTION, packages=got))


def test_apt_may_take_only_the_lock_s_versions() -> None:
    pins = lock.preferences(Buildinfo.parse(described(), "x"))
    assert "Package: *\nPin: release *\nPin-Priority: -1\n" in pins
    assert "Package: login\nPin: version 1:4.16.0-2\nPin-Priority: 1001\n" in pins


# With real apt.


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with throwaway.folder() as top:
        yield throwaway.archive(top, configuration(top / "debs", "fine", FINE, depends="nano"))


@pytest.fixture(scope="module")
def buildinfo(archive: Archive) -> str:
    """The .buildinfo of `fine`, without building it."""
    done = debian_cloud("plan", "fine", *archive.sources)
    assert done.returncode == 0, done.stderr
    facts = re.search("> facts <<'END'\n(.*?)\nEND", done.stdout, re.S)
    assert facts is not None
    known = Draft.parse(facts[1])
    digests = {known.buildinfo.id.file(name): DIGEST for name in known.formats}
    return known.buildinfo.sealed(digests).render(())


def locked(archive: Archive, path: Path, text: str, *more: str) -> tuple[int, str, str]:
    path.write_text(text)
    done = debian_cloud("plan", "fine", "--lock", path, *archive.sources, *more)
    if done.returncode:
        refused(done, done.returncode)
    return done.returncode, done.stdout, done.stderr


def test_the_buildinfo_names_who_signed_what(archive: Archive, buildinfo: str) -> None:
    found = Buildinfo.parse(buildinfo, "x")
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
    assert {name for name, _ in re.findall(r"^[0-9a-f]{64} [0-9]+ ([^_ ]+)_(\S+)\.deb ", script, re.M)} >= {
        "nano",
        "dpkg",
    }
    # The day and serial are the lock's.
    earlier = re.sub('(?<=SOURCE_DATE_EPOCH=")[0-9]+', "1700000000", buildinfo)
    earlier = re.sub("(?<=^Version: ).*", "20231114.7", earlier, flags=re.M)
    earlier = earlier.replace(
        Buildinfo.parse(buildinfo, "x").stem, Buildinfo.parse(buildinfo, "x").stem[:-10] + "20231114.7"
    )
    _, script, _ = locked(archive, tmp_path / "x.buildinfo", earlier)
    assert "Builds debian-13-fine-amd64-20231114.7:" in script
    assert "SOURCE_DATE_EPOCH=1700000000" in script


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("pattern", "by", "said"),
    [
        ("^ [0-9a-f]{64} [0-9]+ nano .*\n", "", "nano"),
        ("^ [0-9a-f]{64}( [0-9]+ nano )", f" {'0' * 64}\\1", "only in the lock: nano"),
        ("( nano )[^ ]+", "\\g<1>0.1-1", "no source has nano 0.1-1, which the lock lists"),
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
    assert "the lock describes an image with no change" in error
