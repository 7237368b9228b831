# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree in memory: only where there is room, of this user alone, and gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from debian_cloud.host import memory

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


class Machine:
    """What the kernel would say of another machine."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.shared, self._folder = folder / "shm", folder
        self.shared.mkdir()
        for name, of in (
            *(("_MOUNTS", "mountinfo"), ("_MEMORY", "meminfo"), ("_GROUP", "cgroup"), ("_CONTROL", "fs")),
            *(("_MANAGER", "notify"), ("_LINGERING", "linger")),
        ):
            patch.setattr(memory, name, folder / of)
        patch.setattr(memory, "_SHARED", self.shared)
        patch.delenv(memory.NEVER, raising=False)
        self.has(8 * GIB)
        self.mounts("rw,nosuid,nodev")
        self.group("/")

    @property
    def mine(self) -> Path:
        return self.shared / f"debian-cloud-{os.geteuid()}"

    def has(self, available: int) -> None:
        text = f"MemTotal:       99999999 kB\nMemFree: 1 kB\nMemAvailable:   {available // 1024} kB\n"
        (self._folder / "meminfo").write_text(text)

    def mounts(self, *options: str, kind: str = "tmpfs") -> None:
        lines = "".join(f"25 30 0:23 / {self.shared} {of} shared:4 - {kind} tmpfs rw\n" for of in options)
        (self._folder / "mountinfo").write_text(f"24 30 0:22 / /proc rw - proc proc rw\n{lines}")

    def group(self, name: str, **limits: tuple[str, int]) -> None:
        """Put this process into a group; each folder on the way has a limit and what is used of it."""
        (self._folder / "cgroup").write_text(f"1:name=systemd:/x\n0::{name}\n")
        for folder, (limit, used) in limits.items():
            place = self._folder / "fs" / folder.replace("_", "/")
            place.mkdir(parents=True, exist_ok=True)
            (place / "memory.max").write_text(f"{limit}\n")
            (place / "memory.current").write_text(f"{used}\n")

    def left(self) -> list[str]:
        return [path.name for path in self.mine.iterdir()]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_memory_has_room_beside_what_a_build_needs(machine: Machine) -> None:
    size = 2**20
    machine.has(size + size // 2 + memory._SPARE)
    assert memory.available() == size + size // 2 + memory._SPARE
    assert memory.room(size)
    assert not memory.room(size + 2**12)


def test_the_file_system_must_have_the_room_too(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has(2**60)
    free = shutil.disk_usage(machine.shared).free
    assert not memory.room(free)
    assert memory.room(free // 4)


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, 8 * GIB),
        ({"a_b": ("max", 5)}, 8 * GIB),
        ({"a_b": (str(3 * GIB), GIB)}, 2 * GIB),
        ({"a": (str(2 * GIB), GIB), "a_b": (str(5 * GIB), GIB)}, GIB),
        ({"a_b": (str(GIB), 2 * GIB)}, -GIB),
        ({"a_b": (str(9 * GIB), 0)}, 8 * GIB),
        ({"other": (str(GIB), 0)}, 8 * GIB),
        ({"a_b": ("garbage", 0), "a": (str(2 * GIB), 0)}, 2 * GIB),
    ],
)
def test_the_smallest_limit_of_a_group_counts(
    machine: Machine, limits: dict[str, tuple[str, int]], left: int
) -> None:
    machine.group("/a/b", **limits)
    assert memory.available() == left
    assert memory.room(2**20) == (left >= 2 * GIB)


@pytest.mark.parametrize("text", ["", "MemAvailable: much kB\n", "MemFree: 99999999 kB\n"])
def test_where_it_is_not_known_there_is_no_room(machine: Machine, tmp_path: Path, text: str) -> None:
    (tmp_path / "meminfo").write_text(text)
    assert memory.available() == 0
    (tmp_path / "meminfo").unlink()
    assert memory.available() == 0
    assert not memory.room(1)


def test_without_groups_only_the_machine_counts(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "cgroup").unlink()
    assert memory.available() == 8 * GIB


@pytest.mark.parametrize(
    ("options", "kind", "room"),
    [
        (("rw,nosuid,nodev",), "tmpfs", True),
        (("rw,noexec",), "tmpfs", False),
        (("ro",), "tmpfs", False),
        (("rw",), "ext4", False),
        ((), "tmpfs", False),
        # Of two, the last is on top.
        (("rw", "rw,noexec"), "tmpfs", False),
        (("rw,noexec", "rw"), "tmpfs", True),
    ],
)
def test_it_must_be_memory_from_which_programs_run(
    machine: Machine, tmp_path: Path, options: tuple[str, ...], kind: str, room: bool
) -> None:
    machine.mounts(*options, kind=kind)
    assert memory.room(1) == room
    with memory.tree(tmp_path / "work", 1) as tree:
        assert (tree is not None) == room


def test_a_tree_is_empty_and_closed_and_goes(machine: Machine, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with memory.tree(tmp_path / "work", 1) as tree:
            assert tree
            assert tree.path.is_relative_to(machine.mine)
            assert [*tree.path.iterdir()] == []
            # It is the root directory of an image; but nobody else gets there.
            assert tree.path.stat().st_mode & 0o7777 == 0o755
            assert machine.mine.stat().st_mode & 0o7777 == 0o700
            (tree.path / "usr").mkdir()
    finally:
        os.umask(before)
    assert machine.left() == []


def test_a_tree_goes_after_an_exception(machine: Machine, tmp_path: Path) -> None:
    def fail() -> None:
        with memory.tree(tmp_path / "work", 1) as tree:
            assert tree
            (tree.path / "file").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert machine.left() == []


def test_two_workspaces_have_two_trees(machine: Machine, tmp_path: Path) -> None:
    with memory.tree(tmp_path / "one", 1) as one:
        assert one
        (one.path / "file").touch()
        with memory.tree(tmp_path / "two", 1) as two:
            assert two
            assert two.path != one.path
            assert len(machine.left()) == 2
        assert (one.path / "file").exists()
        assert len(machine.left()) == 1
    assert machine.left() == []


def test_room_that_others_have_been_promised_is_not_free(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = memory._needed(GIB)
    machine.has(2 * needed + memory._SPARE)
    free = shutil.disk_usage(machine.shared)._replace(free=2**50)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with memory.tree(tmp_path / "one", GIB) as one, memory.tree(tmp_path / "two", GIB) as two:
        assert one
        assert two
        with memory.tree(tmp_path / "three", GIB) as three:
            assert three is None
        # What one has used is not free any more.
        (one.path / "file").write_bytes(bytes(2**20))
        machine.has(2 * needed + memory._SPARE - 2**20)
        with memory.tree(tmp_path / "small", 2**20) as small:
            assert small is None
        machine.has(2 * needed + memory._SPARE + 2**20)
        with memory.tree(tmp_path / "small", 2**20) as small:
            assert small
    with memory.tree(tmp_path / "three", GIB) as three:
        assert three


def test_who_does_not_want_it_has_none(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.NEVER, "1")
    with memory.tree(tmp_path / "work", 1) as tree:
        assert tree is None
    assert not machine.mine.exists()


def test_a_tree_that_is_too_large_is_on_the_disk(machine: Machine, tmp_path: Path) -> None:
    with memory.tree(tmp_path / "work", 2**50) as tree:
        assert tree is None
    assert not machine.mine.exists()


@pytest.mark.parametrize("what", ["symlink", "file", "fifo", "open", "another's"])
def test_what_is_not_this_user_s_is_not_used(machine: Machine, tmp_path: Path, what: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    if what == "symlink":
        machine.mine.symlink_to(tmp_path / "elsewhere")
    elif what == "file":
        machine.mine.touch()
    elif what == "fifo":
        os.mkfifo(machine.mine)
    else:
        machine.mine.mkdir()
        machine.mine.chmod(0o777 if what == "open" else 0o755)
    if what == "another's":
        if os.geteuid():
            pytest.skip("only root can give a directory away")
        os.chown(machine.mine, 65534, 65534)
    before = machine.mine.lstat()
    with memory.tree(tmp_path / "work", 1) as tree:
        assert tree is None
    assert (machine.mine.lstat().st_mode, machine.mine.lstat().st_uid) == (before.st_mode, before.st_uid)
    assert [*(tmp_path / "elsewhere").iterdir()] == []


KILLED = """
import os, sys
from pathlib import Path
from debian_cloud.host import memory
memory._SHARED, memory._MOUNTS, memory._MEMORY = map(Path, sys.argv[1:4])
with memory.tree(Path(sys.argv[4]), 1) as tree:
    (tree.path / "left").write_text("x")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("filled", [False, True])
def test_what_a_killed_build_left_goes_with_the_next(machine: Machine, tmp_path: Path, filled: bool) -> None:
    """Even if, by what is left, there is no room."""
    subprocess.run(
        [sys.executable, "-c", KILLED, machine.shared, memory._MOUNTS, memory._MEMORY, tmp_path / "killed"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert len([*machine.mine.glob("*/tree/left")]) == 1
    if filled:
        machine.has(0)
        with memory.tree(tmp_path / "work", 1) as tree:
            assert not tree
        assert machine.left() == []
        machine.has(8 * GIB)
    (machine.mine / "stray").touch()
    with memory.tree(tmp_path / "work", 1) as tree:
        assert tree
        assert sorted(machine.left()) == sorted(["stray", tree.path.parent.name])
    assert machine.left() == ["stray"]


SESSION = "/user.slice/user-1000.slice/session-1.scope"


@pytest.mark.parametrize(
    ("group", "uid", "change", "had"),
    [
        (SESSION, 1000, "", True),
        ("/system.slice/builder.service", 1000, "", False),
        ("/system.slice/builder.service", 1000, "linger", True),
        ("/system.slice/builder.service", 999, "", True),
        ("/system.slice/builder.service", 1000, "no logind", True),
        (SESSION, 1000, "nohup", False),
    ],
)
def test_memory_that_logind_may_free_before_the_build_ends_is_not_used(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, uid: int, change: str, had: bool
) -> None:
    machine.group(group)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    user = pwd.struct_passwd(("me", "x", uid, uid, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    if change != "no logind":
        (tmp_path / "notify").touch()
    (tmp_path / "linger").mkdir()
    if change == "linger":
        (tmp_path / "linger/me").touch()
    if change == "nohup":
        monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    assert memory._outlives_its_login() != had
