# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans: their text against a golden file, their identity, and that text and execution do the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from debian_cloud import build, plan, run, sources, tools
from debian_cloud.config import ImageConfig
from debian_cloud.errors import Error
from debian_cloud.progress import Progress
from debian_cloud.resolution import Package, Resolution

GOLDEN = Path(__file__).parent / "golden"
CONFIG = ImageConfig(
    name="debian-cloud-config-ec2",
    version="0.1.0",
    architecture="amd64",
    suite="trixie",
    maintainer="Some One <one@example.org>",
    description="an image",
    size=8 * 2**30,
    formats=("raw", "qcow2"),
    firmware=("bios", "uefi"),
    user="admin",
    datasources=("Ec2",),
)
RESOLUTION = Resolution(
    CONFIG,
    (
        Package("base-files", "13.8", "amd64", 88296, "f" * 64),
        Package("login", "1:4.16.0-2", "amd64", 114952, "8" * 64),
    ),
    1795224967,
    2**20,
)
DEBIAN = (
    sources.Source("http://debian.example/debian", ("trixie", "trixie-updates"), "/debian.gpg"),
    sources.Source("http://debian.example/security", ("trixie-security",), "/debian.gpg"),
)
ARCHIVE = sources.Source("file:/srv/archive", ("trixie",), "/archive.gpg")
PLAN = build.plan(RESOLUTION, "20261121.0", CONFIG.formats, DEBIAN, ARCHIVE, ['Acquire::Retries "3"'])


def test_the_plan_of_ec2_is_the_golden_one() -> None:
    text = plan.as_shell(PLAN, "image", "About.")
    golden = GOLDEN / "ec2.sh"
    if "DEBIAN_CLOUD_GOLDEN" in os.environ:
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8"), "if the change is wanted: DEBIAN_CLOUD_GOLDEN=1 make check"


def test_every_tool_of_the_plan_has_its_package() -> None:
    used = {step.argv[0] for step in PLAN if isinstance(step, plan.Run) and "/" not in step.argv[0]}
    assert used <= set(tools.PACKAGES)


def test_the_id_is_the_plan_s_and_changes_with_each_step() -> None:
    assert plan.plan_id(PLAN) == plan.plan_id(build.plan(
        RESOLUTION, "20261121.0", CONFIG.formats, DEBIAN, ARCHIVE, ['Acquire::Retries "3"']
    ))  # fmt: skip
    ids = {plan.plan_id(PLAN[:n] + PLAN[n + 1 :]) for n in range(len(PLAN))}
    assert len(ids) == len(PLAN)


def test_the_only_package_asked_for_is_the_configuration() -> None:
    (bootstrap,) = (step for step in PLAN if isinstance(step, plan.Run) and step.argv[0] == "mmdebstrap")
    assert [word for word in bootstrap.argv if word.startswith("--include")] == ["--include=debian-cloud-config-ec2"]


STEPS: plan.Plan = (
    plan.Write("text", "sub/text", "it's $HOME `x` \\n\nEND\n", 0o750),
    plan.Run("input", ("dd", "of=input", "status=none"), stdin="END\n$HOME\n"),
    plan.Run("bytes", ("dd", "of=bytes", "status=none"), stdin=bytes(range(256))),
    plan.Run("environment", ("sh", "-c", 'echo "$A$LC_ALL$TZ" > environment'), env=(("A", "b c"),)),
    plan.Run("arguments", ("install", "-D", "/dev/null", "a b/$HOME/'/*")),
    plan.Run("root", ("sh", "-c", "id -u > root"), root=True),
    plan.Run("owner", ("install", "-o", "7", "/dev/null", "owned"), root=True),
)


def test_printed_and_carried_out_a_plan_does_the_same(tmp_path: Path) -> None:
    script = tmp_path / "plan.sh"
    script.write_text(plan.as_shell(STEPS, "printed", "x\ny"))
    subprocess.run(["sh", script], cwd=tmp_path, check=True)
    (tmp_path / "run").mkdir()
    run.carry_out(STEPS, tmp_path / "run", Progress(len(STEPS), quiet=True))

    def content(folder: Path) -> dict[str, tuple[bytes, int, int]]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "log")
        return {
            str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_uid)
            for path in files
        }

    printed, carried_out = content(tmp_path / "printed"), content(tmp_path / "run")
    assert printed == carried_out
    assert printed["bytes"][0] == bytes(range(256))
    assert printed["sub/text"][0] == STEPS[0].text.encode()  # type: ignore[union-attr]
    assert printed["root"][0] == b"0\n"
    assert printed["environment"][0] == b"b cC.UTF-8UTC\n"
    run.remove(tmp_path / "printed")
    run.remove(tmp_path / "run")


def carry_out(step: plan.Run, workspace: Path) -> None:
    run.carry_out((step,), workspace, Progress(1, quiet=True))


def test_a_failed_step_says_what_its_tool_said_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(Error) as failed:
        carry_out(plan.Run("look away", ("ls", "/nowhere at all")), tmp_path)
    assert "look away: ls failed with exit status 2" in failed.value.message
    assert "No such file or directory" in failed.value.message
    assert "ls '/nowhere at all'" in failed.value.hint


def test_a_full_disk_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(Error, match="fill: the disk is full") as failed:
        carry_out(plan.Run("fill", ("dd", "if=/dev/zero", "of=/dev/full", "count=1")), tmp_path)
    assert "--output" in failed.value.hint


def test_a_missing_tool_is_named_with_its_package_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run, "SBIN", "")
    steps = (plan.Write("first", "first", ""), plan.Run("then", ("sfdisk", "--version")))
    with pytest.raises(Error, match="the tool sfdisk is missing") as missing:
        run.carry_out(steps, tmp_path, Progress(2, quiet=True))
    assert missing.value.hint == "apt-get install fdisk"
    assert list(tmp_path.iterdir()) == []
