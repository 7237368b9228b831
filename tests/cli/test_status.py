# SPDX-License-Identifier: GPL-3.0-or-later
"""`status` reports to a machine what became of its image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud import cli
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.image.id import ImageId
from debian_cloud.image.staleness import ImageStatus, Update
from debian_cloud.packages import images

THIS = ImageStatus(
    ImageId("trixie", "ec2", "amd64", "20261120.0"),
    "superseded",
    pending_date="2026-11-21",
    security=(Update("openssl", "3.0-1", "3.0-2"), Update("sudo", "1", "1+deb13u1")),
    others=(Update("tzdata", "2026a", "2026b"), Update("htop", "1", "2"), Update("xz-utils", "1", "2")),
)


def of(said: ImageStatus, status: str = "", **words: str) -> ImageStatus:
    """The status of another image."""
    return replace(said, id=replace(said.id, **words), status=status or said.status)


NEWER = of(THIS, status="current", serial="20261121.0")
OTHERS = (
    of(THIS, status="withdrawn", suite="bookworm"),
    of(NEWER, suite="bookworm", serial="20261123.0"),
    of(NEWER, config="azure", serial="20261122.0"),
    of(NEWER, architecture="arm64", serial="20261124.0"),
)
WITHDRAWN = replace(
    THIS,
    status="withdrawn",
    date="2026-11-22",
    reason="its kernel loses data",
    cves=("CVE-2026-12345", "CVE-2026-23456"),
    security=(),
    others=(),
    pending_date="",
)
INSTALLED = """\
openssl amd64 3.0-1 installed
openssl i386 3.0-9 installed
sudo amd64 1+deb13u1 installed
tzdata all 2026a-1 installed
htop amd64 1 config-files
xz-utils amd64 3 triggers-pending
bare amd64
"""
Says = Callable[..., tuple[int, str]]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Says:
    """A function: statuses in the archives, and arguments of `status` -> its exit status and output."""
    record, release = tmp_path / "cloud-release", tmp_path / "os-release"
    record.write_text('ID=ec2\nVERSION="20261120.0"\n')
    release.write_text("ID=debian\nVERSION_CODENAME=trixie\n")
    monkeypatch.setattr("debian_cloud.packages.machine._RECORD", record)
    monkeypatch.setattr("debian_cloud.packages.machine._OS_RELEASE", release)
    monkeypatch.setattr(run, "output", lambda argv: "amd64\n" if argv[0] == "dpkg" else INSTALLED)

    def says(known: tuple[ImageStatus, ...], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(images, "statuses", lambda _: images.Said(known))
        done = cli.run(["status", *arguments])
        return done, capsys.readouterr().out

    return says


def test_pending_updates_are_told_security_first(machine: Says) -> None:
    done, said = machine((*OTHERS, NEWER, THIS))
    assert done == 0
    assert said == (
        "image: debian-cloud-config-ec2 20261120.0 of trixie for amd64, superseded\n"
        "newer: 20261121.0\n"
        "pending: 1 security, 1 other, as of 2026-11-21\n"
        "  security openssl 3.0-1 -> 3.0-2\n"
        "  tzdata 2026a-1 -> 2026b\n"
        "installed since: 2\n"
        "  security sudo 1+deb13u1\n"
        "  xz-utils 3\n"
    )


def test_a_withdrawn_image_is_told_first_of_all(machine: Says) -> None:
    done, said = machine((NEWER, WITHDRAWN))
    assert done == 1
    assert said == (
        "withdrawn since 2026-11-22: its kernel loses data\n"
        "  CVE-2026-12345 CVE-2026-23456\n"
        "image: debian-cloud-config-ec2 20261120.0 of trixie for amd64\n"
        "newer: 20261121.0\n"
        "pending: unknown to the archive; see `apt list --upgradable`\n"
    )
    # An image that one of two archives withdrew is withdrawn.
    assert machine((THIS, WITHDRAWN))[0] == 1
    assert machine((WITHDRAWN, THIS))[0] == 1


@pytest.mark.parametrize("word", ["current", "deprecated", "expired"])
def test_only_a_withdrawn_image_is_an_alarm(machine: Says, word: str) -> None:
    done, said = machine((replace(THIS, status=word, reason="slow", date="2026-11-22"),))
    assert done == 0
    assert said.startswith(f"{word} since 2026-11-22: slow\nimage: ")
    assert "newer: none" in said


def test_a_reason_is_one_line_of_text(machine: Says) -> None:
    """Bidirectional marks are valid in an index, as for mirrors, and shown escaped."""
    done, said = machine((replace(THIS, status="withdrawn", reason="\u202enoitseuq\n\x1b[2J" + "x" * 9000),))
    assert done == 1
    assert said.startswith("withdrawn: \\u202enoitseuq\\x0a\\x1b[2Jx")
    assert max(map(len, said.splitlines())) < 4100
    assert json.loads(machine((replace(THIS, reason="\u202e"),), "--json")[1])["reason"] == "\u202e"


def test_the_same_in_json(machine: Says) -> None:
    done, said = machine((NEWER, THIS), "--json")
    document = json.loads(said)
    assert (done, document["status"], document["newer"], document["pending-date"]) == (
        0,
        "superseded",
        "20261121.0",
        "2026-11-21",
    )
    assert document["pending"][0] == {"package": "openssl", "installed": "3.0-1", "new": "3.0-2", "security": True}
    assert [update["package"] for update in document["installed"]] == ["sudo", "xz-utils"]
    done, said = machine((WITHDRAWN,), "--json")
    document = json.loads(said)
    assert (done, document["status"], document["cves"]) == (1, "withdrawn", [*WITHDRAWN.cves])
    assert (document["reason"], document["status-date"]) == (WITHDRAWN.reason, "2026-11-22")


def test_a_machine_that_moved_on_is_still_of_its_image(machine: Says, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("VERSION_CODENAME=forky\n")
    assert machine((THIS, NEWER))[1].startswith("image: debian-cloud-config-ec2 20261120.0 of trixie")
    (tmp_path / "os-release").unlink()
    assert machine((THIS, NEWER))[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "was not made from an image of debian-cloud: there is no"),
        # The record of Debian's own images.
        ('ID=genericcloud\nVERSION="20260717-1811"\n', "names no image with a serial"),
        ("VERSION=20261120.0\n", "names no image with a serial"),
        ('ID=../x\nVERSION="20261120.0"\n', "names no image with a serial"),
        ("\x00\xff", "was not made from an image of debian-cloud"),
        ('ID=ec2\nVERSION="20261119.0"\n', "ever published ec2 20261119.0 for amd64"),
    ],
)
def test_another_machine_is_told_so(machine: Says, tmp_path: Path, text: str | None, words: str) -> None:
    record = tmp_path / "cloud-release"
    if text is None:
        record.unlink()
    else:
        record.write_text(text)
    with pytest.raises(Error, match=words) as refused:
        machine((THIS, NEWER))
    # The command line is not wrong.
    assert refused.value.status == 1
    assert refused.value.hint
    assert str(record) in refused.value.message or "20261119.0" in refused.value.message


def test_a_version_that_is_none_is_refused(machine: Says) -> None:
    bad = replace(THIS, security=(Update("openssl", "1", ":"),))
    with pytest.raises(Error, match="':' in Images-Status is not a version"):
        machine((bad,))


def test_an_apt_without_such_an_index_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    unverified = (
        "Images-Status|debian-cloud|debian-cloud|trixie|file:/x|/x|no|/x:1\nImages|a|b|trixie|file:/x|/x|yes|/x:1\n"
    )
    monkeypatch.setattr(run, "output", lambda _: unverified)
    with pytest.raises(Error, match="knows no archive that reports") as refused:
        images.statuses(lambda _: True)
    assert refused.value.status == 2
