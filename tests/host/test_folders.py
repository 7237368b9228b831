# SPDX-License-Identifier: GPL-3.0-or-later
"""Workspaces: private, held by one process at a time, and removed at the end."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import folders, run

SOURCE = Path(__file__).resolve().parents[2] / "src"
AS_OTHER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
HOLD = """
import pathlib, sys, time
from debian_cloud.host import folders
with folders.locked(pathlib.Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_link_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work").symlink_to("elsewhere")
    with pytest.raises(Error, match="is not a directory") as refused, folders.locked(tmp_path / "work", "it"):
        pytest.fail("another's directory was taken")
    assert refused.value.status == USAGE


def test_a_folder_that_others_may_write_to_is_no_workspace(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(Error, match="other users may write to it"), folders.locked(folder, "it"):
        pytest.fail("an open directory was taken")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_s_folder_is_no_workspace(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, 65534)
    with pytest.raises(Error, match="belongs to another"), folders.locked(folder, "it"):
        pytest.fail("another's directory was taken")


def test_a_new_workspace_is_closed_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with folders.locked(tmp_path / "work", "it"):
            assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
        with folders.locked(tmp_path / "other", "it", mode=0o711):
            assert (tmp_path / "other").stat().st_mode & 0o777 == 0o711
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("there", [False, True])
def test_another_user_cannot_lock_it_but_reach_what_is_in_it_if_that_is_wanted(there: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        work = Path(name) / "work"
        if there:
            work.mkdir(mode=0o755)
        with folders.locked(work, "it", mode=0o711):
            pass
        (work / "file").write_text("read")
        lock = (*AS_OTHER, "flock", "--shared", "--nonblock", work, "true")
        assert b"Permission denied" in subprocess.run(lock, capture_output=True, check=False).stderr
        assert subprocess.check_output([*AS_OTHER, "cat", work / "file"]) == b"read"
        # Nobody else may run an unfinished image's set-user-ID programs.
        with folders.locked(work, "it"):
            pass
        closed = subprocess.run((*AS_OTHER, "cat", work / "file"), capture_output=True, check=False)
        assert b"Permission denied" in closed.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_that_another_user_holds_is_told_to_be_that(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        with folders.locked(Path(name) / "work", "it"):
            other = subprocess.run(
                (*AS_OTHER, sys.executable, "-c", HOLD, Path(name) / "work"),
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
                capture_output=True,
                text=True,
                check=False,
            )
    assert "work belongs to another user, or other users may write to it" in other.stderr


def test_one_holder_at_a_time_and_the_kernel_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2])},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Error, match="another debian-cloud uses it"), folders.locked(folder, "it"):
        pytest.fail("held twice")
    holder.kill()
    holder.wait()
    with folders.locked(folder, "it"):
        pass


def test_one_who_waits_says_so_and_has_it_when_it_is_let_go(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    waiting = 'with folders.locked(pathlib.Path(sys.argv[1]), "the cache", wait=True): print("mine")'
    with folders.locked(folder, "it"):
        second = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import pathlib, sys\nfrom debian_cloud.host import folders\n{waiting}",
                folder,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2])},
        )
        assert second.stderr is not None
        assert second.stderr.readline() == "debian-cloud: waiting for another debian-cloud that uses the cache\n"
        assert second.poll() is None
    assert second.communicate(timeout=60) == ("mine\n", "")
    assert second.returncode == 0


def test_a_folder_removed_by_its_last_holder_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    lock, calls = fcntl.flock, []

    def removed_meanwhile(descriptor: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            folder.rmdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with folders.locked(folder, "it") as descriptor:
        assert os.fstat(descriptor).st_ino == folder.stat().st_ino
    assert len(calls) == 2


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_PATIENCE", 1)
    # A prefix that does nothing, so the directory stays.
    monkeypatch.setattr(run, "_namespace", lambda: ("true",))
    with pytest.raises(Error, match="could not be removed"):
        folders.remove(tmp_path)


def no_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine whose users may not make namespaces."""
    script = "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1"
    monkeypatch.setattr(run, "_namespace", lambda: ("sh", "-c", script, "unshare"))


def test_what_cannot_be_removed_without_a_namespace_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_PATIENCE", 1)
    no_namespace(monkeypatch)
    rm = tmp_path / "bin" / "rm"
    rm.parent.mkdir()
    rm.write_text("#!/bin/sh\necho 'rm: cannot remove the file of another' >&2\nexit 1\n")
    rm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{rm.parent}:/usr/bin:/bin")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(Error) as refused:
        folders.remove(work)
    assert refused.value.message == f"{work} could not be removed: unshare: unshare failed: Operation not permitted"
    assert refused.value.hint == f"remove it as root: rm -rf {work}"


def test_a_workspace_of_our_own_files_needs_no_namespace_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_namespace(monkeypatch)
    work = tmp_path / "work"
    (work / "tree").mkdir(parents=True)
    (work / "log").touch()
    folders.empty(work)
    assert list(work.iterdir()) == []
    folders.remove(work)
    assert not work.exists()
