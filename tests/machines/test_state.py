# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of an instance: what is read from it, and its lock."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.machines.qemu import state
from tests.machines.records import KEPT


def test_what_is_written_is_read(tmp_path: Path) -> None:
    kept = replace(KEPT, disks=("data", "more"), throw_away=True, expires=5)
    state.write(tmp_path, kept)
    assert state.read(tmp_path) == kept
    assert (tmp_path / state.SPEC).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [state.SPEC]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": "1"},
        {"memory": "1024"},
        {"memory": True},
        {"way": "other"},
        {"disks": "data"},
        {"more": 1},
        {"name": None},
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    state.write(tmp_path, KEPT)
    found = json.loads((tmp_path / state.SPEC).read_text())
    (tmp_path / state.SPEC).write_text(json.dumps({**found, **changes}))
    with pytest.raises(Error, match="cannot be read"):
        state.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "5", "{", "[" * 60000, "x" * 70000, "\udce4"])
def test_what_is_no_spec_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / state.SPEC).write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(Error, match="cannot be read"):
        state.read(tmp_path)


def test_a_lock_lasts_as_long_as_any_process_has_it(tmp_path: Path) -> None:
    assert not state.is_locked(tmp_path)
    with state.locked(tmp_path) as lock:
        assert lock is not None
        assert state.is_locked(tmp_path)
        with state.locked(tmp_path) as second:
            assert second is None
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    try:
        assert state.is_locked(tmp_path)
    finally:
        child.kill()
        child.wait()
    assert not state.is_locked(tmp_path)
    with state.locked(tmp_path) as lock:
        assert lock is not None


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "other" / state.LOCK).symlink_to(tmp_path / "target")
    assert not state.is_locked(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), state.locked(tmp_path / "other"):
        pass


def test_a_log_is_bounded_and_its_end_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a" * 5000 + b"end")
    state.trim(log, 2000)
    assert log.stat().st_size == 5003
    writer = os.open(log, os.O_WRONLY | os.O_APPEND)
    state.trim(log, 1000)
    os.write(writer, b"+")
    os.close(writer)
    assert log.read_bytes() == b"a" * 997 + b"end+"
    assert state.tail(log, 4) == b"end+"
    assert state.tail(tmp_path / "none", 4) == b""
    state.trim(tmp_path / "none", 1)


def test_where_instances_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state.root() == tmp_path / "state/debian-cloud"
    assert (tmp_path / "state/debian-cloud").stat().st_mode & 0o777 == 0o700
    # A relative path is ignored (XDG Base Directory Specification).
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert state.root() == tmp_path / "home/.local/state/debian-cloud"
    # Below a directory to which all may write, but in which none may remove another's.
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o1777)
    assert state.root(str(tmp_path / "all/mine")) == tmp_path / "all/mine"
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Error, match="could change instances"):
        state.root(str(tmp_path / "open/mine"))
    assert not (tmp_path / "open/mine").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Error, match="instances cannot be in"):
        state.root(str(tmp_path / "file"))
