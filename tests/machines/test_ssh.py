# SPDX-License-Identifier: GPL-3.0-or-later
"""The command that logs in, as the real ssh(1) understands it, and what counts as an answer."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from debian_cloud.machines import ssh
from debian_cloud.machines.instance import Login


def login(port: int = 22, known_hosts: str = "/known", key: str = "/key") -> Login:
    return Login("debian", "127.0.0.1", port, "debian-cloud-try-1a2b", known_hosts, key)


@pytest.mark.parametrize("name", ["plain", "with blank", 'with "quotes"', "100%h", "back\\slash"])
def test_a_path_is_read_as_it_is(name: str) -> None:
    argv = ssh.argv(login(known_hosts=f"/{name}/known_hosts", key=f"/{name}/key"))
    done = subprocess.run([*argv[:1], "-G", *argv[1:]], capture_output=True, text=True, check=True)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    said = {key: found[key].replace("%%", "%").strip('"') for key in ("identityfile", "userknownhostsfile")}
    assert said["identityfile"] == f"/{name}/key"
    assert said["userknownhostsfile"] == f"/{name}/known_hosts"


def test_nothing_of_the_user_s_is_read_or_shown() -> None:
    argv = ssh.argv(login(), ("echo", "a b"))
    assert argv[:3] == ("ssh", "-F", "none")
    assert argv[-4:] == ("debian@127.0.0.1", "--", "echo", "a b")
    done = subprocess.run([*argv[:1], "-G", *argv[1:]], capture_output=True, text=True, check=True)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert found["stricthostkeychecking"] == "true"
    assert (found["identitiesonly"], found["identityagent"]) == ("yes", "none")
    assert found["hostkeyalias"] == "debian-cloud-try-1a2b"
    assert found["batchmode"] == "no"
    assert "BatchMode=yes" in ssh.argv(login(), batch=True)


@pytest.mark.parametrize(("said", "answered"), [(b"SSH-2.0-x\r\n", True), (b"HTTP/1.0 400\r\n", False), (b"", False)])
def test_an_answer_is_the_first_line_of_a_server(said: bytes, answered: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert ssh.answers(login(server.getsockname()[1]), 2) == answered
        thread.join(10)


def test_a_port_that_is_open_is_no_answer() -> None:
    """QEMU opens it before the guest listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ssh.answers(login(port), 0.3)
    assert not ssh.answers(login(port), 0.3)


def test_a_key_is_made_without_a_passphrase(tmp_path: Path) -> None:
    ssh.make_key(tmp_path / "key", "me")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key.pub").read_text().split()[2] == "me"
    subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", tmp_path / "key"], check=True, stdout=subprocess.DEVNULL)
