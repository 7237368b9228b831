# SPDX-License-Identifier: GPL-3.0-or-later
"""A rebuilder's statement is signed, and each key counts once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_cloud import projections
from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.image.buildinfo import Buildinfo
from debian_cloud.projections import provenance
from debian_cloud.proof import trust
from tests import throwaway
from tests.archive.conftest import Key, make_key
from tests.samples import described


@pytest.fixture(scope="module")
def keys() -> Iterator[list[Key]]:
    with throwaway.folder() as top:
        yield [make_key(top, name) for name in ("ann", "bob", "eve")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with the SHA-256 in the .buildinfo."""
    path = tmp_path / f"{Buildinfo.parse(described(), 'x').stem}.raw"
    path.write_bytes(b"the image")
    return path


def state(image: Path, key: Key, name: str, folder: Path, content: bytes | None = None) -> Path:
    """Write a rebuilder's statement that it built these bytes."""
    sha256 = throwaway.sha256(image.read_bytes() if content is None else content)
    kept = Buildinfo.parse(described().replace("a" * 64, sha256), "x")
    itself = {"x.buildinfo": {"sha256": "b" * 64}}
    document = provenance.rebuilt(kept, {image.name: {"sha256-blocks": sha256}}, itself)
    folder.mkdir(exist_ok=True)
    text = folder / "text"
    text.write_text(projections.text(document))
    sign.clearly(text, folder / f"{name}.asc", key.home)
    text.unlink()
    return folder / f"{name}.asc"


def count(image: Path, demanded: int, trusted: list[Key]) -> tuple[str, ...]:
    keyring = image.with_name("rebuilders.gpg")
    exported = [
        subprocess.run(["gpg", "--homedir", key.home, "--export"], capture_output=True, check=True).stdout
        for key in trusted
    ]
    keyring.write_bytes(b"".join(exported))
    statements = image.with_name("statements")
    return trust.rebuilders(
        trust.Rebuilders(demanded, keyring, statements),
        {image.name: ("sha256-blocks", throwaway.sha256(image.read_bytes()))},
    )


def test_distinct_keys_are_counted(image: Path, keys: list[Key]) -> None:
    ann, bob, eve = keys
    folder = image.with_name("statements")
    state(image, ann, "1", folder)
    state(image, bob, "2", folder)
    assert len(count(image, 2, [ann, bob])) == 2
    # Two statements with one key count once.
    state(image, ann, "3", folder)
    assert len(count(image, 2, [ann, bob])) == 2
    with pytest.raises(Error, match="only 2 of 3 rebuilders state that they got the same bytes"):
        count(image, 3, [ann, bob])
    # A statement with an unknown key does not count.
    state(image, eve, "4", folder)
    with pytest.raises(Error, match="2 of 3 rebuilders"):
        count(image, 3, [ann, bob])
    assert len(count(image, 3, keys)) == 3


def test_a_word_about_other_bytes_does_not_count(image: Path, keys: list[Key]) -> None:
    state(image, keys[0], "1", image.with_name("statements"), b"another image")
    with pytest.raises(Error, match="0 of 1 rebuilders") as caught:
        count(image, 1, keys)
    assert "1.asc describes other bytes" in caught.value.hint


def test_an_edited_word_does_not_count(image: Path, keys: list[Key]) -> None:
    folder = image.with_name("statements")
    file = state(image, keys[0], "1", folder, b"another image")
    file.write_text(file.read_text().replace(throwaway.sha256(b"another image"), throwaway.sha256(b"the image")))
    (folder / "2.asc").write_text("no statement at all")
    with pytest.raises(Error, match="0 of 1 rebuilders") as caught:
        count(image, 1, keys)
    assert "1.asc has no valid signature" in caught.value.hint
    assert "2.asc has no valid signature" in caught.value.hint


def test_a_builder_s_own_word_is_no_rebuilder_s(image: Path, keys: list[Key]) -> None:
    sha256 = throwaway.sha256(image.read_bytes())
    kept = Buildinfo.parse(described().replace("a" * 64, sha256), "x")
    folder = image.with_name("statements")
    folder.mkdir()
    text = image.with_name("text")
    text.write_text(projections.text(provenance.built(kept, {image.name: {"sha256-blocks": sha256}})))
    sign.clearly(text, folder / "1.asc", keys[0].home)
    with pytest.raises(Error, match="0 of 1 rebuilders"):
        count(image, 1, keys)


def test_statements_without_end_are_not_read(image: Path, keys: list[Key]) -> None:
    state(image, keys[0], "1", image.with_name("statements"), image.read_bytes())
    folder = image.with_name("statements")
    for number in range(1001):
        (folder / f"x{number}.asc").touch()
    with pytest.raises(Error, match="has more than 1000 statements"):
        count(image, 1, keys)
