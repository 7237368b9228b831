# SPDX-License-Identifier: GPL-3.0-or-later
"""What a .buildinfo must contain before an archive accepts its image."""

from __future__ import annotations

from dataclasses import replace

import pytest

from debian_cloud.archive import admission
from debian_cloud.errors import Error
from debian_cloud.host.checksums import Digest
from debian_cloud.image.buildinfo import Buildinfo, Draft
from debian_cloud.image.resolution import Package, ReleaseFile
from debian_cloud.image.sources import Source
from tests.samples import DEBIAN, RESOLUTION

NOW = 1795300000
KEY = "D" * 40
OURS = Package("debian-cloud-config-ec2", "0.1.0", "amd64", 4180, "1" * 64)
KEYRING = Package("debian-cloud-archive-keyring", "13+2026.11.28", "all", 2816, "2" * 64)


def kept() -> Buildinfo:
    """What a build writes."""
    resolution = replace(RESOLUTION, packages=(*RESOLUTION.packages, OURS, KEYRING))
    known = Draft.parse(Draft.of(resolution, "20261120.0", ("qcow2",), DEBIAN, "1" * 64).render())
    digests = {f"{known.buildinfo.stem}.qcow2": Digest(1, {"sha256": "a" * 64})}
    return Buildinfo.parse(known.buildinfo.sealed(digests).render(()), "x")


def source(uri: str, *suites: str, expired: bool = False) -> Source:
    return Source(uri, suites, "", expired=expired)


def release(uri: str = "http://debian.example/debian", **fields: object) -> ReleaseFile:
    return replace(ReleaseFile(uri, "trixie", 140000, "e" * 64, (KEY,)), **fields)


FIRST, SECOND = kept().sources
PACKAGE = kept().packages[0]
WRONG: dict[str, tuple[dict[str, object], str]] = {
    "no day": ({"epoch": 0}, "not in the past"),
    "a day to come": ({"epoch": 10**17}, "not in the past"),
    "four thousand packages, and a tool": ({"packages": (PACKAGE,) * 4000}, "4001 packages"),
    "no package": ({"packages": ()}, "no package"),
    "a package twice": ({"packages": (PACKAGE, replace(PACKAGE, version="1"))}, "the package base-files twice"),
    "a tool that is in the image": ({"tools": (PACKAGE,)}, "twice"),
    "a package of nothing": ({"packages": (replace(PACKAGE, size=0),)}, "with 0 bytes"),
    "a package without an end": ({"packages": (replace(PACKAGE, size=10**18),)}, "packages of more than"),
    "less than nothing": ({"packages": (replace(PACKAGE, size=-1),)}, "with -1 bytes"),
    "a path": ({"packages": (replace(PACKAGE, name="../../etc/passwd"),)}, "not a valid name"),
    "an escape": ({"packages": (replace(PACKAGE, name="x\x1b[2J"),)}, r"x\x1b[2J, which is not a valid name"),
    **{
        f"the version {version[:9]}": ({"packages": (replace(PACKAGE, version=version),)}, "not a valid version")
        for version in ("1/2", "~", "-1", ":::", "1:", "a:1", "1:2:3", "1" * 101)
    },
    "another machine's": ({"packages": (replace(PACKAGE, architecture="arm64"),)}, "but is for amd64"),
    "no release file": ({"releases": ()}, "0 release files"),
    "many release files": ({"releases": (release(),) * 17}, "17 release files"),
    "another suite": ({"releases": (release(suite="sid"),)}, "but is for trixie"),
    "a password": ({"releases": (release("https://me:secret@d.example/"),)}, "not a plain address"),
    "no key": ({"releases": (release(signers=("\x1b[2J",)),)}, "which is not a key"),
    "many keys": ({"releases": (release(signers=(KEY,) * 17),)}, "17 signers"),
    "a release file without an end": ({"releases": (release(size=10**18),)}, "1000000000000000000 bytes"),
    "no sources": ({"sources": ()}, "not Debian's for trixie"),
    "no security": ({"sources": (FIRST,)}, "not Debian's for trixie"),
    "one more": ({"sources": (FIRST, SECOND, source("http://evil.example", "trixie"))}, "not Debian's for trixie"),
    "sid besides": ({"sources": (replace(FIRST, suites=(*FIRST.suites, "sid")), SECOND)}, "not Debian's for trixie"),
    "expired": ({"sources": (FIRST, replace(SECOND, expired=True))}, "after they have expired"),
    **{
        f"source {uri}": ({"sources": (FIRST, source(uri, "trixie-security"))}, "not a plain address of a mirror")
        for uri in (
            "http://",
            "http://[",
            "http://me@d.example/",
            "http://me:secret@d.example/debian",
            "http://d.example/debian?x",
            "http://d.example/debian#x",
            "ftp://d.example/debian",
            "file:/srv/debian",
            "cdrom:[x]/",
            "[trusted=yes]",
            "http://d.example/\x1b",
            "http://d.example/\udcff",
            f"http://d.example/{'x' * 400}",
            "",
        )
    },
    "a serial of the future": (
        {"id": replace(kept().id, serial="20361121.0")},
        "the serial 20361121.0, whose day is in the future",
    ),
    "no plan": ({"plan": "x"}, "not a plan's id"),
    "a builder of many words": ({"builder": "x" * 500}, "the line x"),
    "a change with an escape": ({"changes": ("add \x1b[2J",)}, r"the line add \x1b[2J"),
}


@pytest.mark.parametrize("attack", WRONG)
def test_what_no_build_writes_is_refused(attack: str) -> None:
    fields, said = WRONG[attack]
    admission.check(kept(), NOW, expired=False)
    with pytest.raises(Error) as refused:
        admission.check(replace(kept(), **fields), NOW, expired=False)
    assert said in refused.value.message
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 600
    assert refused.value.hint


@pytest.mark.parametrize(
    "uri",
    ["https://deb.example:8080/debian/", "mirror+https://m.example/list", "http://[::1]/debian", "http://10.0.0.1"],
)
def test_any_mirror_of_debian_s_will_do(uri: str) -> None:
    sources = (source(uri, "trixie", "trixie-updates"), source(uri, "trixie-security"))
    admission.check(replace(kept(), sources=sources), NOW, expired=False)


def test_expired_indexes_are_for_those_who_say_so() -> None:
    admission.check(replace(kept(), sources=(FIRST, replace(SECOND, expired=True))), NOW, expired=True)


def test_what_the_archive_has_can_be_kept() -> None:
    admission.check_kept(kept(), {OURS, KEYRING}, {KEY})


@pytest.mark.parametrize(
    ("known", "keys", "said"),
    [
        ({OURS}, {KEY}, "debian-cloud-archive-keyring 13+2026.11.28, which this archive does not list: it has none"),
        ({OURS, replace(KEYRING, version="13+2026.11.27")}, {KEY}, "it has 13+2026.11.27"),
        ({replace(OURS, sha256="3" * 64), KEYRING}, {KEY}, "it has 0.1.0 with other bytes"),
        ({replace(OURS, architecture="arm64"), KEYRING}, {KEY}, "does not list"),
        ({OURS, KEYRING}, {"E" * 40}, "names no release file of this archive"),
        ({OURS, KEYRING}, set(), "names no release file of this archive"),
    ],
    ids=["a stranger", "older", "other bytes", "another machine's", "another key", "no key"],
)
def test_what_the_archive_never_had_is_refused(known: set[Package], keys: set[str], said: str) -> None:
    with pytest.raises(Error, match=r"\bthis archive\b") as refused:
        admission.check_kept(kept(), known, keys)
    assert said in refused.value.message
    assert refused.value.hint


def test_an_image_names_its_own_configuration() -> None:
    with pytest.raises(Error, match=r"does not list the package debian-cloud-config-ec2 0\.1\.0"):
        admission.check_kept(replace(kept(), packages=(KEYRING,)), {OURS, KEYRING}, {KEY})


def test_what_reprepro_lists_is_read() -> None:
    line = f"debian-cloud-config-ec2 0.1.0 amd64 4180 {'1' * 64}"
    source_package = "debian-cloud 0.2.0   "
    assert [*admission.known([line, source_package, ""])] == [OURS]
