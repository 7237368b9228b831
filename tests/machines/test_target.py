# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of targets: whose they are, what is in them, and what is refused."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud.errors import USAGE, Error
from debian_cloud.machines import drivers, inventory, target
from debian_cloud.machines.qemu import state
from tests.command import debian_cloud, refused
from tests.machines.records import KEPT, local


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of this user's targets; the machine's is beside it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(target, "_MACHINE", tmp_path / "etc")
    for name in ("config/debian-cloud", "etc"):
        (tmp_path / name / "targets.d").mkdir(parents=True)
    tmp_path.chmod(0o755)
    return tmp_path / "config/debian-cloud/targets.d"


def none(sentence: str) -> None:
    raise AssertionError(sentence)


def put(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text)
    path.chmod(mode)


def test_this_machine_is_always_there(folder: Path) -> None:
    assert target.read(none) == target.Read((target.LOCAL,))
    assert target.find("local", none) == target.LOCAL


def test_a_user_s_file_comes_before_the_machine_s(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "etc/targets.d/lab.target", "Target: lab\nDriver: qemu\nDirectory: /srv/lab\n")
    put(tmp_path / "etc/targets.d/zoo.target", "Target: zoo\nDriver: qemu\n")
    put(folder / "lab.target", "# mine\nTarget: lab\nDriver: qemu\nDirectory: /srv/mine\n")
    put(folder / "README", "not one")
    found = {one.name: one for one in target.read(none).targets}
    assert [*found] == ["local", "lab", "zoo"]
    assert found["lab"].settings == {"Directory": "/srv/mine"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has 0 stanzas"),
        ("Driver: qemu\n", "has no field Target"),
        ("Target: lab\n", "has no field Driver"),
        ("Target: lab\nDriver: qemu\n\nTarget: two\nDriver: qemu\n", "has 2 stanzas"),
        ("Target: other\nDriver: qemu\n", "is of a target other"),
        ("Target: ../lab\nDriver: qemu\n", "not a valid name"),
        ("x" * 70000, "more than 65536 bytes"),
    ],
)
def test_what_is_not_a_target(folder: Path, text: str, said: str) -> None:
    put(folder / "lab.target", text)
    put(folder / "zoo.target", "Target: zoo\nDriver: qemu\n")
    read = target.read(none)
    # It hides no other.
    assert [one.name for one in read.targets] == ["local", "zoo"]
    assert [said in one for one in read.refused] == [True]
    with pytest.raises(Error, match=said):
        target.find("lab", none)
    assert target.find("zoo", none).driver == "qemu"


def test_a_file_that_others_can_change_is_refused(folder: Path) -> None:
    put(folder / "lab.target", "Target: lab\nDriver: qemu\n", 0o666)
    with pytest.raises(Error, match="could change where instances run"):
        target.find("lab", none)
    assert target.find("local", none) == target.LOCAL


def test_a_file_that_is_for_others_is_left_out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so it is pretended that this user may not."""
    put(tmp_path / "etc/targets.d/lab.target", "Target: lab\nDriver: qemu\nPassword: x\n", 0o600)
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("lab.target"))
    assert target.read(none) == target.Read((target.LOCAL,))


@pytest.mark.parametrize("name", ["lab", "local"])
def test_no_other_file_acts_in_the_place_of_a_bad_one(folder: Path, tmp_path: Path, name: str) -> None:
    put(tmp_path / f"etc/targets.d/{name}.target", f"Target: {name}\nDriver: qemu\nDirectory: /srv/x\n")
    put(folder / f"{name}.target", f"Target: {name}\n")
    read = target.read(none)
    assert name not in {one.name for one in read.targets}
    assert len(read.refused) == 1


def test_a_provider_that_fails_does_not_hide_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "lab.target", "Target: lab\nDriver: qemu\n")
    real = drivers.provider

    def provider(of: target.Target) -> drivers.Provider:
        if of.name == "lab":
            raise PermissionError(13, "Permission denied", "/srv/private")
        return real(of)

    monkeypatch.setattr(drivers, "provider", provider)
    assert inventory.instances("", none).refused == ("target lab is left out: /srv/private: Permission denied",)
    said: list[str] = []
    with pytest.raises(Error, match="there is no instance x"):
        inventory.find("x", "", said.append)
    assert len(said) == 1


@pytest.mark.parametrize("field", ["Endpoint: http://me:secret@ec2.example", "Secret-Key: 1234", "Password: x"])
def test_a_secret_that_others_can_read_is_warned_of(folder: Path, field: str) -> None:
    text = f"Target: lab\nDriver: qemu\n{field}\n"
    put(folder / "lab.target", text)
    said: list[str] = []
    target.read(said.append)
    assert ["chmod 600" in one for one in said] == [True]
    put(folder / "lab.target", text, 0o600)
    target.read(none)


def test_an_unknown_one_is_named(folder: Path) -> None:
    with pytest.raises(Error, match="no target locl") as error:
        target.find("locl", none)
    assert (error.value.hint, error.value.status) == ("did you mean local?", USAGE)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("Driver: qemo\n", "unknown driver qemo", "did you mean qemu?"),
        ("Driver: qemu\nDirectry: /x\n", "unknown field Directry", "did you mean Directory?"),
        ("Driver: qemu\nDirectory: x\n", "not an absolute path", "give one"),
        ("Driver: ../qemu\n", "unknown driver", "qemu"),
    ],
)
def test_a_driver_refuses_what_it_does_not_know(folder: Path, text: str, said: str, hint: str) -> None:
    put(folder / "lab.target", f"Target: lab\n{text}")
    with pytest.raises(Error, match=said) as error:
        drivers.provider(target.find("lab", none))
    assert hint in error.value.hint


def test_a_target_that_cannot_be_asked_does_not_hide_the_others(folder: Path) -> None:
    put(folder / "lab.target", "Target: lab\nDriver: qemo\n")
    known = inventory.instances("", none)
    assert known.instances == ()
    assert ["target lab is left out" in one for one in known.refused] == [True]
    with pytest.raises(Error, match="unknown driver"):
        inventory.instances("lab", none)
    said: list[str] = []
    with pytest.raises(Error, match="no instance x"):
        inventory.find("x", "", said.append)
    assert ["target lab is left out" in one for one in said] == [True]


def test_a_name_that_two_targets_have(folder: Path, tmp_path: Path) -> None:
    put(folder / "lab.target", f"Target: lab\nDriver: qemu\nDirectory: {tmp_path / 'lab'}\n")
    for place in (tmp_path / "state/debian-cloud", tmp_path / "lab"):
        state.root(str(place))
        (place / "instances/a").mkdir(mode=0o700)
        state.write(place / "instances/a", replace(KEPT, name="a"))
    with pytest.raises(Error, match="several targets have an instance a: local, lab") as error:
        inventory.find("a", "", none)
    assert error.value.hint == "choose one with --on TARGET"
    assert inventory.find("a", "lab", none)[1].target == "lab"
    # The one that has expired is ended, and the other one is not.
    state.write(tmp_path / "lab/instances/a", replace(KEPT, name="a", expires=1))
    done = debian_cloud("terminate", "typo", "--expired")
    refused(done, 2, "there is no instance typo")
    assert done.stdout == "a is terminated\n"
    assert (tmp_path / "state/debian-cloud/instances/a").exists()
    assert not (tmp_path / "lab/instances/a").exists()
    put(folder / "lab.target", "Target: lab\nDriver: qemo\n")
    done = debian_cloud("terminate", "--expired")
    assert (done.returncode, "target lab is left out" in done.stderr) == (1, True)


def test_each_driver_has_its_interface() -> None:
    assert drivers.names() == ("ec2", "libvirt", "qemu")
    wanted = {name for name in vars(drivers.Provider) if not name.startswith("_")}
    for name in drivers.names():
        module = importlib.import_module(f"debian_cloud.machines.drivers.{name}")
        assert all(re.fullmatch("[A-Z][A-Za-z0-9-]*", field) for field in module.FIELDS)
        provided = inspect.signature(module.provider).return_annotation
        assert wanted <= {*dir(getattr(module, provided)), *getattr(module, provided).__dataclass_fields__}


def test_no_driver_needs_another_s_library() -> None:
    """boto3 and libvirt take seconds to load, and are not everywhere."""
    code = """
import sys
from debian_cloud.machines import drivers, registry, running
import debian_cloud.machines.drivers.qemu
print([name for name in ("boto3", "libvirt") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_directory_of_instances_that_others_can_change_is_refused(tmp_path: Path) -> None:
    local(tmp_path)
    (tmp_path / "local/instances").chmod(0o777)
    with pytest.raises(Error, match="could change instances"):
        local(tmp_path)
