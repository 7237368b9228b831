# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine of an image must have: from its configuration to its record and back."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.image import config, index, machine, metadata
from debian_cloud.image.buildinfo import Draft
from debian_cloud.image.machine import Machine
from debian_cloud.names import PACKAGE_PREFIX
from debian_cloud.text import deb822
from tests.samples import CONFIG, DEBIAN, DIGEST, RECORD, RESOLUTION, SERIAL, configured
from tools import render

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name for path in (ROOT / "configs").glob("*/stanza.j2"))


@functools.cache
def control() -> dict[str, dict[str, str]]:
    """Name of a configuration -> its fields, as a build writes them before it looks at the architecture."""
    stanzas = deb822.parse(re.sub(r"(?m)^#.*\n", "", render.render(ROOT)))
    return {
        stanza["Package"].removeprefix(PACKAGE_PREFIX): {key.removeprefix("XB-"): stanza[key] for key in stanza}
        for stanza in stanzas
        if "Package" in stanza
    }


def test_each_field_is_one_of_a_configuration() -> None:
    for field in machine.FIELDS:
        known = config.FIELDS[f"{config.PREFIX}{field}"]
        assert known.single == (field not in machine.SEVERAL), field
    assert set(machine.FIELDS) & {"Size", "Format", *index.__dict__} == set()


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
@pytest.mark.parametrize("name", NAMES)
def test_the_facts_of_each_configuration_go_through_a_record(name: str, architecture: str) -> None:
    fields = config.of_architecture(control()[name], architecture)
    if not config.is_image(fields):
        return
    found = configured(fields, name, architecture)
    of = Machine.of(found)
    record = replace(RECORD, machine=of)
    (again,) = index.parse(index.render([record]), strict=True)
    assert again == record
    # Each word that the configuration has in such a field is there.
    text = index.render([record])
    for field in machine.FIELDS:
        value = fields.get(f"{config.PREFIX}{field}", "")
        assert (f"\n{field}: {value}\n" in text) == bool(value), field


def test_a_build_writes_them() -> None:
    draft = Draft.parse(Draft.of(RESOLUTION, SERIAL, ("raw", "qcow2"), DEBIAN, "1" * 64).render())
    assert draft.machine == Machine.of(CONFIG)
    digest = replace(DIGEST, hashes={**DIGEST.hashes, "sha512": "b" * 128})
    text = metadata.record(draft, {draft.buildinfo.id.file(name): digest for name in draft.formats})
    assert "\nFirmware: bios uefi\nUser: admin\nDatasource: Ec2\n" in text
    assert index.parse(text, strict=True)[0].machine == draft.machine


def test_a_record_of_an_older_archive_says_nothing() -> None:
    (record,) = index.parse(index.render([RECORD]))
    assert record.machine == machine.UNKNOWN
    assert not any(value for _, value in record.machine.fields())


def test_a_newer_archive_may_have_other_words_but_no_upload() -> None:
    stanza = {"Firmware": "uefi coreboot", "Imds": "v3.0", "Volume": "gp9"}
    assert machine.read(stanza).firmware == ("uefi", "coreboot")
    with pytest.raises(Error, match="coreboot in Image-Firmware"):
        machine.read(stanza, strict=True)
    (written,) = deb822.canonical(index.render([replace(RECORD, machine=machine.read(stanza))]))
    assert {field: written[field] for field in stanza} == stanza


def test_files_of_one_image_are_for_one_machine() -> None:
    other = replace(RECORD, format="raw", machine=Machine(user="root"))
    with pytest.raises(Error, match="two image records disagree on the machine of debian-13-ec2-amd64-20261120"):
        index.parse(index.render([RECORD, other]))
