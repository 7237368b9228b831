# SPDX-License-Identifier: GPL-3.0-or-later
"""The lifecycle of images: release sets that are held back, statuses that are set, and expiry by a policy."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from debian_cloud.archive import indexes, lifecycle, state
from debian_cloud.archive.lifecycle import Held, Policy, ReleaseSet
from debian_cloud.errors import Error
from debian_cloud.image import index, staleness
from debian_cloud.image.id import ImageId
from tests import malformed
from tests.archive.listings import MANY, image

TODAY = date(2026, 11, 21)
GRACE = timedelta(days=14)


def serials(images: tuple[ImageId, ...]) -> list[str]:
    return [image.serial for image in images]


# Release sets.

SET = lifecycle.release_sets("# what belongs together\n\ntrixie ec2/amd64 azure/amd64  # and no more\n", "x")


def test_a_set_is_a_suite_and_its_images() -> None:
    (one,) = SET
    assert one == ReleaseSet("trixie", ("ec2/amd64", "azure/amd64"))


@pytest.mark.parametrize("line", ["trixie", "trixie ec2", "trixie ec2/amd64/x", "../x ec2/amd64", "trixie a/b a/b"])
def test_a_line_that_is_no_set_is_named(line: str) -> None:
    with pytest.raises(Error, match="conf/releases, line 2, is not a set"):
        lifecycle.release_sets(f"\n{line}\n", "conf/releases")


def test_a_release_waits_for_what_is_missing_and_nothing_else_does() -> None:
    there = [image("ec2/amd64/20261120.0"), image("azure/amd64/20261120.0"), image("ec2/amd64/20261121.0")]
    free = [image("generic/amd64/20261121.0"), image("ec2/arm64/20261121.0")]
    tried = image("azure/amd64/20261121.0", official=False)
    elsewhere = image("ec2/amd64/20261121.0", suite="forky")
    held = lifecycle.held((*there, *free, tried, elsewhere), SET)
    assert held == (Held("trixie/20261121.0", (there[2].id,), ("azure/amd64",)),)
    shown = lifecycle.published((*there, *free), held)
    assert {record.directory for record in shown} == {record.directory for record in (*there[:2], *free)}
    # A held image does not supersede another.
    assert next(r.status for r in shown if r.id.series == "trixie/ec2/amd64") == "current"
    assert lifecycle.held((*there, *free, image("azure/amd64/20261121.0")), SET) == ()


def test_what_was_shown_or_is_partial_or_gone_is_not_held_back() -> None:
    alone = image("ec2/amd64/20261120.0")
    assert lifecycle.held([alone], SET, {alone.id}) == ()
    assert lifecycle.held([replace(alone, partial=True)], SET) == ()
    # A withdrawn image does not hold back its release set.
    gone = image("azure/amd64/20261120.0", status="withdrawn", status_date="2026-11-21")
    assert lifecycle.held([alone, gone], SET) == ()


def test_every_set_that_names_an_image_must_be_whole() -> None:
    sets = (*SET, ReleaseSet("trixie", ("ec2/amd64", "generic/arm64")))
    both = [image("ec2/amd64/20261120.0"), image("azure/amd64/20261120.0")]
    (held,) = lifecycle.held(both, sets)
    assert (serials(held.images), held.missing) == (["20261120.0"], ("generic/arm64",))
    assert held.images[0].config == "ec2"


def test_partial_names_a_release_that_is_held_back() -> None:
    records = (image("ec2/amd64/20261120.0"), image("ec2/amd64/20261121.0"))
    held = lifecycle.held(records, SET)
    marked = lifecycle.partial(records, held, "trixie/20261121.0")
    assert [record.partial for record in marked] == [False, True]
    assert "Partial: yes\n" in index.render(marked)
    with pytest.raises(Error, match=r"nothing of trixie/20261122.0 is held back") as refused:
        lifecycle.partial(records, held, "trixie/20261122.0")
    assert refused.value.status == 2
    with pytest.raises(Error, match="is held back"):
        lifecycle.partial(marked, lifecycle.held(marked, SET), "trixie/20261121.0")


# Statuses.


def test_a_withdrawn_image_is_in_no_index_and_the_next_newest_is_current() -> None:
    records = (image("ec2/amd64/20261120.0"), image("ec2/amd64/20261121.0"), image("azure/amd64/20261121.0"))
    disks = (*records, replace(records[1], format="raw"))
    cves = ("CVE-2026-12345", "CVE-2026-99999")
    marked = lifecycle.marked(
        disks, "trixie/ec2/amd64/20261121.0", "withdrawn", TODAY, "it does not boot", (*cves, cves[0])
    )
    gone = [record for record in marked if record.status]
    assert {record.format for record in gone} == {"raw", "qcow2"}
    for record in gone:
        assert (record.status, record.status_date, record.cves) == ("withdrawn", "2026-11-21", cves)
    shown = {(r.id.config, r.id.serial): r.status for r in lifecycle.published(marked, ())}
    assert shown == {("ec2", "20261120.0"): "current", ("azure", "20261121.0"): "current"}


def test_a_deprecated_image_stays_and_is_not_current() -> None:
    records = (image("ec2/amd64/20261120.0"), image("ec2/amd64/20261121.0"))
    marked = lifecycle.marked(records, "trixie/ec2/amd64/20261121.0", "deprecated", TODAY, "slow")
    assert [record.status for record in lifecycle.published(marked, ())] == ["current", "deprecated"]
    again = lifecycle.marked(marked, "trixie/ec2/amd64/20261121.0", "withdrawn", TODAY, "it loses data")
    assert [record.status for record in again] == ["", "withdrawn"]


NAME = "trixie/ec2/amd64/20261120.0"


@pytest.mark.parametrize(
    ("what", "reason", "cves", "words", "status"),
    [
        ("trixie/ec2/amd64/20261119.0", "x", (), "never had", 2),
        ("ec2", "x", (), "never had ec2", 2),
        (NAME, "", (), "the reason is empty", 2),
        (NAME, "  ", (), "the reason is empty", 2),
        (NAME, "one\ntwo", (), "one line", 2),
        (NAME, "one\n Status: current", (), "one line", 2),
        (NAME, "red \x1b[31m", (), "one line", 2),
        (NAME, "no byte: \udcff", (), "one line", 2),
        (NAME, "x" * 501, (), "has 501 characters, but at most 500 are allowed", 2),
        (NAME, "\u202e" * 2, (), "one line", 2),
        (NAME, "x", ("CVE-26-1",), "not a CVE identifier", 2),
        (NAME, "x", (f"CVE-2026-{'1' * 5000}",), "not a CVE identifier", 2),
        (NAME, "x", ("CVE-2026-1234\n",), "not a CVE identifier", 2),
        (NAME, "x", tuple(f"CVE-2026-{number}" for number in range(1000, 1101)), "101 CVEs are too many", 2),
        ("x\x1b[2J" * 100, "x", (), r"never had x\\x1b", 2),
    ],
)
def test_what_cannot_be_said_of_an_image(
    what: str, reason: str, cves: tuple[str, ...], words: str, status: int
) -> None:
    with pytest.raises(Error, match=words) as refused:
        lifecycle.marked([image("ec2/amd64/20261120.0")], what, "withdrawn", TODAY, reason, cves)
    assert refused.value.status == status
    assert refused.value.hint
    assert len(refused.value.message) < 600
    assert refused.value.message.isprintable()


def test_a_reason_may_be_as_long_as_it_says() -> None:
    (marked,) = lifecycle.marked([image("ec2/amd64/20261120.0")], NAME, "withdrawn", TODAY, "x" * lifecycle.REASON)
    assert index.parse(index.render([marked])) == (marked,)


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ("withdrawn", "withdrawn", False),
        ("withdrawn", "deprecated", False),
        ("deprecated", "deprecated", False),
        ("expired", "deprecated", False),
        ("deprecated", "withdrawn", True),
        ("expired", "withdrawn", True),
    ],
)
def test_what_was_said_of_an_image_stays(before: str, after: str, *, allowed: bool) -> None:
    record = image("ec2/amd64/20261120.0", status=before, status_date="2026-11-20", status_reason="old")
    if allowed:
        (marked,) = lifecycle.marked([record], NAME, after, TODAY, "new")
        assert (marked.status, marked.status_date, marked.status_reason) == (after, "2026-11-21", "new")
        return
    with pytest.raises(Error, match=f"is already {before} since 2026-11-20"):
        lifecycle.marked([record], NAME, after, TODAY, "new")


# Policy.


def test_a_policy_is_a_few_lines() -> None:
    text = "keep 3\nmonthly 12 # of them\nsnapshots 30\nkeep trixie/ec2/amd64 10\n"
    pinned = {"trixie/ec2/amd64/20261120.0", "trixie/20261121.0", "20261121T120000Z"}
    text += "".join(f"pinned {what}\n" for what in pinned)
    assert lifecycle.policy(text, "x") == Policy(3, {"trixie/ec2/amd64": 10}, 12, 30, frozenset(pinned))
    assert lifecycle.policy("", "x") == Policy()


@pytest.mark.parametrize(
    "line",
    [
        "keep",
        "keep 0",
        "keep -1",
        "keep three",
        "keep 3 4",
        "keep ec2 3",
        "keep 5",
        "snapshots 0",
        "pinned x",
        "pin x",
    ],
)
def test_a_line_that_is_no_policy_is_named(line: str) -> None:
    with pytest.raises(Error, match=r"conf/expire, line 2, is not a policy"):
        lifecycle.policy(f"keep 5\n{line}\n", "conf/expire")


def test_months_alone_would_let_the_newest_go() -> None:
    with pytest.raises(Error, match="without `keep`"):
        lifecycle.policy("monthly 3\n", "x")


@pytest.mark.parametrize(
    ("text", "goes"),
    [
        ("", []),
        ("keep 7", []),
        ("keep 3", ["20260731.0", "20260830.0", "20260930.0", "20260930.1"]),
        ("keep 1\nmonthly 3", ["20260731.0", "20260830.0", "20260930.0", "20261101.0"]),
        ("keep 1\nmonthly 4", ["20260731.0", "20260930.0", "20261101.0"]),
        ("keep 1\nkeep trixie/ec2/amd64 6", ["20260731.0"]),
        ("keep 6\npinned trixie/ec2/amd64/20260731.0", []),
        ("keep 6\npinned trixie/20260731.0", []),
    ],
)
def test_what_a_policy_lets_expire(text: str, goes: list[str]) -> None:
    assert serials(lifecycle.outdated(MANY, lifecycle.policy(text, "x"), (), (), TODAY)) == goes


def test_what_is_current_never_expires() -> None:
    newest = [image(f"ec2/amd64/2026112{n}.0", official=False) for n in (1, 2)]
    marked = lifecycle.marked((*MANY, *newest), "trixie/ec2/amd64/20261102.0", "deprecated", TODAY, "slow")
    left = {*serials(lifecycle.outdated(marked, Policy(2), (), (), TODAY))}
    # The newest official image that is not deprecated is older than the two that are kept.
    assert "20261101.0" not in left
    assert {"20261102.0", "20261010.0"} <= left


def test_a_release_is_kept_whole() -> None:
    azure = image("azure/amd64/20260731.0")
    assert serials(lifecycle.outdated((*MANY, azure), Policy(6), SET, (), TODAY)) == []
    assert serials(lifecycle.outdated((*MANY, azure), Policy(6), (), (), TODAY)) == ["20260731.0"]


def test_what_is_held_back_takes_nobody_s_place() -> None:
    pair = [image(f"{config}/amd64/20261120.{n}") for config in ("ec2", "azure") for n in range(3)]
    late = [image(f"ec2/amd64/20261121.{n}") for n in range(5)]
    early = image("ec2/amd64/20261119.0")
    records = (*pair, *late, early)
    held = lifecycle.held(records, SET)
    assert len(held) == 6
    assert lifecycle.outdated(records, Policy(3), SET, held, TODAY) == (early.id,)


def test_what_cannot_be_kept_yet_is_seen_by_nobody() -> None:
    old, new, other = image("ec2/amd64/20261120.0"), image("ec2/amd64/20261121.0"), image("azure/amd64/20261121.0")
    unkept = {new.id}
    shown = lifecycle.published((old, new, other), (), unkept)
    assert {r.id: r.status for r in shown} == {old.id: "current", other.id: "current"}
    # Its release set waits for it.
    (held,) = lifecycle.held((old, new, other, image("azure/amd64/20261120.0")), SET, (), unkept)
    assert (held.images, held.missing) == ((other.id,), ("ec2/amd64",))
    # It takes the place of no other image, and stays as long as it is the newest.
    assert lifecycle.outdated((old, new), Policy(1), (), (), TODAY, unkept) == ()
    assert lifecycle.outdated((old, new), Policy(1), (), (), TODAY, {old.id}) == (old.id,)


def test_what_failed_is_tried_again_later_and_later() -> None:
    failure = None
    delays = []
    for _ in range(40):
        failure = lifecycle.failed(failure, "no \x1b[2J" + "x" * 1000, 1000.5)
        delays.append(failure.next - 1000)
        assert lifecycle.parse_failure(lifecycle.render_failure(failure)) == failure
    assert [delay // 3600 for delay in delays[:7]] == [1, 2, 4, 8, 16, 24, 24]
    assert max(delays) == delays[-1] == 86400
    assert failure
    assert failure.tries == 40
    assert failure.reason.startswith(r"no \x1b[2J")
    assert len(failure.reason) < 500


@pytest.mark.parametrize(
    "text", ["", "Tries: x\nNext: 1\nReason: a\n", "Tries: 1\n", "damaged", "Tries: 1\n\nTries: 2\n"]
)
def test_a_damaged_note_is_none(text: str) -> None:
    assert lifecycle.parse_failure(text) is None


def test_files_go_two_weeks_after_the_last_index_listed_them() -> None:
    def gone(status: str, day: str) -> index.ImageRecord:
        return image("ec2/amd64/20261120.0", status=status, status_date=day)

    this = gone("", "").id
    assert lifecycle.due([gone("withdrawn", "2026-11-07")], (), TODAY, GRACE) == (this,)
    assert lifecycle.due([gone("withdrawn", "2026-11-08")], (), TODAY, GRACE) == ()
    assert lifecycle.due([gone("deprecated", "2026-01-01")], (), TODAY, GRACE) == ()
    # An image in a snapshot stays, unless it is withdrawn.
    assert lifecycle.due([gone("expired", "2026-11-07")], {this}, TODAY, GRACE) == ()
    assert lifecycle.due([gone("withdrawn", "2026-11-07")], {this}, TODAY, GRACE) == (this,)
    (record,) = lifecycle.expired([image("ec2/amd64/20261120.0")], {this}, TODAY)
    assert (record.status, record.status_date) == ("expired", "2026-11-21")


def test_snapshots_go_oldest_first() -> None:
    ids = ["20261101T000000Z", "20261103T000000Z", "20261102T000000Z", ".new"]
    assert lifecycle.snapshots(ids, Policy()) == ()
    assert lifecycle.snapshots(ids, Policy(snapshots=2)) == ("20261101T000000Z",)
    assert lifecycle.snapshots(ids, Policy(snapshots=9)) == ()
    pinned = frozenset({"20261101T000000Z"})
    assert lifecycle.snapshots(ids, Policy(snapshots=1, pinned=pinned)) == ("20261102T000000Z",)


def test_a_file_leaves_the_pool_two_weeks_after_nothing_listed_it() -> None:
    old, good, new, back = "pool/old", "pool/good", "pool/new", "pool/back"
    # An index signed in the last hour of the 7th is good until that hour of today.
    before = {old: date(2026, 11, 6), good: date(2026, 11, 7), back: date(2026, 1, 1)}
    after, gone = lifecycle.leaving(before, [old, good, new], TODAY, GRACE)
    assert after == {old: date(2026, 11, 6), good: date(2026, 11, 7), new: TODAY}
    assert gone == (old,)
    assert lifecycle.parse_leaving(lifecycle.render_leaving(after)) == after
    with pytest.raises(Error, match="the line 'x pool/y'"):
        lifecycle.parse_leaving("x pool/y\n")


TRACKS = """\
Distribution: trixie
Source: x
Version: 1
Files:
 pool/main/x/x_1_all.deb a 0
 pool/main/x/x_1.orig.tar.xz s 0
 pool/main/x/x_1_all.changes c 0

Distribution: trixie
Source: x
Version: 1-2
Files:
 pool/main/x/x_1-2_all.deb a 2
 pool/main/x/x_1.orig.tar.xz s 1
 pool/main/x/x_1-2_all.changes c 0
"""


def test_a_version_that_no_suite_has_any_more_is_forgotten_with_all_its_files() -> None:
    tracks = lifecycle.parse_tracks(TRACKS)
    assert [(track.source, track.version, track.used) for track in tracks] == [("x", "1", False), ("x", "1-2", True)]
    assert tracks[0].files[2] == "pool/main/x/x_1_all.changes"
    shared = {"pool/main/x/x_1.orig.tar.xz", "pool/main/x/x_1-2_all.deb"}
    assert lifecycle.unused(tracks, shared) == tracks[:1]
    # A snapshot lists it.
    assert lifecycle.unused(tracks, {*shared, "pool/main/x/x_1_all.deb"}) == ()


def test_what_indexes_list() -> None:
    packages = "Package: a\nFilename: pool/main/a/a_1.deb\n\nPackage: b\nFilename: pool/main/b/b_1.deb\n"
    assert [*lifecycle.pool_files(packages)] == ["pool/main/a/a_1.deb", "pool/main/b/b_1.deb"]
    sources = (
        "Package: a\nFiles:\n 1 2 no.dsc\nChecksums-Sha256:\n aa 1 a_1.dsc\n bb 2 a_1.tar.xz\n"
        "Directory: pool/main/a\n\nPackage: b\nDirectory: pool/main/b\nChecksums-Sha256:\n cc 1 b_1.dsc\n"
    )
    assert [*lifecycle.pool_files(sources)] == [
        "pool/main/a/a_1.dsc",
        "pool/main/a/a_1.tar.xz",
        "pool/main/b/b_1.dsc",
    ]
    assert lifecycle.images(index.render(MANY)) == {record.id for record in MANY}
    # In an unverified text, names that are not of an image are skipped.
    assert (
        lifecycle.images("Buildinfo: images/../x/y/20261121.0/z\nBuildinfo: closures/a/b/c/20261121.0/z\n") == set()
    )


@pytest.mark.parametrize("text", malformed.BAD_IMAGES.values(), ids=malformed.BAD_IMAGES)
def test_no_index_is_made_that_clients_refuse(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/trixie").write_bytes(text)
    (tmp_path / "dists/trixie").mkdir(parents=True)
    with pytest.raises(Error):
        indexes.enter(tmp_path, tmp_path, tmp_path / "dists")
    assert not [path for path in (tmp_path / "dists").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "line", [" openssl 1 :", " o 1 2", f" openssl 1 {'2' * 300}", " p1 1 2\n" * 5000 + " p1 1 2"]
)
def test_no_index_of_statuses_is_made_that_clients_refuse(tmp_path: Path, line: str) -> None:
    fine, *_ = index.parse(malformed.IMAGES)
    for folder in ("images", "staleness/trixie", "dists/trixie"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "images/trixie").write_text(index.render([fine]))
    release, made = tmp_path / "dists/trixie/Release", tmp_path / "dists/trixie/main/images"
    before = f"Codename: trixie\nMD5Sum:\n {'0' * 32} 1 x\nSHA256:\n {'0' * 64} 1 x\n"
    release.write_text(before)
    assert indexes.enter(tmp_path, tmp_path, tmp_path / "dists") == ()
    assert staleness.parse((made / "Images-Status").read_text())[0].id == fine.id
    assert release.read_text().startswith(f"Codename: trixie\nAcquire-By-Hash: yes\nSHA256:\n {'0' * 64} 1 x\n ")
    assert re.findall(r"main/images/(\S+)", release.read_text()) == [
        name for index_ in ("Files", "Images", "Images-Status") for name in (index_, f"{index_}.xz")
    ]
    shutil.rmtree(made)
    release.write_text(before)
    (tmp_path / "staleness/trixie/amd64").write_text(
        f"Image: {fine.directory}\nPending-Date: 2026-11-21\nPending:\n{line}\n"
    )
    with pytest.raises(Error):
        indexes.enter(tmp_path, tmp_path, tmp_path / "dists")
    assert not (made / "Images").exists()
    assert release.read_text() == before


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"virtual_size": 10**17},
        {"status": "yanked"},
        {"status_reason": "x" * 9000},
        {"status_reason": "two\nlines"},
        {"cves": ("x",)},
        {"config_version": "1 2"},
        {"attestations": (index.Attestation("x" * 250, 1, "a" * 64),)},
    ],
)
def test_nothing_is_entered_that_clients_refuse(tmp_path: Path, change: dict[str, Any]) -> None:
    records = index.parse(malformed.IMAGES)
    state.enter(tmp_path, "trixie", records)
    before = (tmp_path / "images/trixie").read_bytes()
    with pytest.raises(Error):
        state.enter(
            tmp_path,
            "trixie",
            (*records, replace(records[0], id=replace(records[0].id, serial="20261201.0"), **change)),
        )
    assert (tmp_path / "images/trixie").read_bytes() == before
    assert state.records(tmp_path, "trixie") == records
