# SPDX-License-Identifier: GPL-3.0-or-later
"""The units that sign an archive every day, and that accept uploads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.archive.conftest import run

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker

ROOT = Path(__file__).resolve().parents[2]
UNITS = {path.name: path for path in (ROOT / "archive/systemd").iterdir()}
STEP = ROOT / "archive/steps/as-owner"


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """The units as installed, except that they start the programs of this tree."""
    for name, path in UNITS.items():
        text = path.read_text().replace("/usr/share/debian-cloud-archive/", f"{ROOT}/archive/")
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in UNITS}


def test_there_are_timers_and_a_path_with_their_services() -> None:
    assert sorted(UNITS) == [
        f"debian-cloud-archive-{name}"
        for name in ("queue@.path", "queue@.service", "queue@.timer", "resign@.service", "resign@.timer")
    ]
    # Enabling the path unit also starts the timer that tries closures again.
    path, again = (UNITS[f"debian-cloud-archive-queue@.{kind}"].read_text() for kind in ("path", "timer"))
    assert "\nWants=debian-cloud-archive-queue@%i.timer\n" in path
    assert "\nPartOf=debian-cloud-archive-queue@%i.path\n" in again
    assert "\nOnCalendar=hourly\n" in again
    timer = UNITS["debian-cloud-archive-resign@.timer"].read_text()
    for line in ("OnCalendar=daily", "Persistent=yes", "RandomizedDelaySec=1h", "WantedBy=timers.target"):
        assert f"\n{line}\n" in timer


def test_systemd_finds_nothing_wrong(units: dict[str, Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units.values()], capture_output=True, text=True, check=False
    )
    # It also checks the machine's own units.
    said = [line for line in done.stderr.splitlines() if "debian-cloud-archive" in line]
    assert said == []
    wrong = units["debian-cloud-archive-resign@.service"]
    wrong.write_text(wrong.read_text().replace("Type=oneshot", "Type=oneshott"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units.values()], capture_output=True, text=True, check=False
    )
    assert "oneshott" in done.stderr


@pytest.mark.parametrize("name", ["resign", "queue"])
def test_services_may_do_little(units: dict[str, Path], name: str) -> None:
    """The exposure that systemd computes, from 0 to 10 (systemd-analyze(1), security)."""
    service = units[f"debian-cloud-archive-{name}@.service"]
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", service],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 3
    assert done.returncode == 0


def test_the_queue_s_service_is_one_step_that_waits_by_itself() -> None:
    """The step waits by itself (test_closures.py): if the service ended sooner, it would be started again at once."""
    lines = UNITS["debian-cloud-archive-queue@.service"].read_text().splitlines()
    (command,) = (line.partition("=")[2] for line in lines if line.startswith("Exec"))
    assert command == "/usr/share/debian-cloud-archive/steps/queue %f"
    assert {"Type=oneshot", "Restart=on-failure", "RestartSec=10min", "RestartPreventExitStatus=2"} <= set(lines)
    assert not any(line.startswith(("TimeoutStartSec=", "StartLimit")) for line in lines)


def test_verbs_are_run_as_the_owner_of_the_archive(archive: Archive, make: Maker, uploader: Key) -> None:
    env = {**archive.env, "HOME": "/nowhere"}
    archive.put(make.deb(uploader, "1.0"))
    for verb in ("accept", "publish", "resign"):
        run([STEP, archive.path, verb], env)
    assert "Version: 1.0" in (archive.dist / "main/binary-amd64/Packages").read_text()
    done = run([STEP, archive.path / "no", "resign"], env, check=False)
    assert (done.returncode, done.stderr) == (2, f"error: the archive {archive.path}/no does not exist\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_root_becomes_the_owner(archive: Archive) -> None:
    """The owner may read the directory, but not the tests' own; in this test it is nobody."""
    place = Path(run(["mktemp", "-d"], archive.env).stdout.strip())
    program, owned = place / "program", place / "owned"
    shutil.copytree(ROOT / "archive", program)
    (program / "verbs/whoami").write_text('#!/bin/sh\necho "$(id -un) $(id -gn) $(id -Gn) $HOME $1"\n')
    (program / "verbs/whoami").chmod(0o755)
    owned.mkdir()
    shutil.chown(owned, "nobody", "nogroup")
    place.chmod(0o755)
    done = run([program / "steps/as-owner", owned, "whoami"], archive.env)
    shutil.rmtree(place)
    assert done.stdout == f"nobody nogroup nogroup /nonexistent {owned}\n"
