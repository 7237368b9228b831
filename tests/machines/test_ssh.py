# SPDX-License-Identifier: GPL-3.0-or-later
"""The command that logs in, as the real ssh(1) understands it, and what counts as an answer."""

from __future__ import annotations

import getpass
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.machines import ssh
from debian_cloud.machines.instance import Login
from tests import sshd

HOST_KEY = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'a' * 43}"


def login(port: int = 22, key: str = "/key") -> Login:
    return Login("debian", "127.0.0.1", port, "debian-cloud-try-1a2b", HOST_KEY, key)


@pytest.mark.parametrize("name", ["plain", "with blank", 'with "quotes"', "100%h", "back\\slash"])
def test_a_path_is_read_as_it_is(name: str) -> None:
    argv = ssh.argv(login(key=f"/{name}/key"))
    done = subprocess.run([*argv[:1], "-G", *argv[1:]], capture_output=True, text=True, check=True)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert found["identityfile"].replace("%%", "%").strip('"') == f"/{name}/key"


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


@pytest.mark.parametrize(
    "given",
    [{"user": "-oProxyCommand=touch${IFS}x;true"}, {"user": "a b"}, {"user": ""}, {"host": "-oProxyCommand=x"}],
)
def test_a_provider_s_word_is_no_option(given: dict[str, str]) -> None:
    with pytest.raises(Error, match="is no login"):
        ssh.argv(replace(login(), **given))


def test_only_the_host_key_that_is_known_is_accepted(tmp_path: Path) -> None:
    with sshd.served(tmp_path) as port:
        user = getpass.getuser()
        right = (tmp_path / "host.pub").read_text().rsplit(" ", 1)[0]
        mine = Login(user, "127.0.0.1", port, "debian-cloud-try-1a2b", right, str(tmp_path / "id_ed25519"))
        done = subprocess.run(ssh.argv(mine, ("echo", "in"), batch=True), capture_output=True, text=True, check=False)
        assert done.stdout == "in\n", done.stderr
        other = ssh.argv(replace(mine, host_key=HOST_KEY), ("echo", "in"), batch=True)
        done = subprocess.run(other, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (255, "")
        assert "Host key verification failed" in done.stderr
        assert ssh.answers(mine)


def test_an_instance_whose_host_key_is_not_known_is_not_asked() -> None:
    unknown = replace(login(), host_key="")
    with pytest.raises(Error, match="is not known yet"):
        ssh.argv(unknown)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not ssh.answers(replace(unknown, port=server.getsockname()[1]), 60)


def test_a_key_is_made_without_a_passphrase(tmp_path: Path) -> None:
    ssh.make_key(tmp_path / "key", "me")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key.pub").read_text().split()[2] == "me"
    subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", tmp_path / "key"], check=True, stdout=subprocess.DEVNULL)
