# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan is carried out from the last of its layers that is in the cache, with the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from debian_cloud import plan
from debian_cloud.build import request, store, workspace
from debian_cloud.errors import Error
from debian_cloud.host import folders, memory, run
from debian_cloud.host.progress import Progress, shown
from debian_cloud.host.timing import PackageTiming
from debian_cloud.packages import cache
from tests.samples import RECORD, RESOLUTION

if TYPE_CHECKING:
    from debian_cloud.host.progress import Begin


@dataclass(frozen=True)
class Planned:
    """What is needed of a planned image: its steps."""

    steps: plan.Plan


ROOT = Path(__file__).resolve().parents[2]
IDS = ("a" * 64, "b" * 64)


def steps(last: str = "") -> plan.Plan:
    """Two stages, and a step that lists the tree."""
    return (
        plan.Write("prepare", "words", "some words\n"),
        *(
            plan.Run(
                f"stage {number}",
                ("sh", "-euc", f"mkdir -p tree; cat words >tree/file{number}; echo {number} >>ran"),
                root=True,
                layer=layer,
            )
            for number, layer in enumerate(IDS)
        ),
        plan.Run("finish", ("sh", "-euc", f"ls tree >seen{last}"), root=True),
    )


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "place", lambda: tmp_path / "cache")
    return tmp_path / "cache" / cache.LAYERS


def carried_out(
    folder: Path,
    of: plan.Plan,
    tree: memory.Tree | None = None,
    bound: int = 2**30,
    begin: Begin = shown(quiet=True),  # noqa: B008 - it is never changed
) -> list[str]:
    """Carry out a plan in a new directory; return the titles of its steps."""
    work = folder / "work"
    work.mkdir(parents=True)
    planned = cast("request.Planned", Planned(of))
    with folders.locked(work, "it") as lock:
        return [cost.title for cost in workspace._carried_out(planned, work, lock, tree, begin, bound)]


KEPT = "keep it for other builds"
TAKEN = "take 2 stages from the cache"


def test_what_was_done_is_not_done_again(tmp_path: Path, place: Path) -> None:
    every = ["prepare", "stage 0", KEPT, "stage 1", KEPT, "finish"]
    assert carried_out(tmp_path / "one", steps()) == every
    assert carried_out(tmp_path / "two", steps()) == ["prepare", TAKEN, "finish"]
    assert (tmp_path / "two/work/seen").read_text() == (tmp_path / "one/work/seen").read_text() == "file0\nfile1\n"
    assert not (tmp_path / "two/work/ran").exists()
    assert len([*place.iterdir()]) == 2


def test_with_a_tree_in_memory_it_is_the_same(tmp_path: Path, place: Path) -> None:
    for name in ("one", "two"):
        tree = tmp_path / "memory" / name
        tree.mkdir(parents=True)
        with folders.locked(tree, "it") as lock:
            carried_out(tmp_path / name, steps(), memory.Tree(tree, lock))
        assert sorted(path.name for path in tree.iterdir()) == ["file0", "file1"]
        assert [*(tmp_path / name / "work/tree").iterdir()] == []
    assert not (tmp_path / "two/work/ran").exists()


def test_a_damaged_layer_is_made_again(tmp_path: Path, place: Path) -> None:
    carried_out(tmp_path / "one", steps())
    (path,) = place.glob(f"{IDS[1]}-*")
    path.write_bytes(path.read_bytes()[:-1])
    titles = carried_out(tmp_path / "two", steps())
    assert titles == ["prepare", "take 1 stage from the cache", "stage 1", KEPT, "finish"]
    assert carried_out(tmp_path / "three", steps())[1] == TAKEN


def test_what_was_done_before_a_failure_stays(tmp_path: Path) -> None:
    with pytest.raises(Error, match="finish: "):
        carried_out(tmp_path / "one", steps(last="; false"))
    assert carried_out(tmp_path / "two", steps())[1] == TAKEN


def test_without_a_cache_nothing_is_kept(tmp_path: Path, place: Path) -> None:
    assert KEPT not in carried_out(tmp_path / "one", steps(), bound=0)
    assert not place.exists()


def test_the_cache_is_bounded_after_a_build(tmp_path: Path, place: Path) -> None:
    carried_out(tmp_path / "one", steps(), bound=1)
    assert [*place.iterdir()] == []
    assert store.listed() == ()


@dataclass(slots=True)
class Killing(Progress):
    """Progress that kills its process at the beginning of a step."""

    last: int = 0

    def step(self, title: str) -> None:
        self._number, self._title = self._number + 1, title
        if self._number == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


# In a process of its own: the one that runs the tests may have threads, so a copy of it might wait for one of them.
KILLED = """
import sys
from pathlib import Path
from tests.build.test_workspace import Killing, cache, carried_out, large, steps
cache.place = lambda: Path(sys.argv[1])
last = int(sys.argv[3])
carried_out(Path(sys.argv[2]), steps() if last else large(), begin=lambda total: Killing(total, last=last))
"""


def begun(place: Path, folder: Path, last: int = 0) -> subprocess.Popen[bytes]:
    """Begin a build that kills itself before a step, or is to be killed."""
    argv = (sys.executable, "-c", KILLED, place.parent, folder, str(last))
    return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"})


@pytest.mark.parametrize("number", range(1, 7))
def test_a_build_after_a_killed_one_succeeds(tmp_path: Path, place: Path, number: int) -> None:
    assert begun(place, tmp_path / "killed", number).wait(60) == -signal.SIGKILL
    titles = carried_out(tmp_path / "again", steps())
    # Before the fourth step one stage is kept, before the sixth both are.
    assert titles.count(KEPT) == (2 if number < 4 else 1 if number < 6 else 0)
    assert (tmp_path / "again/work/seen").read_text() == "file0\nfile1\n"
    assert [store.problem(path) for path in place.iterdir()] == ["", ""]


def large() -> plan.Plan:
    """A stage before the others whose layer takes some time."""
    fill = "mkdir -p tree; head -c 300000000 /dev/zero >tree/large"
    stage = plan.Run("fill", ("sh", "-euc", fill), root=True, layer="c" * 64)
    return (*steps()[:1], stage, *steps()[1:])


@pytest.mark.parametrize(
    "sign", [f"cache/{cache.LAYERS}/{store.PARTIAL}*", "killed/work/tree/large"], ids=["keep", "take"]
)
def test_a_build_after_one_that_was_killed_while_it_kept_or_took_a_layer_succeeds(
    tmp_path: Path, place: Path, sign: str
) -> None:
    taken = "large" in sign
    if taken:
        carried_out(tmp_path / "before", large())
    process = begun(place, tmp_path / "killed")
    end = time.monotonic() + 60
    while not [*tmp_path.glob(sign)]:
        assert process.poll() is None, "it has ended before it could be killed"
        assert time.monotonic() < end
    process.kill()
    process.wait()
    titles = carried_out(tmp_path / "again", large())
    # The step of the killed build goes on, and the other waits for the layer that it keeps.
    assert titles.count("fill") == 0
    assert (tmp_path / "again/work/seen").read_text() == "file0\nfile1\nlarge\n"
    assert [store.problem(path) for path in place.iterdir()] == ["", "", ""]


NO_SOCKET = "there is a socket in it, which tar(1) cannot keep"


def test_a_reason_why_a_layer_is_not_kept_is_told(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = "import socket; socket.socket(socket.AF_UNIX).bind('tree/socket')"
    of = (*steps()[:2], plan.Run("bind", (sys.executable, "-c", script), root=True, layer="c" * 64), *steps()[2:])
    carried_out(tmp_path / "one", of)
    said = capsys.readouterr().err
    assert said == f"debian-cloud: other builds cannot continue from this one: {NO_SOCKET}\n"
    assert len([*place.iterdir()]) == 1


def test_builds_do_not_wait_for_layers_that_will_not_be_kept(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build can claim all layers as soon as the first one could not be kept."""
    free: list[bool] = []

    def seen(*_: object) -> tuple[()]:
        (tmp_path / "one/work" / store.NOT_KEPT).write_text("the disk is full")
        free.append(not [*place.glob(f"*{store.MAKING}")])
        return ()

    monkeypatch.setattr(run, "carry_out", seen)
    carried_out(tmp_path / "one", steps())
    assert free == [False, True, True]


MADE = ("x.raw", "x.buildinfo")


@pytest.fixture
def small() -> request.Planned:
    """A plan that makes two files in no time."""
    write = plan.Run("write", ("sh", "-euc", "echo raw >x.raw; echo info >x.buildinfo"), root=True)
    return request.Planned((write,), RESOLUTION, RECORD.id, MADE)


def make(small: request.Planned, output: Path) -> None:
    workspace.make(small, output, shown(quiet=True), bound=0)


def test_nothing_is_left_beside_what_was_made(small: request.Planned, tmp_path: Path) -> None:
    make(small, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(MADE)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_build_that_is_killed_while_it_puts_files_in_place_is_completed(
    small: request.Planned, tmp_path: Path, number: int
) -> None:
    """Whatever is in place when it is killed, the next build of the same plan makes nothing again."""
    work = tmp_path / f".{small.stem}.build"
    work.mkdir(mode=0o700)
    for count, name in enumerate(MADE):
        (work / name if count >= number else tmp_path / name).write_text(name)
    (work / "complete").write_text(small.id)
    make(small, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: name for name in MADE}


@pytest.mark.parametrize("what", ["another plan", "a file is missing", "made with layers"])
def test_what_is_not_complete_is_made_again(small: request.Planned, tmp_path: Path, what: str) -> None:
    work = tmp_path / f".{small.stem}.build"
    work.mkdir(mode=0o700)
    for name in MADE[: 1 if "missing" in what else 2]:
        (work / name).write_text("old")
    # A rebuild states that it depends on no former build.
    marks = {"another plan": "another", "made with layers": f"{small.id} with layers"}
    (work / "complete").write_text(marks.get(what, small.id))
    make(small, tmp_path)
    assert (tmp_path / "x.raw").read_text() == "raw\n"
    assert not work.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
@pytest.mark.parametrize("whose", ["nobody", "everybody"])
def test_no_build_runs_where_another_user_can_exchange_its_programs(
    small: request.Planned, tmp_path: Path, whose: str
) -> None:
    above = tmp_path / "above"
    above.mkdir()
    if whose == "nobody":
        os.chown(above, 65534, 65534)
    else:
        above.chmod(0o777)
    with pytest.raises(Error, match="who could change what is run there") as refused:
        make(small, above / "out")
    assert refused.value.hint == "build in a directory of your own, as its owner"
    assert [*(above / "out").iterdir()] == []
    # In a directory such as /tmp, nobody can rename the workspace.
    os.chown(above, 0, 0)
    above.chmod(0o1777)
    make(small, above)


def test_an_image_that_is_made_again_leaves_nothing(
    small: request.Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    left = tmp_path / ".x.again"
    left.mkdir(mode=0o700)
    for name in MADE:
        (left / name).write_text("of a killed run")
    with workspace.scratch("x") as place:
        assert place == left
        make(small, place)
        assert (place / "x.raw").read_text() == "raw\n"
    assert [*tmp_path.iterdir()] == []


def test_the_slowest_package_comes_first(tmp_path: Path) -> None:
    assert workspace._packages(tmp_path) == ()
    (tmp_path / "seconds").write_text("unpack 1.5 a\nunpack 0.5 b\nconfigure 2.0 b\ntrigproc 0.25 b\ninstall 1 c\n")
    assert workspace._packages(tmp_path) == (
        PackageTiming("b", 0.5, 2.25),
        PackageTiming("a", 1.5, 0),
        PackageTiming("c", 1.0, 0),
    )
