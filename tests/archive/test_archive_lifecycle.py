# SPDX-License-Identifier: GPL-3.0-or-later
"""The lifecycle of images in an archive: withdrawn, deprecated, held back, expired, and vouched for by others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debian_cloud import index, staleness

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker

OLD, NEW = "20261119.0", "20261120.0"
REASON = "it does not boot on machines with an NVMe disk: 7 % of all"


def listed(archive: Archive) -> dict[str, index.ImageRecord]:
    """Serial -> record of what Images shows."""
    return {r.serial: r for r in index.parse((archive.dist / "main/images/Images").read_text())}


def statuses(archive: Archive) -> dict[str, staleness.ImageStatus]:
    """Serial -> what Images-Status says."""
    return {s.serial: s for s in staleness.parse((archive.dist / "main/images/Images-Status").read_text())}


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
    # Its files stay for those who hold an older index.
    assert list((archive.public / "images" / image).glob("*.qcow2"))
    said = statuses(archive)[NEW]
    assert (said.status, said.reason, said.cves) == ("withdrawn", REASON, ("CVE-2026-12345", "CVE-2026-23456"))
    assert statuses(archive)[OLD].status == "current"
    assert (
        f" {len((archive.dist / 'main/images/Images-Status.xz').read_bytes())} main/images/Images-Status.xz\n"
        in (archive.dist / "InRelease").read_text()
    )

    before = archive.snapshot()
    for arguments, words, status in (
        ((image, "--reason", "again"), "is withdrawn since", 1),
        ((f"trixie/ec2/amd64/{OLD}",), "the reason is empty", 2),
        ((f"trixie/ec2/amd64/{OLD}", "--reason", "a\nb"), "one line of text", 2),
        (("trixie/ec2/amd64/20261118.0", "--reason", "x"), "never had", 2),
        (("sid/ec2/amd64/20261118.0", "--reason", "x"), "it has images of trixie", 2),
        (("../../x", "--reason", "x"), "no image ../../x", 2),
    ):
        refused = archive.run("withdraw", *arguments, check=False)
        assert words in refused.stderr
        assert refused.returncode == status
    assert archive.run("withdraw", check=False).returncode == 2
    assert archive.snapshot() == before

    done = archive.run("deprecate", f"images/trixie/ec2/amd64/{OLD}/", "--reason", "there will be better ones")
    assert "deprecated: " in done.stdout
    assert listed(archive)[OLD].status == "deprecated"
    assert listed(archive)[OLD].status_reason == "there will be better ones"
    assert not (archive.public / "images/trixie/ec2/amd64/current").is_symlink()
    # Nothing old comes back under its name.
    assert "never rewritten" in archive.refuse(make.image(uploader, NEW))


def test_a_release_that_is_not_whole_is_held_back(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.image(uploader, OLD))
    archive.run("publish")
    sets = archive.path / "conf/releases"
    sets.write_text("# vendors\ntrixie ec2/amd64 azure/amd64 generic/arm64\n")
    archive.take(make.image(uploader, NEW))
    done = archive.run("publish")
    assert f"held back: trixie/{NEW}: ec2/amd64 (missing: azure/amd64 generic/arm64)\n" in done.stdout
    # What was published before there were sets stays so.
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
    assert "conf/releases, line 1, names no set of images" in refused.stderr
    assert refused.returncode == 1
    assert archive.snapshot() == before
