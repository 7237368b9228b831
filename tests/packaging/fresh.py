# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh Debian that boots systemd, with a network of its own and an ordinary user who may use sudo."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.built import nspawn
from tests.built.qemu import logs
from tests.built.tree import Tree, as_root, debian_sources

if TYPE_CHECKING:
    from collections.abc import Iterator

USER: Final = "newcomer"
HOME: Final = f"/home/{USER}"
# Packages of a standard installation that README needs and minbase does not have.
_STANDARD: Final = ("ca-certificates", "dbus", "git", "make", "openssh-client", "sudo", "systemd-sysv", "wget")
_NETWORK: Final = "10.0.2.3"
"""The address of slirp4netns(1)'s name server in a network namespace."""
_SETUP: Final = f"""
useradd --create-home --shell /bin/bash {USER}
chmod 700 {HOME}
echo '{USER} ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/{USER}
echo 'nameserver {_NETWORK}' >/etc/resolv.conf
echo fresh >/etc/hostname
echo '127.0.0.1 localhost fresh cloud.example.org' >/etc/hosts
# A person answers yes, and waits until all is on the disk.
printf '%s\\n' 'APT::Get::Assume-Yes "true";' 'DPkg::Options:: "--force-unsafe-io";' >/etc/apt/apt.conf.d/99fresh
echo 'debconf debconf/frontend select Noninteractive' | debconf-set-selections
"""


@dataclass(frozen=True, slots=True)
class Fresh:
    """The running system; `tree` is its root directory on the host, `transcript` its commands and their output."""

    container: nspawn.Container
    tree: Path
    transcript: Path

    def run(self, script: str, *, user: str = USER, where: str = HOME, seconds: float = 900) -> str:
        """Run lines of bash as a user in a directory, and return their output; AssertionError if one fails."""
        home = "/root" if user == "root" else f"/home/{user}"
        done = self.container.run(
            *("setpriv", "--reuid", user, "--regid", user, "--init-groups"),
            *("env", "-i", f"HOME={home}", f"USER={user}", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin"),
            *("bash", "-c", f"exec 2>&1\ncd {where}\nset -eux -o pipefail\n{script}"),
            seconds=seconds,
        )
        with self.transcript.open("a", encoding="utf-8") as transcript:
            transcript.write(f"\n### {user}\n{script}\n###\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, f"{self.transcript}\n{done.stdout[-8000:]}{done.stderr}"
        return done.stdout


@contextmanager
def booted(suite: str, source: Path, folder: Path) -> Iterator[Fresh]:
    """Boot a minimal Debian of a suite for the duration of the block; `source` is copied to ~/debian-cloud.

    Needs root, because systemd-nspawn(1) does.
    """
    sources = folder / "sources.list"
    sources.write_text(debian_sources(suite), "utf-8")
    tree = Tree(folder / "tree")
    options = ("--mode=root", "--format=directory", "--variant=minbase", "--dpkgopt=force-unsafe-io")
    made = subprocess.run(
        as_root("mmdebstrap", *options, f"--include={','.join(_STANDARD)}", suite, tree.path, sources),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        assert made.returncode == 0, made.stderr[-4000:]
        # The container has its own name service: no link to the host's.
        (tree.path / "etc/resolv.conf").unlink(missing_ok=True)
        tree.run("sh", "-euxc", _SETUP)
        there = tree.path / HOME.lstrip("/") / "debian-cloud"
        subprocess.run(["cp", "-a", source, there], check=True)
        tree.run("chown", "-R", f"{USER}:", f"{HOME}/debian-cloud")
        # Without this, parts of /proc are hidden, and namespaces in the container may not mount it.
        with (
            nspawn.boot(
                tree.path, f"fresh-{suite}", environment={"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}
            ) as container,
            _connected(container),
        ):
            container.wait("basic.target", 120)
            transcript = logs() / f"fresh-{suite}.transcript"
            transcript.write_text("", "utf-8")
            yield Fresh(container, tree.path, transcript)
    finally:
        tree.remove()


@contextmanager
def _connected(container: nspawn.Container) -> Iterator[None]:
    """Connect a container to outside networks, without any connection to it: its ports are its own, also port 80."""
    container.wait("basic.target", 120)
    with tempfile.TemporaryFile() as said:
        read, write = os.pipe()
        process = subprocess.Popen(
            [
                *("slirp4netns", "--configure", "--disable-host-loopback", "--mtu=65520"),
                *(f"--ready-fd={write}", str(container.first()), "host0"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(write,),
        )
        os.close(write)
        try:
            with os.fdopen(read, "rb") as ready:
                if not ready.read(1):
                    said.seek(0)
                    raise AssertionError(said.read().decode("utf-8", "replace"))
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            process.wait()
