# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields of a configuration."""

from __future__ import annotations

import re

import pytest

from debian_cloud.errors import Error
from debian_cloud.image import config

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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("Image-Size", size) for size in ("1M", "511M", "65T", "999999T")),
        *(("Image-Memory", memory) for memory in ("1M", "33T")),
    ],
)
def test_a_size_that_no_machine_has_is_refused(field: str, value: str) -> None:
    with pytest.raises(Error, match=f"invalid size {value} in {field}") as refused:
        parse({**FIELDS, field: value})
    assert refused.value.hint == {"Image-Size": "from 512M to 64T", "Image-Memory": "from 64M to 32T"}[field]


def test_the_least_and_the_most_are_sizes() -> None:
    assert [parse({**FIELDS, "Image-Size": size}).size for size in ("512M", "64T")] == [2**29, 2**46]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("Image-User", name) for name in ("ro;ot", "Admin", "0day", "-x", "a" * 33, "a.b", "admin$")),
        *(("Image-Root-Device", name) for name in ("zzz", "/dev/", "/dev/../x", "/dev/XVDA", "dev/xvda")),
        *(("Image-Console", name) for name in ("ttyS", "tty0", "/dev/ttyS0", "ttyS0,115200", "S0")),
        *(("Image-Volume", name) for name in ("gp3;", "3", "gp3,gp2")),
        ("Image-Datasource", "[Ec2,"),
    ],
)
def test_a_word_that_cannot_be_is_refused(field: str, value: str) -> None:
    with pytest.raises(Error) as refused:
        parse({**FIELDS, field: value})
    assert f"has the invalid word {value.split()[0]!r} in {field}" in refused.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("Image-User", name) for name in ("debian", "_apt", "a-b_9", "a" * 32)),
        *(("Image-Root-Device", name) for name in ("/dev/sda", "/dev/xvda")),
        *(("Image-Console", name) for name in ("ttyS0", "ttyAMA0", "hvc0", "ttyS10")),
        *(("Image-Volume", name) for name in ("gp3", "pd-balanced", "Premium_LRS")),
    ],
)
def test_a_word_that_can_be_is_taken(field: str, value: str) -> None:
    name = field.removeprefix("Image-").lower().replace("-", "_")
    assert getattr(parse({**FIELDS, field: value}), name) == value


@pytest.mark.parametrize("field", [name for name in config.FIELDS if name != "Image-Format"])
def test_a_field_with_nothing_in_it_is_refused(field: str) -> None:
    with pytest.raises(Error, match=f"has an empty {field}"):
        parse({**FIELDS, field: " "})


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("Image-Format", "raw raw", "raw"),
        ("Image-Firmware", "uefi uefi", "uefi"),
        ("Image-Cdrom", "ide usb ide", "ide"),
    ],
)
def test_a_word_said_twice_is_refused(field: str, value: str, word: str) -> None:
    with pytest.raises(Error, match=f"has {word} twice in {field}"):
        parse({**FIELDS, field: value})


@pytest.mark.parametrize("firmware", ["uefi raspi", "raspi uefi", "bios raspi", "bios uefi raspi"])
def test_a_raspberry_boots_by_nothing_else(firmware: str) -> None:
    with pytest.raises(Error, match="boots by raspi and by other firmware"):
        parse({**FIELDS, "Image-Firmware": firmware})


@pytest.mark.parametrize(
    ("mode", "firmware", "hint"),
    [
        ("legacy-bios", "uefi", "legacy-bios needs bios"),
        ("uefi-preferred", "uefi", "uefi-preferred needs bios and uefi"),
        ("legacy-bios", "raspi", "legacy-bios needs bios"),
        ("uefi", "raspi", "uefi needs uefi"),
    ],
)
def test_a_boot_mode_that_the_disk_has_not_is_refused(mode: str, firmware: str, hint: str) -> None:
    with pytest.raises(Error, match=f"has Image-Boot-Mode {mode}, but Image-Firmware {firmware}") as refused:
        parse({**FIELDS, "Image-Firmware": firmware, "Image-Boot-Mode": mode})
    assert refused.value.hint == hint


@pytest.mark.parametrize(
    ("mode", "firmware"),
    [("legacy-bios", "bios uefi"), ("uefi", "uefi"), ("uefi", "bios uefi"), ("uefi-preferred", "bios uefi")],
)
def test_a_boot_mode_that_the_disk_has_is_taken(mode: str, firmware: str) -> None:
    assert parse({**FIELDS, "Image-Firmware": firmware, "Image-Boot-Mode": mode}).boot_mode == mode


def test_a_format_is_made_of_what_the_image_is() -> None:
    with pytest.raises(Error, match=r"is a disk, which has no format tar\.xz") as refused:
        parse({**FIELDS, "Image-Format": "raw tar.xz"})
    assert refused.value.hint == "Image-Format: qcow2 raw raw.xz tar.gz vhd"
    with pytest.raises(Error, match="is a root file system without a disk, which has no format raw"):
        parse({"Image-Format": "raw"})


def test_a_mark_keeps_a_word_to_its_architecture() -> None:
    fields = {
        "Package": "x [amd64]",
        "Image-Firmware": "bios [amd64] uefi",
        "Image-Boot-Mode": "uefi-preferred [amd64] uefi [arm64]",
        "Image-Tpm": "v2.0 [amd64]",
    }
    assert config.of_architecture(fields, "amd64") == {
        "Package": "x [amd64]",
        "Image-Firmware": "bios uefi",
        "Image-Boot-Mode": "uefi-preferred",
        "Image-Tpm": "v2.0",
    }
    assert config.of_architecture(fields, "arm64") == {
        "Package": "x [amd64]",
        "Image-Firmware": "uefi",
        "Image-Boot-Mode": "uefi",
    }


@pytest.mark.parametrize("mark", ["amd64 arm64", "!amd64", ""])
@pytest.mark.parametrize("field", config.FIELDS)
def test_a_mark_that_is_not_one_architecture_is_no_word(field: str, mark: str) -> None:
    """In relations, dpkg knows such marks; in these fields, the missing word would not be noticed."""
    word = FIELDS.get(field) or next(iter(config.FIELDS[field].words), "/v2.0" if "Secrets" in field else "v2.0")
    marked = config.of_architecture({**FIELDS, field: f"{word} [{mark}]"}, "amd64")
    with pytest.raises(Error, match=re.escape(f"[{mark}".split()[0])):
        parse(marked)


@pytest.mark.parametrize("field", ["Image-Drop-Secrets", "Image-Keep-Secrets"])
@pytest.mark.parametrize("path", ["etc/munge/munge.key", "/", "//etc", "/etc/", "munge"])
def test_what_is_decided_on_is_a_path(field: str, path: str) -> None:
    with pytest.raises(Error, match=f"has the invalid word {path!r} in {field}"):
        parse({**FIELDS, field: path})


def test_paths_that_are_decided_on_become_values() -> None:
    both = {"Image-Drop-Secrets": "/var/lib/mysql/**", "Image-Keep-Secrets": "/etc/a /boot/initrd.img-*:etc/a"}
    parsed = parse({**FIELDS, **both})
    assert parsed.drop_secrets == ("/var/lib/mysql/**",)
    assert parsed.keep_secrets == ("/etc/a", "/boot/initrd.img-*:etc/a")


def test_two_sizes_are_refused() -> None:
    with pytest.raises(Error, match="more than one word in Image-Size: 8 G"):
        parse({**FIELDS, "Image-Size": "8 G"})


def test_without_firmware_an_image_is_a_root_file_system() -> None:
    parsed = parse({"Image-Format": "tar.xz"})
    assert (parsed.size, parsed.formats, parsed.firmware) == (0, ("tar.xz",), ())
    assert parsed.components == ("main",)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Image-Size", "8G"),
        ("Image-Boot-Mode", "uefi"),
        ("Image-Root-Device", "/dev/xvda"),
        ("Image-Drivers", "virtio"),
        ("Image-Console", "ttyS0"),
        ("Image-Cdrom", "sata"),
        ("Image-Imds", "v2.0"),
        ("Image-Tpm", "v2.0"),
        ("Image-Volume", "gp3"),
    ],
)
def test_a_field_of_a_disk_is_refused_where_there_is_none(field: str, value: str) -> None:
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
