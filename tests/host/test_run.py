# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps of a plan: the reason of a failure, and how much of a step's output is read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from debian_cloud import plan as plans
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.host.progress import Progress
from tests import bounds


def test_a_step_without_its_namespace_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1"
    monkeypatch.setattr(run, "_namespace", lambda: ("sh", "-c", script, "unshare"))
    step = plans.Run("make a tree", ("true",), root=True)
    with pytest.raises(Error) as refused:
        run._run(step, tmp_path, Progress(1, quiet=True), (), None)
    assert (
        refused.value.message == "make a tree: no namespace can be created: unshare failed: Operation not permitted"
    )
    assert "build outside of" in refused.value.hint


def test_what_a_failed_step_says_has_a_bound(tmp_path: Path) -> None:
    """Both ends of the output are read, as the reason may be at either."""
    # 2 GiB, mostly a hole.
    said = "import os; os.write(1, b'E: first\\n'); os.lseek(1, 2**31, 0); os.write(1, b'\\nlast\\n'); os._exit(1)"
    step = plans.Run("say much", (sys.executable, "-c", said))
    (tmp_path / "script").write_text(
        "import pathlib, sys; from debian_cloud import plan; from debian_cloud.host import run\n"
        "from debian_cloud.host.progress import Progress\n"
        f"step = plan.Run({step.title!r}, {step.argv!r})\n"
        "run.carry_out((step,), pathlib.Path(sys.argv[1]), Progress(1, quiet=True))"
    )
    done = bounds.within(500, [sys.executable, tmp_path / "script", tmp_path])
    assert done.returncode == 1
    assert re.search(rb"failed with exit status 1\n  E: first\n(.*\n)?  last\n", done.stderr), done.stderr[-2000:]


def carried_out(tmp_path: Path, *steps: plans.Run, tree: Path | None = None) -> Path:
    """The workspace, after the steps."""
    workspace = tmp_path / "work"
    workspace.mkdir()
    run.carry_out(steps, workspace, Progress(len(steps), quiet=True), (), tree)
    return workspace


def shell(script: str, *, root: bool = True) -> plans.Run:
    return plans.Run("a step", ("sh", "-euc", script), root=root)


@pytest.mark.parametrize("fails", [True, False])
def test_a_tree_in_memory_that_is_gone_ends_the_build(tmp_path: Path, fails: bool) -> None:
    """As logind(8) removes it; whatever the step itself makes of that."""
    tree = tmp_path / "memory"
    tree.mkdir()
    with pytest.raises(Error, match=r"a step: .*memory was removed while it was in use") as refused:
        carried_out(tmp_path, shell(f"rmdir {tree}; {'exit 1' if fails else 'true'}", root=False), tree=tree)
    assert "set DEBIAN_CLOUD_TREE_ON_DISK=1" in refused.value.hint


OWN = "echo 'debian-cloud: error: tar: tar failed' >&2; echo 'debian-cloud: hint: the command was' >&2; exit 1"
"""A command of this project, which cannot know why the tool that it called failed."""


@pytest.mark.parametrize(
    ("full", "said", "hint"),
    [
        ("memory", "a step: there is no more room for the root file system in memory, ", "TREE_ON_DISK=1"),
        ("work", "a step: the disk is full", "--output"),
        ("", "a step: tar: tar failed", "the command was"),
    ],
)
def test_the_file_system_that_is_full_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str, said: str, hint: str
) -> None:
    tree = tmp_path / "memory"
    tree.mkdir()
    monkeypatch.setattr(run, "_is_full", lambda place: place.name == full)
    with pytest.raises(Error, match=said) as refused:
        carried_out(tmp_path, shell(OWN, root=False), tree=tree)
    assert hint in refused.value.hint


def test_root_steps_see_a_tree_elsewhere_as_the_workspace_s(tmp_path: Path) -> None:
    tree = tmp_path / "memory"
    tree.mkdir()
    workspace = carried_out(
        tmp_path,
        shell("mkdir tree/etc; echo one >tree/etc/file"),
        shell("echo two >>tree/etc/file; cp tree/etc/file seen; mountpoint -q tree"),
        shell("! mountpoint -q tree; ls tree >empty", root=False),
        tree=tree,
    )
    assert (tree / "etc/file").read_text() == (workspace / "seen").read_text() == "one\ntwo\n"
    assert (workspace / "empty").read_text() == ""
    assert [*(workspace / plans.TREE).iterdir()] == []


def test_a_tree_that_is_gone_fails_the_step(tmp_path: Path) -> None:
    with pytest.raises(Error, match="a step: "):
        carried_out(tmp_path, shell("touch tree/file"), tree=tmp_path / "none")
    assert not (tmp_path / "work/tree/file").exists()


def test_without_a_tree_elsewhere_a_step_makes_its_own(tmp_path: Path) -> None:
    workspace = carried_out(tmp_path, shell("test ! -e tree; mkdir tree; touch tree/file"))
    assert (workspace / "tree/file").exists()


def test_a_command_is_fed_from_where_its_file_was_read_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"first line\n" + b"the rest" * 10_000)
    with (tmp_path / "file").open("rb") as file:
        file.readline()
        run.fed(("wc", "-c"), file)
    assert capfd.readouterr().out == "80000\n"
    with (tmp_path / "file").open("rb") as file, pytest.raises(Error, match="sh failed with exit status 3"):
        run.fed(("sh", "-c", "exit 3"), file)


@pytest.mark.parametrize("heard", [True, False])
def test_what_a_command_complains_of_is_heard_or_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], heard: bool
) -> None:
    (tmp_path / "file").write_text("text")
    with (
        (tmp_path / "file").open("rb") as file,
        run.through(("sh", "-c", "cat; echo complaint >&2"), file, heard=heard) as printed,
    ):
        assert printed.read() == b"text"
    assert capfd.readouterr().err == ("complaint\n" if heard else "")


def test_the_output_of_a_bounded_command_is_read_within_bounds(tmp_path: Path) -> None:
    """A server may have a transfer say as much as the largest file may have."""
    limits = run.Limits(seconds=60, largest=2**28)
    script = "head -c 100M /dev/zero; head -c 1M /dev/zero >&2; printf end >&2; exit 7"
    ended = run.bounded(("sh", "-c", script), tmp_path, tmp_path, limits)
    assert ended.status == 7
    assert len(ended.said) == 2**26
    assert len(ended.complaint) == 2**16
    assert ended.complaint.endswith("end")


def test_a_bounded_command_that_does_too_little_is_ended(tmp_path: Path) -> None:
    slow = run.Limits(seconds=60, largest=2**20, slowest=1000, window=1)
    assert run.bounded(("sleep", "50"), tmp_path, tmp_path, slow).status is None
    short = run.Limits(seconds=1, largest=2**20)
    assert run.bounded(("sleep", "50"), tmp_path, tmp_path, short).status is None
