# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of images may be started: those of a signed .buildinfo, with their own record, and not withdrawn."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from debian_cloud.errors import Error
from debian_cloud.image.id import ImageId
from debian_cloud.image.staleness import ImageStatus
from debian_cloud.machines import source
from debian_cloud.packages import evidence, origin
from debian_cloud.proof.trust import Trust
from tests.conftest import SUITE

if TYPE_CHECKING:
    from tests.conftest import World


@dataclass(frozen=True, slots=True)
class Case:
    """A directory with the links to the files of a published image; they can be replaced one by one."""

    file: Path
    said: list[str] = field(default_factory=list)

    def beside(self, suffix: str) -> Path:
        return self.file.with_suffix(f".{suffix}")

    def read(self, *, unsigned: bool = False, anyway: bool = False) -> source.Source:
        self.said.clear()
        return source.of_file(self.file, Trust(unsigned=unsigned), self.said.append, anyway=anyway)

    @property
    def id(self) -> ImageId:
        return self.read().record.id

    def change(self, name: str, old: str, new: str) -> None:
        path = self.file.with_name(name)
        text = path.read_text()
        assert old in text
        path.unlink()
        path.write_text(text.replace(old, new))


@pytest.fixture
def case(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """An image of an archive of the user's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(world.folder / "config"))
    monkeypatch.setattr(evidence, "of_machine", lambda _: None)
    (there,) = (world.public / f"images/{SUITE}/ec2/amd64").glob("2*")
    for path in there.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (image,) = tmp_path.glob("debian-*-2*.qcow2")
    return Case(image)


def test_one_that_was_published_is_as_its_archive_signed_it(case: Case) -> None:
    found = case.read()
    assert case.said == []
    assert (found.record.format, found.record.machine.user) == ("qcow2", "admin")
    assert found.record.name == case.file.name
    assert found.digest.startswith("sha256-")
    assert found.file == case.file


def test_one_that_was_changed_is_not(case: Case) -> None:
    there = case.file.resolve()
    case.file.unlink()
    shutil.copyfile(there, case.file)
    with case.file.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    for unsigned in (False, True):
        with pytest.raises(Error, match=r"is not the file that the \.buildinfo of .* describes"):
            case.read(unsigned=unsigned)


def test_one_whose_buildinfo_is_not_signed_must_be_asked_for(case: Case) -> None:
    for name in ("SHA512SUMS", "SHA512SUMS.gpg"):
        case.file.with_name(name).unlink()
    case.change(case.beside("buildinfo").name, "Build-Architecture: amd64", "Build-Architecture: arm64")
    with pytest.raises(Error, match="signed, but by an unknown key"):
        case.read()
    # Its bytes must be those that it describes all the same.
    assert case.read(unsigned=True).record.id.config == "ec2"


def test_one_whose_record_was_changed(case: Case) -> None:
    case.change(case.beside("image").name, "User: admin", "User: root")
    with pytest.raises(Error, match="is not the record in SHA512SUMS"):
        case.read()
    # Who trusts it without a signature is told so.
    assert case.read(unsigned=True).record.machine.user == "root"
    assert ["no signature" in one for one in case.said] == [True]


def test_one_whose_record_is_another_s(case: Case) -> None:
    case.change(case.beside("image").name, "20", "19")
    with pytest.raises(Error):
        case.read(unsigned=True)


def test_one_without_a_record(case: Case) -> None:
    case.beside("image").unlink()
    with pytest.raises(Error, match=r"the record of .* is not beside it") as error:
        case.read()
    assert case.beside("image").name in error.value.hint


def test_one_that_the_user_s_own_archive_has_withdrawn(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    status = ImageStatus(case.id, "withdrawn", "2026-11-21", "it has \x1b[2J a key")
    other = replace(status, id=replace(case.id, serial="20200101.0"))
    statuses = [other, status]
    none = SimpleNamespace(refused=())
    offered = SimpleNamespace(known=none, said=SimpleNamespace(statuses=statuses, refused=()))
    monkeypatch.setattr(origin, "offered", lambda *_: offered)
    with pytest.raises(Error, match="is withdrawn: it has ") as error:
        case.read()
    assert "\x1b" not in error.value.message
    assert "--anyway" in error.value.hint
    assert case.read(anyway=True).record.id == status.id
    assert ["is withdrawn" in one for one in case.said] == [True]
    statuses.remove(status)
    case.read()
    assert case.said == []


def test_an_archive_that_cannot_be_asked_is_said(
    case: Case, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own archive has gone, or moved: nobody can say whether the image was withdrawn."""
    config = tmp_path / "config/debian-cloud"
    config.mkdir(parents=True)
    (there,) = (world.folder / "config/debian-cloud").glob("*.sources")
    (config / there.name).write_text(there.read_text().replace(f"{world.public}", f"{tmp_path / 'gone'}"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    case.read()
    assert ["was withdrawn is not known for sure" in one for one in case.said] == [True]
