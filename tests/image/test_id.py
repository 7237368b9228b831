# SPDX-License-Identifier: GPL-3.0-or-later
"""Identity of an image: all its paths and file names follow from four words, and none leads elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from debian_cloud import names
from debian_cloud.errors import Error
from debian_cloud.image.id import ImageId

THIS = ImageId("trixie", "ec2", "amd64", "20261120.0")


def test_all_names_follow_from_four_words() -> None:
    assert str(THIS) == "trixie/ec2/amd64/20261120.0"
    assert (THIS.series, THIS.release) == ("trixie/ec2/amd64", "trixie/20261120.0")
    assert THIS.package == "debian-cloud-config-ec2"
    assert THIS.stem == "debian-13-ec2-amd64-20261120.0"
    # A suite without a number keeps its name.
    assert replace(THIS, suite="sid").stem == "debian-sid-ec2-amd64-20261120.0"
    assert THIS.file("buildinfo") == f"{THIS.stem}.buildinfo"
    assert [THIS.path(), THIS.path(names.CLOSURES), THIS.path(names.REBUILDS)] == [
        f"{tree}/trixie/ec2/amd64/20261120.0" for tree in ("images", "closures", "rebuilds")
    ]


def test_a_name_and_a_path_are_read_back() -> None:
    assert ImageId.parse(str(THIS)) == THIS
    assert ImageId.parse(THIS.path(names.CLOSURES), names.CLOSURES) == THIS
    # A path in another tree is not an image's path in this one.
    for text in (str(THIS), THIS.path(names.REBUILDS), f"{THIS.path(names.CLOSURES)}/x", f"/{THIS.path('closures')}"):
        with pytest.raises(Error):
            ImageId.parse(text, names.CLOSURES)


def test_serials_are_ordered_by_number() -> None:
    serials = [replace(THIS, serial=serial) for serial in ("20261120.10", "20261121.0", "20261120.9")]
    assert [image.serial for image in sorted(serials, key=lambda image: image.number)] == [
        "20261120.9",
        "20261120.10",
        "20261121.0",
    ]


@pytest.mark.parametrize("word", ["", ".", "..", "a..b", "a/b", "/a", "-a", "A", "a b", "a\n", "é", "a\0"])
@pytest.mark.parametrize("field", ["suite", "config", "architecture", "serial"])
def test_no_word_leads_elsewhere(field: str, word: str) -> None:
    with pytest.raises(Error, match=r"is not (a valid name|an image serial)"):
        replace(THIS, **{field: word})


@pytest.mark.parametrize(
    "text",
    ["", "a/b/c", "a/b/c/20261120.0/x", "../b/c/20261120.0", "a//c/20261120.0", "a/b/c/today", "a/b/c/d\x1b[2J"],
)
def test_what_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(Error, match=r"is not an image|is not") as refused:
        ImageId.parse(text)
    assert "\x1b" not in refused.value.message
