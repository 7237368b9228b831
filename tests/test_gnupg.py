# SPDX-License-Identifier: GPL-3.0-or-later
"""No test depends on how fast a GnuPG agent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests import gnupg


def agent_of(home: Path) -> int:
    asked: list[str | Path] = ["gpg-connect-agent", "--homedir", home, "GETINFO pid", "/bye"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return int(said.splitlines()[0].removeprefix("D "))


def test_an_agent_that_ends_slowly_is_waited_for(gnupg_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that signs before the agent has ended would still connect to it."""
    gnupg.new_key(gnupg_home, "x")
    pid, done = agent_of(gnupg_home), subprocess.run

    def killed_late(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        if "--kill" not in command:
            return done(command, **options)  # type: ignore[call-overload,no-any-return]
        threading.Timer(0.5, os.kill, (pid, signal.SIGTERM)).start()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", killed_late)
    gnupg.end(gnupg_home)
    monkeypatch.undo()
    assert not list(gnupg_home.glob("S.gpg-agent"))
    assert gnupg.gpg(gnupg_home, "--clearsign", text=b"x\n").startswith(b"-----BEGIN PGP SIGNED MESSAGE")


def test_a_directory_is_removed_with_the_agents_of_its_homes(tmp_path: Path) -> None:
    with gnupg.temporary_home() as top:
        homes = [top / name for name in ("a", "b")]
        for home in homes:
            gnupg.new_key(home, "x")
        agents = [agent_of(home) for home in homes]
    assert not top.exists()
    until = time.monotonic() + 30
    while any(map(is_at_work, agents)):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_at_work(pid: int) -> bool:
    """Whether a process runs; one that has ended is a zombie until its parent, whichever it is, reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_socket_that_nobody_listens_on_is_none(gnupg_home: Path) -> None:
    """A killed agent leaves such a socket."""
    gnupg.new_key(gnupg_home, "x")
    os.kill(agent_of(gnupg_home), signal.SIGKILL)
    assert (gnupg_home / "S.gpg-agent").is_socket()
    gnupg.end(gnupg_home)
    assert gnupg.gpg(gnupg_home, "--clearsign", text=b"x\n")
