# SPDX-License-Identifier: GPL-3.0-or-later
"""What `build` prints; tests/test_library.py has a real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from debian_cloud import cli
from debian_cloud.build import several, workspace
from debian_cloud.build.request import BuildRequest, Planned
from debian_cloud.build.several import Image
from debian_cloud.build.workspace import Built
from debian_cloud.errors import USAGE, Error
from debian_cloud.host.jobs import Outcome
from debian_cloud.host.progress import Board
from debian_cloud.host.timing import PackageTiming, Timing
from debian_cloud.image.id import ImageId
from tests.samples import RESOLUTION

TIMINGS = (Timing("read the indexes and resolve", 3.25, 2.0), Timing("place a \x1b[31mfile", 61.0, 70.125))
TABLE = """\
  seconds      CPU  step
     3.25     2.00  read the indexes and resolve
    61.00    70.12  place a \\x1b[31mfile
    64.25    72.12  total

   unpack  configure  package
     0.25       2.50  slow\\x1b[2J
"""
PACKAGES = (PackageTiming("slow\x1b[2J", 0.25, 2.5), *(PackageTiming(f"p{number}", 0, 0.1) for number in range(20)))


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Planned((), RESOLUTION, ImageId("trixie", "ec2", "amd64", "20261120.0"), ("x.raw",))
    monkeypatch.setattr(
        workspace, "build", lambda *_, **_options: Built(planned, new=True, timings=TIMINGS, packages=PACKAGES)
    )


def test_timings_are_a_table_on_standard_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["build", "ec2", "--timings", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/x.raw\n"
    *rows, last = said.err.removeprefix(TABLE).splitlines()
    assert said.err.startswith(TABLE)
    # The ten slowest are shown.
    assert (len(rows), last) == (8, "     0.00       0.10  p8")


def test_timings_are_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "ec2", "--timings", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Timing(**one) for one in found["timings"]] == [*TIMINGS]
    assert [PackageTiming(**one) for one in found["packages"]] == [*PACKAGES]


def test_timings_are_for_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "ec2", "--json"]) == 0
    said = capsys.readouterr()
    assert "timings" not in json.loads(said.out)
    assert said.err == ""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, BuildRequest]]:
    """What several images would be built of; those of gce fail."""
    asked: list[dict[str, BuildRequest]] = []

    def build(
        requests: dict[str, BuildRequest], _output: Path, bound: int, at_once: int, board: Board
    ) -> dict[str, Outcome]:
        asked.append(requests)
        assert (bound, at_once) == (2**31, 3)
        board.step("ec2", 1, 2, "x\x1b[2J")
        board.line("ec2", "a \x1b[2Jline")
        board.end()
        image = Image("x", "0" * 64, ("x.raw",), new=True, timings=TIMINGS)
        error = Error("no \x1b[2J", "try \x1b[2J", USAGE)
        return {name: Outcome(error=error) if "gce" in name else Outcome(image) for name in requests}

    monkeypatch.setattr(several, "build", build)
    return asked


def test_several_configurations_and_suites_are_built_at_once(
    capsys: pytest.CaptureFixture[str], at_once: list[dict[str, BuildRequest]], tmp_path: Path
) -> None:
    words = [
        "ec2",
        "generic",
        "debian-cloud-config-ec2",
        "--suite",
        "trixie,bookworm,trixie",
        "--jobs",
        "3",
        "--cache-size",
        "2G",
    ]
    assert cli.run(["build", *words, "--output", str(tmp_path)]) == 0
    assert {name: (one.config, one.suite) for name, one in at_once[0].items()} == {
        f"{config}/{suite}": (config, suite) for suite in ("trixie", "bookworm") for config in ("ec2", "generic")
    }
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/x.raw\n" * 4
    assert said.err == "ec2: [ 1/2] x\\x1b[2J\nec2: a \\x1b[2Jline\n"


def test_one_that_fails_is_named_and_the_others_are_printed(
    capsys: pytest.CaptureFixture[str], at_once: list[dict[str, BuildRequest]], tmp_path: Path
) -> None:
    words = ["ec2", "gce", "--jobs", "3", "--cache-size", "2G", "--quiet", "--output", str(tmp_path)]
    assert cli.run(["build", *words]) == USAGE
    assert [*at_once[0]] == ["ec2", "gce"]
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/x.raw\n"
    assert "debian-cloud: error: gce: no \\x1b[2J\ndebian-cloud: hint: try \\x1b[2J\n" in said.err
    assert "x\\x1b[2J" not in said.err.splitlines()[0]


def test_several_are_a_list_in_the_json(
    capsys: pytest.CaptureFixture[str], at_once: list[dict[str, BuildRequest]], tmp_path: Path
) -> None:
    words = ["ec2", "gce", "--jobs", "3", "--cache-size", "2G", "--json", "--timings", "--output", str(tmp_path)]
    assert cli.run(["build", *words]) == USAGE
    assert len(at_once) == 1
    found = json.loads(capsys.readouterr().out)
    assert [image["stem"] for image in found["images"]] == ["x"]
    assert [Timing(**one) for one in found["images"][0]["timings"]] == [*TIMINGS]
    assert found["failed"] == {"gce": {"error": "no \x1b[2J", "hint": "try \x1b[2J"}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ec2", "--jobs", "-1"], "--jobs cannot be negative"),
        (["ec2", "--suite", "trixie,"], "suite '' is not a valid name"),
        (["ec2", "--cache-size", ""], "--cache-size has the invalid size ''"),
        (["ec2", "--cache-size", "some"], "--cache-size has the invalid size 'some'"),
        (["ec2", "--cache-size=-1G"], "--cache-size has the invalid size '-1G'"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(Error, match=message) as refused:
        cli.run(["build", *words])
    assert refused.value.status == USAGE
