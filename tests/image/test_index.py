# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of images and their index: what is derived, and what is refused."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest

from debian_cloud.errors import Error
from debian_cloud.image import index
from tests import bounds, malformed
from tests.samples import ATTESTED, RECORD


def test_a_record_survives_its_text() -> None:
    assert index.parse(index.render([RECORD]), strict=True) == (RECORD,)


def test_a_record_says_when_it_is_not_official() -> None:
    record = replace(RECORD, official=False)
    assert index.parse(index.render([record]), strict=True) == (record,)
    assert "Official: no\n" in index.render([record])
    assert "Official" not in index.render([RECORD])
    assert index.parse(index.render([RECORD]) + "Official: yes\n", strict=True) == (RECORD,)


def test_paths_follow_from_the_other_fields() -> None:
    assert RECORD.filename == "images/trixie/ec2/amd64/20261120.0/debian-13-ec2-amd64-20261120.0.qcow2"
    assert RECORD.buildinfo == "images/trixie/ec2/amd64/20261120.0/debian-13-ec2-amd64-20261120.0.buildinfo"


PLACE = "images/trixie/ec2/amd64/20261120.0/debian-13-ec2-amd64-20261120.0"


def test_a_record_lists_what_is_said_of_the_image() -> None:
    text = index.render([ATTESTED])
    assert f"Attestations:\n {'c' * 64} 812 {PLACE}.intoto.json\n {'d' * 64} 9 {PLACE}.spdx.json\n" in text
    assert index.parse(text) == (ATTESTED,)
    assert "Attestations" not in index.render([RECORD])
    # An attestation of a future kind is read, but only the archive may state any.
    assert index.parse(text.replace("spdx.json", "2.rebuilt.json"))[0].attestations[1].suffix == "2.rebuilt.json"
    with pytest.raises(Error, match="unknown field Attestations"):
        index.parse(text, strict=True)


@pytest.mark.parametrize(
    "line",
    [
        f"{'c' * 64} 812 /etc/passwd",
        f"{'c' * 64} 812 {PLACE}.intoto.json/../../x",
        f"{'c' * 64} 812 {PLACE}../x",
        f"{'c' * 64} 812 {PLACE}.",
        f"{'c' * 64} 812 {PLACE}.a/b",
        f"{'c' * 64} 812 {PLACE}.a..b",
        f"{'c' * 64} 812 {PLACE.replace('20.0', '20.1')}.spdx.json",
        f"{'c' * 64} 812 images/trixie/ec2/amd64/20261120.0/SHA512SUMS",
        f"{'c' * 64} -1 {PLACE}.spdx.json",
        f"{'C' * 64} 812 {PLACE}.spdx.json",
        f"{'c' * 63} 812 {PLACE}.spdx.json",
        f"{'c' * 64} 812 {PLACE}.spdx.json more",
        f"{'c' * 64} {PLACE}.spdx.json",
    ],
)
def test_an_attestation_is_beside_its_image(line: str) -> None:
    text = index.render([ATTESTED]).replace(f"{'c' * 64} 812 {PLACE}.intoto.json", line)
    assert line in text
    with pytest.raises(Error, match=r"Attestations of an image record|attestation .* is not a valid name") as refused:
        index.parse(text)
    assert refused.value.status == 1


def test_attestations_begin_on_a_line_of_their_own() -> None:
    text = index.render([ATTESTED]).replace("Attestations:\n ", "Attestations: ")
    with pytest.raises(Error, match="Attestations of an image record"):
        index.parse(text)


def test_a_field_of_a_newer_archive_is_passed_over_whatever_its_lines() -> None:
    assert index.parse(index.render([RECORD]) + "Later:\n one\n two\n") == (RECORD,)


def test_the_newest_serial_is_current_by_number_not_by_text() -> None:
    records = [
        replace(RECORD, id=replace(RECORD.id, serial=serial))
        for serial in ("20261120.9", "20261120.10", "20261119.11")
    ]
    statuses = {record.id.serial: record.status for record in index.with_status(records)}
    assert statuses == {"20261120.9": "superseded", "20261120.10": "current", "20261119.11": "superseded"}


def test_each_image_has_its_own_current() -> None:
    records = index.with_status([RECORD, replace(RECORD, id=replace(RECORD.id, config="azure", serial="20261121.0"))])
    assert [record.status for record in records] == ["current", "current"]


def test_an_unofficial_image_takes_no_official_one_s_place() -> None:
    official, changed = replace(RECORD), replace(RECORD, id=replace(RECORD.id, serial="20261121.0"), official=False)
    assert [record.status for record in index.with_status([official, changed])] == ["current", "superseded"]
    older = replace(changed, id=replace(RECORD.id, serial="20261119.0"))
    assert [record.status for record in index.with_status([changed, older])] == ["current", "superseded"]


def test_index_is_sorted_whatever_the_order_of_records() -> None:
    records = [replace(RECORD, id=replace(RECORD.id, serial=f"20261120.{n}")) for n in (10, 2, 1)]
    text = index.render(records)
    assert text == index.render(reversed(records))
    assert [record.id.serial for record in index.parse(text)] == ["20261120.1", "20261120.2", "20261120.10"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Filename", "images/trixie/ec2/amd64/20261120.0/../../../../../etc/passwd"),
        ("Filename", "/etc/passwd"),
        ("Filename", "images/trixie/ec2/amd64/20261121.0/debian-13-ec2-amd64-20261120.0.qcow2"),
        ("Buildinfo", "/etc/passwd"),
        ("Suite", "../trixie"),
        ("Suite", "a..b"),
        ("Architecture", "amd64/.."),
        ("Format", "qcow2/../x"),
        ("Version", "20261120"),
        ("Version", "20261120.01"),
        ("Version", "today"),
        ("Version", "99999999.0"),
        ("Version", "20260230.0"),
        ("Version", "20261120.99999"),
        ("Size", "-1"),
        ("Size", "1e9"),
        ("Size", "9" * 40),
        ("SHA256", "A" * 64),
        ("SHA512", "a" * 64),
        ("Config-Version", "1 2"),
        ("Image", "base-files"),
        ("Official", "maybe"),
        ("Official", "No"),
        ("Image", "debian-cloud-config-../x"),
    ],
)
def test_a_lying_field_is_refused(field: str, value: str) -> None:
    lines = index.render([replace(RECORD, official=False)]).splitlines()
    text = "\n".join(f"{field}: {value}" if line.startswith(f"{field}: ") else line for line in lines)
    assert f"{field}: {value}" in text
    with pytest.raises(Error) as refused:
        index.parse(text)
    assert refused.value.status == 1


def test_a_missing_field_is_refused() -> None:
    for line in index.render([RECORD]).splitlines():
        field = line.partition(":")[0]
        cut = index.render([RECORD]).replace(line + "\n", "")
        with pytest.raises(Error, match=f"no field {field}"):
            index.parse(cut)


def test_an_unknown_field_is_refused_in_an_upload_and_passed_over_by_a_client() -> None:
    text = index.render([RECORD]) + "Shasum: 1\n"
    assert index.parse(text) == (RECORD,)
    with pytest.raises(Error, match="unknown field Shasum"):
        index.parse(text, strict=True)


def test_a_value_of_two_lines_is_refused() -> None:
    text = index.render([RECORD]).replace("Suite: trixie", "Suite: trixie\n Filename: /etc/passwd")
    with pytest.raises(Error, match="more than one line"):
        index.parse(text)


@pytest.mark.parametrize("malformed_text", malformed.BAD_IMAGES.values(), ids=malformed.BAD_IMAGES)
def test_a_malformed_index_is_refused(malformed_text: bytes) -> None:
    assert len(index.parse(malformed.IMAGES)) == 4
    with pytest.raises(Error) as refused:
        tuple(index.read(io.BytesIO(malformed_text)))
    assert refused.value.status == 1
    assert len(refused.value.message) < 9000


@pytest.mark.parametrize("text", malformed.EDGES.values(), ids=malformed.EDGES)
def test_what_is_just_right_is_read(text: bytes) -> None:
    assert len(tuple(index.read(io.BytesIO(text)))) in (0, 4)
    assert index.parse(text.decode()) == tuple(index.read(io.BytesIO(text)))


def test_what_is_read_is_written_again_and_read_as_it_was() -> None:
    records = index.parse(malformed.IMAGES)
    assert index.parse(index.render(records)) == records


READ = """
import sys
from debian_cloud.image import index, staleness
from debian_cloud.errors import Error
class Endless:
    def readline(self, size):
        return (sys.argv[1].encode().decode("unicode_escape").encode("latin-1") * size)[:size]
class Lines(Endless):
    def readline(self, size):
        return super().readline(size)[:7] + b"\\n"
for room in (index, staleness):
    for file in (Endless(), Lines()):
        try:
            for found in room.read(file):
                pass
        except Error as error:
            print(error.message)
"""


@pytest.mark.parametrize("octet", ["\\0", " ", "x", "\\n", "\\xff"])
def test_an_endless_index_takes_neither_memory_nor_for_ever(octet: str) -> None:
    done = bounds.within(
        150, [sys.executable, "-c", READ.replace("\\\\n", "\\n"), octet], PYTHONPATH=":".join(sys.path)
    )
    assert done.stdout.count(b"\n") == 4, done.stderr
