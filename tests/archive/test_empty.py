# SPDX-License-Identifier: GPL-3.0-or-later
"""apt, `list --images` and `fetch` work with an archive that has no published image."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud.errors import USAGE, Error
from debian_cloud.image import index, sources, staleness
from debian_cloud.packages import origin
from tests.archive.clients import Apt, machine, serving
from tests.archive.conftest import run

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker


@pytest.fixture
def archive(new_archive: Archive) -> Archive:
    """An archive whose address debian-cloud has not read before."""
    return new_archive


def machine_of(archive: Archive, folder: Path, env: dict[str, str]) -> Apt:
    """Make a machine with the archive's keyring package, as apt sees it."""
    apt = machine(folder, env)
    apt.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    return apt


def updated(apt: Apt) -> None:
    """Assert that `apt-get update` succeeds without a warning, and keeps no empty list."""
    done = apt.get("update")
    assert done.returncode == 0, done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith(("W:", "E:"))], done.stdout
    lists = [path for path in (apt.root / "var/lib/apt/lists").glob("*_*") if path.stat().st_size == 0]
    assert lists == []
    targets = sources.targets(apt.run(*sources.INDEXTARGETS).stdout)
    assert {target.created_by for target in targets} == {"Packages", "Images", "Images-Status"}


def says(apt: Apt, *command: str) -> subprocess.CompletedProcess[str]:
    return apt.run("debian-cloud", *command)


def test_an_archive_without_an_image_is_known(archive: Archive, tmp_path: Path, env: dict[str, str]) -> None:
    apt = machine_of(archive, tmp_path / "machine", env)
    # Before the first update, apt has no index of it.
    done = says(apt, "list", "--images")
    assert done.returncode == 1
    assert "this machine's apt has no index of images" in done.stdout
    updated(apt)
    for name in ("Images", "Images-Status"):
        assert (archive.dist / "main/images" / name).read_bytes() == b"\n"
    done = says(apt, "list", "--images")
    assert (done.returncode, done.stdout) == (0, "debian-cloud: warning: no image is published for trixie\n")
    done = says(apt, "fetch", "ec2", "--arch", "amd64")
    assert (done.returncode, done.stdout.splitlines()) == (
        2,
        [
            "debian-cloud: error: no image of ec2 in trixie",
            "debian-cloud: hint: no image is published for trixie and amd64",
        ],
    )
    for verb in (("list", "--images"), ("fetch", "ec2")):
        done = says(apt, *verb, "--suite", "forky")
        assert done.returncode == 2
        assert "reads no archive of images for forky, only for: trixie" in done.stdout


def test_fetch_reports_who_withdrew_an_image_and_why(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path, env: dict[str, str]
) -> None:
    archive.take(make.image(uploader, "20261120.0"))
    archive.run("publish")
    apt = machine_of(archive, tmp_path / "machine", env)
    updated(apt)
    assert "20261120.0" in says(apt, "list", "--images").stdout
    reason = ("--reason", "login without a key", "--cve", "CVE-2026-12345")
    archive.run("withdraw", "trixie/ec2/amd64/20261120.0", *reason)
    updated(apt)
    (became,) = staleness.parse((archive.dist / "main/images/Images-Status").read_text())
    words = (
        f"ec2 20261120.0 of trixie for amd64 was withdrawn by file:{archive.public}/ on {became.date}:"
        " login without a key (CVE-2026-12345)"
    )
    fetch = ("fetch", "ec2", "--arch", "amd64", "--output", str(tmp_path / "out"))
    for more in ((), ("--serial", "20261120.0")):
        done = says(apt, *fetch, *more)
        assert done.returncode == 1
        assert done.stdout.startswith(f"debian-cloud: error: {words}\ndebian-cloud: hint: ")
    # An older serial that is published is fetched, and the withdrawal of the newer one is reported.
    archive.take(make.image(uploader, "20261119.0"))
    archive.run("publish")
    updated(apt)
    assert index.parse((archive.dist / "main/images/Images").read_text())[0].id.serial == "20261119.0"
    done = says(apt, *fetch)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"debian-cloud: warning: {words}"
    done = says(apt, *fetch, "--serial", "20261120.0")
    assert done.returncode == 1
    assert words in done.stdout


def test_an_archive_is_known_by_its_source_too() -> None:
    """An archive of an older version publishes an index of zero bytes, which apt does not fetch."""
    entry = "/etc/apt/sources.list.d/debian-cloud.sources:1"
    own = sources.Target("Packages", "debian-cloud", "debian-cloud", "trixie", "http://a", "/x", "yes", entry)
    debian = dataclasses.replace(own, uri="http://d", entry="/etc/apt/sources.list.d/debian.sources:1")
    assert sources.archive([debian, own], "trixie").uri == "http://a"
    # For a suite that this machine does not follow, the same archive is used.
    assert sources.archive([debian, own], "forky").uri == "http://a"
    with pytest.raises(Error, match="knows no archive") as refused:
        sources.archive([debian, dataclasses.replace(own, trusted="no")], "trixie")
    assert refused.value.hint.startswith("install the archive's debian-cloud-archive-keyring package")
    with pytest.raises(Error, match="knows no archive") as refused:
        sources.archive([debian], "trixie", installed=True)
    assert refused.value.hint.startswith("run `apt-get update`: debian-cloud-archive-keyring is installed")


@pytest.mark.thorough
@pytest.mark.parametrize("over", ["file", "http"])
def test_a_suite_that_the_archive_lacks_is_one_sentence(
    archive: Archive, tmp_path: Path, env: dict[str, str], over: str
) -> None:
    keyring = tmp_path / "archive.gpg"
    keyring.write_bytes(
        subprocess.run(
            ["gpg", "--homedir", archive.path / "gnupg", "--batch", "--export"], capture_output=True, check=True
        ).stdout
    )
    assert "\nSuites: trixie\n" in (archive.public / "project/trace/master").read_text()
    with serving(archive.public, []) as address:
        uri = address if over == "http" else f"file:{archive.public}"
        source = sources.Source(uri, ("forky",), str(keyring), sources.ARCHIVE_COMPONENTS)
        with (
            pytest.raises(Error) as refused,
            origin._read(archive.path.parent / "apt", (), source, "amd64"),
        ):
            pass
        assert refused.value.message == f"{uri} has no suite forky; the archive has: trixie"
        assert refused.value.status == USAGE
        # For an archive that cannot be reached, the message does not say that it lacks the suite.
        source = dataclasses.replace(source, uri="http://127.0.0.1:9")
        with (
            pytest.raises(Error, match=r"127\.0\.0\.1") as refused,
            origin._read(archive.path.parent / "apt", (), source, "amd64"),
        ):
            pass
        assert "the archive has" not in refused.value.message
    run(["rm", "-rf", archive.path.parent / "apt"], env)
