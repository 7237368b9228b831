# SPDX-License-Identifier: GPL-3.0-or-later
"""An index of images that was read as far as it has changed is taken or refused like one that was read whole."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest

from debian_cloud.errors import Error
from debian_cloud.image import index
from debian_cloud.image.id import ImageId
from debian_cloud.image.index import Attestation, ImageRecord
from debian_cloud.mirror import changed, listed
from debian_cloud.mirror.listed import Listed
from tests import malformed
from tests.mirror.tree import Archive, Mirror


def record(config: str, serial: str, form: str = "qcow2", status: str = "superseded") -> ImageRecord:
    return ImageRecord(
        ImageId("trixie", config, "amd64", serial),
        *(form, "1", 10, 20, "a" * 64, "b" * 128),
        buildinfo_sha256="c" * 64,
        attestations=(Attestation("cdx.json", 5, "d" * 64),),
        status=status,
    )


OLD = (record("ec2", "20261120.0"), record("ec2", "20261121.0", status="current"), record("gce", "20261120.0"))
SHOWN = index.render(OLD).encode()


def whole(text: bytes) -> list[Listed] | str:
    """What a reader of the whole index gives, or that it refuses it."""
    try:
        return sorted(listed.images(io.BytesIO(text)))
    except Error:
        return "refused"


def compared(text: bytes, shown: bytes = SHOWN) -> list[Listed] | str:
    try:
        return sorted(changed.images(text, shown))
    except Error:
        return "refused"


@pytest.mark.parametrize(
    "records",
    [
        OLD,
        OLD[:1],
        (*OLD, record("gce", "20261121.0")),
        (*OLD, record("azure", "20261121.0")),
        (*OLD, record("ec2", "20261120.0", "raw")),
        (OLD[0], record("ec2", "20261121.0"), record("ec2", "20261122.0", status="current"), OLD[2]),
    ],
)
def test_what_is_valid_is_taken(records: tuple[ImageRecord, ...]) -> None:
    text = index.render(records).encode()
    assert compared(text) == whole(text)
    assert len(compared(text)) == len(records)


def another(stanza: bytes) -> bytes:
    """The same image in another format, with another .buildinfo of the same name."""
    return stanza.replace(b"qcow2", b"raw", 2).replace(b"c" * 64, b"e" * 64)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "two serials are current": lambda text: text.replace(b"Status: superseded", b"Status: current", 1),
    "a file twice": lambda text: text + b"\n" + text[: text.index(b"\n\n") + 1],
    "a stanza without its end": lambda text: text.replace(b"\n\n", b"\n", 1),
    "a hash that is none": lambda text: text.replace(b"SHA256: aa", b"SHA256: xx", 1),
    "another path": lambda text: text.replace(b"/20261120.0/debian", b"/../debian", 1),
    "no path": lambda text: text.replace(b"Filename: ", b"Filname: ", 1),
    "two paths": lambda text: text.replace(b"Filename: ", b"Filename: images/trixie/ec2/amd64/x\nFilename: ", 1),
    "an unknown status": lambda text: text.replace(b"Status: current", b"Status: best"),
    "a control character": lambda text: text.replace(b"Version: 2", b"Version: \x1b2", 1),
    "a disagreement": lambda text: text + b"\n" + another(text[: text.index(b"\n\n") + 1]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_invalid_is_refused(name: str) -> None:
    text = CHANGES[name](SHOWN)
    assert text != SHOWN
    assert whole(text) == compared(text) == "refused"


@pytest.mark.parametrize("name", malformed.BAD_IMAGES)
def test_what_a_client_refuses_is_refused_beside_what_is_shown(name: str) -> None:
    text = malformed.BAD_IMAGES[name]
    if len(text) > 2**20:
        pytest.skip("it is tried in test_mirror.py, within bounds")
    assert whole(text) == "refused"
    assert compared(text) == "refused"
    assert compared(SHOWN + b"\n" + text) == whole(SHOWN + b"\n" + text)
    assert compared(text, malformed.IMAGES.encode()) == "refused"


def test_many_small_stanzas_are_read_as_they_come() -> None:
    assert changed._series(b"Filename: images/a/b/c/d\n\n" * 1000) is None
    assert compared(b"\n" * 1000) == whole(b"\n" * 1000) == []


def test_a_damaged_index_of_the_mirror_is_not_compared(archive: Archive, mirror: Mirror) -> None:
    mirror.ok()
    place = mirror.dest / "dists/trixie/main/images/Images"
    text = place.read_bytes()
    # The same size, and a fault that only a reader of all series would find in the next one.
    place.write_bytes(text.replace(b"Status: superseded", b"Status:  uperseded", 1))
    archive.images["generic 20261120.0"] = re.sub(
        "(?m)^Size: 50000$", "Size: 0", archive.images["generic 20261120.0"]
    )
    archive.publish()
    mirror.refused(says="Size of an image record")
