# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields of a configuration, and the disk that follows from them."""

from __future__ import annotations

import pytest

from debian_cloud import config, disk
from debian_cloud.errors import Error

FIELDS = {
    "Image-Size": "8G",
    "Image-Format": "raw qcow2",
    "Image-Firmware": "bios uefi",
    "Image-User": "admin",
    "Image-Datasource": "Ec2 None",
}


def parse(fields: dict[str, str]) -> config.ImageConfig:
    return config.parse(
        fields, name="debian-cloud-config-x", version="1", architecture="amd64", suite="trixie", description=""
    )


def test_fields_become_values() -> None:
    parsed = parse(FIELDS)
    assert (parsed.size, parsed.formats, parsed.firmware) == (8 * 2**30, ("raw", "qcow2"), ("bios", "uefi"))
    assert (parsed.user, parsed.datasources) == ("admin", ("Ec2", "None"))


def test_an_unknown_field_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(Error, match="unknown field Image-Sise") as refused:
        parse({**FIELDS, "Image-Sise": "8G"})
    assert refused.value.hint == "did you mean Image-Size?"


@pytest.mark.parametrize("field", ["Image-Size", "Image-Format"])
def test_a_required_field_is_missed(field: str) -> None:
    with pytest.raises(Error, match=f"no field {field}"):
        parse({name: value for name, value in FIELDS.items() if name != field})


@pytest.mark.parametrize("size", ["8", "8GB", "-8G", "0G", "08G", "8g", "1.5G", "9999999T"])
def test_an_invalid_size_is_refused(size: str) -> None:
    with pytest.raises(Error, match="invalid size"):
        parse({**FIELDS, "Image-Size": size})


def test_two_sizes_are_refused() -> None:
    with pytest.raises(Error, match="more than one word in Image-Size: 8 G"):
        parse({**FIELDS, "Image-Size": "8 G"})


def test_without_firmware_an_image_is_a_root_file_system() -> None:
    parsed = parse({"Image-Format": "tar.xz"})
    assert (parsed.size, parsed.formats, parsed.firmware) == (0, ("tar.xz",), ())
    assert parsed.components == ("main",)


@pytest.mark.parametrize("field", ["Image-Size", "Image-Boot-Mode", "Image-Root-Device"])
def test_a_field_of_a_disk_is_refused_where_there_is_none(field: str) -> None:
    value = {"Image-Size": "8G", "Image-Boot-Mode": "uefi", "Image-Root-Device": "/dev/xvda"}[field]
    with pytest.raises(Error, match=f"has {field}, but no Image-Firmware"):
        parse({"Image-Format": "tar.xz", field: value})


def test_an_unknown_firmware_is_refused() -> None:
    with pytest.raises(Error, match="unknown firmware efi"):
        parse({**FIELDS, "Image-Firmware": "efi"})


def test_an_image_without_uefi_is_refused() -> None:
    with pytest.raises(Error, match="boots without uefi"):
        parse({**FIELDS, "Image-Firmware": "bios"})


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(Error, match="unknown disk format qcow3") as refused:
        parse({**FIELDS, "Image-Format": "raw qcow3"})
    assert refused.value.hint == "did you mean qcow2?"


def test_partitions_are_where_official_images_have_them_and_do_not_overlap() -> None:
    layout = disk.layout("stem", 3 * 2**30, "amd64", bios=True)
    assert [(p.number, p.start // disk.MIB, p.size // disk.MIB) for p in layout.partitions] == [
        (14, 1, 3),
        (15, 4, 124),
        (1, 128, 3 * 1024 - 129),
    ]
    for before, after in zip(layout.partitions, layout.partitions[1:], strict=False):
        assert before.start + before.size <= after.start
    # The backup table takes 33 sectors at the end (UEFI 2.10, 5.3.1).
    assert layout.root.start + layout.root.size <= layout.size - 33 * disk.SECTOR


def test_the_same_name_gives_the_same_disk_and_another_name_another() -> None:
    first, again, other = (disk.layout(stem, 2**30, "amd64", bios=True) for stem in ("a", "a", "b"))
    assert first == again
    identities = [part.uuid for part in (*first.partitions, *other.partitions)]
    identities += [first.uuid, first.root_uuid, first.hash_seed, other.uuid, other.root_uuid, other.hash_seed]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("size", [0, 128 * 2**20, 2**30 + 1])
def test_a_disk_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(Error, match="too small or not whole"):
        disk.layout("stem", size, "amd64", bios=True)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(Error, match="architecture vax"):
        disk.layout("stem", 2**30, "vax", bios=True)
