# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether virtual processors run: the instructions of the probe, and for how long its answer holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.machines.qemu import acceleration, command


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_instructions_end_qemu(architecture: str, tmp_path: Path) -> None:
    """The same command as the probe's, but emulated."""
    sector = tmp_path / "a,b"
    sector.write_bytes(acceleration._SECTORS[architecture])
    words = command.probe(architecture, str(sector))
    emulated = ["tcg" if word == "kvm" else "max" if word == "host" else word for word in words]
    assert run.status(emulated, 60) == acceleration._ENDED[architecture]
    assert sector.read_bytes() == acceleration._SECTORS[architecture]


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each probe's answer, which is the next of this list; the device is there."""
    answers: list[int] = []
    monkeypatch.delenv(acceleration.OVERRIDE, raising=False)
    monkeypatch.setattr(acceleration, "_DEVICE", Path("/dev/null"))
    monkeypatch.setattr(acceleration, "_MACHINES", {os.uname().machine: "amd64"})
    monkeypatch.setattr(run, "status", lambda *_: answers.pop(0))
    return answers


def test_that_it_works_is_remembered_until_the_next_boot(probed: list[int], tmp_path: Path) -> None:
    probed += [acceleration._ENDED["amd64"], -9]
    assert [acceleration.found(tmp_path, "amd64") for _ in range(3)] == ["kvm"] * 3
    (tmp_path / "acceleration").write_text("another-boot kvm\n")
    assert acceleration.found(tmp_path, "amd64") == "tcg"
    assert probed == []


def test_that_it_does_not_is_forgotten_after_an_hour(probed: list[int], tmp_path: Path) -> None:
    probed += [-9, acceleration._ENDED["amd64"]]
    assert [acceleration.found(tmp_path, "amd64") for _ in range(2)] == ["tcg"] * 2
    old = (tmp_path / "acceleration").stat().st_mtime - 3601
    os.utime(tmp_path / "acceleration", (old, old))
    assert acceleration.found(tmp_path, "amd64") == "kvm"


@pytest.mark.parametrize("text", ["", "x", "a b c", "x" * 1000])
def test_what_was_not_written_by_a_probe(probed: list[int], tmp_path: Path, text: str) -> None:
    (tmp_path / "acceleration").write_text(text)
    probed += [acceleration._ENDED["amd64"]]
    assert acceleration.found(tmp_path, "amd64") == "kvm"


def test_what_needs_no_probe(probed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert acceleration.found(tmp_path, "arm64") == "tcg"
    monkeypatch.setattr(acceleration, "_DEVICE", tmp_path / "none")
    assert acceleration.found(tmp_path, "amd64") == "tcg"
    monkeypatch.setenv(acceleration.OVERRIDE, "kvm")
    assert acceleration.found(tmp_path, "amd64") == "kvm"
    monkeypatch.setenv(acceleration.OVERRIDE, "fast\x1b[2J")
    with pytest.raises(Error, match="DEBIAN_CLOUD_ACCEL is") as error:
        acceleration.found(tmp_path, "amd64")
    assert "\x1b" not in error.value.message
