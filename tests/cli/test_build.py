# SPDX-License-Identifier: GPL-3.0-or-later
"""What `build` prints; tests/test_library.py has a real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from debian_cloud import cli
from debian_cloud.build import workspace
from debian_cloud.build.request import Planned
from debian_cloud.build.workspace import Built
from debian_cloud.host.timing import Timing
from debian_cloud.image.id import ImageId
from tests.samples import RESOLUTION

TIMINGS = (Timing("read the indexes and resolve", 3.25, 2.0), Timing("place a \x1b[31mfile", 61.0, 70.125))
TABLE = """\
  seconds      CPU  step
     3.25     2.00  read the indexes and resolve
    61.00    70.12  place a \\x1b[31mfile
    64.25    72.12  total
"""


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Planned((), RESOLUTION, ImageId("trixie", "ec2", "amd64", "20261120.0"), ("x.raw",))
    monkeypatch.setattr(workspace, "build", lambda *_, **_options: Built(planned, new=True, timings=TIMINGS))


def test_timings_are_a_table_on_standard_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["build", "ec2", "--timings", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/x.raw\n"
    assert said.err == TABLE


def test_timings_are_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "ec2", "--timings", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["timings"]
    assert [Timing(**one) for one in found] == [*TIMINGS]


def test_timings_are_for_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "ec2", "--json"]) == 0
    said = capsys.readouterr()
    assert "timings" not in json.loads(said.out)
    assert said.err == ""
