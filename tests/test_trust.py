# SPDX-License-Identifier: GPL-3.0-or-later
"""The builder's verification is its own: a host's looser apt does not loosen it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from debian_cloud import sources
from debian_cloud.errors import Error
from tests.command import debian_cloud, refused
from tests.test_bad_input import archive, pristine
from tests.throwaway import Archive

__all__ = ["archive", "pristine"]

LOOSE = """\
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::Min-ValidTime "999999999";
Acquire::Max-FutureTime "999999999";
Acquire::AllowInsecureRepositories "true";
Acquire::AllowWeakRepositories "true";
Acquire::AllowDowngradeToInsecureRepositories "true";
APT::Get::AllowUnauthenticated "true";
"""


@pytest.fixture
def loose(tmp_path: Path) -> str:
    path = tmp_path / "loose.conf"
    path.write_text(LOOSE)
    return str(path)


def test_expiry_holds(archive: Archive, loose: str) -> None:
    text = re.sub("^Valid-Until: .*", "Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC", archive.signed_text(), flags=re.M)
    archive.sign(re.sub("^Date: .*", "Date: Fri, 31 Dec 2021 00:00:00 UTC", text, flags=re.M))
    refused(debian_cloud("show", "fine", *archive.sources, APT_CONFIG=loose), 1, "expired")


def test_a_release_of_the_future_is_refused(archive: Archive, loose: str) -> None:
    text = re.sub("^Date: .*", "Date: Thu, 01 Jan 2099 00:00:00 UTC", archive.signed_text(), flags=re.M)
    archive.sign(re.sub("^Valid-Until: .*", "Valid-Until: Fri, 02 Jan 2099 00:00:00 UTC", text, flags=re.M))
    refused(debian_cloud("show", "fine", *archive.sources, APT_CONFIG=loose), 1, "not valid yet")


def test_an_unsigned_release_is_refused(archive: Archive, loose: str) -> None:
    archive.release.write_text(archive.signed_text())
    archive.release.with_name("Release.gpg").unlink()
    refused(debian_cloud("show", "fine", *archive.sources, APT_CONFIG=loose), 1, "apt-get failed")


def test_a_release_with_a_detached_signature_will_do(archive: Archive) -> None:
    archive.release.unlink()
    done = debian_cloud("show", "fine", *archive.sources)
    assert done.returncode == 0, done.stderr


def test_the_archive_replaces_no_package_of_debian(archive: Archive, tmp_path: Path) -> None:
    tree = tmp_path / "libc6"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: libc6\nVersion: 999\nArchitecture: amd64\nSection: libs\nPriority: optional\n"
        "Maintainer: Nobody <nobody@localhost>\nDescription: not Debian's\n"
    )
    deb = tmp_path / "libc6_999_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, deb], stdout=subprocess.DEVNULL, check=True)
    archive.add(deb)
    done = debian_cloud("build", "fine", *archive.sources, "--output", tmp_path / "out")
    refused(done, 1, "the archive gives libc6 999, which is Debian's package")
    assert not (tmp_path / "out").exists()


def target(uri: str, trusted: str = "yes") -> sources.Target:
    return sources.Target("Images", "", "", "trixie", uri, "/x", trusted)


def test_an_index_of_images_that_apt_has_not_verified_does_not_count() -> None:
    assert sources.verified_images([target("http://a", "no")]) == ()
    with pytest.raises(Error, match="knows no archive"):
        sources.archive([target("http://a", "no")], "trixie")


def test_of_several_archives_none_is_taken_by_chance() -> None:
    with pytest.raises(Error, match=r"knows several archives.*http://a, http://b"):
        sources.archive([target("http://b"), target("http://a")], "trixie")
    assert sources.archive([target("http://a"), target("http://a")], "trixie").uri == "http://a"


def test_an_image_without_security_updates_is_not_made() -> None:
    known = [sources.Target("Packages", "Debian", "Debian", "bookworm", "http://d", "/x", "yes")]
    with pytest.raises(Error, match="no mirror of trixie's security updates is known"):
        sources.debian(known, "trixie")
    assert [s.suites for s in sources.debian(known, "trixie", security_mirror="http://s")] == [
        ("trixie", "trixie-updates"),
        ("trixie-security",),
    ]
    assert [s.suites for s in sources.debian(known, "sid")] == [("sid",)]
