# SPDX-License-Identifier: GPL-3.0-or-later
"""A container for a test: the root file system of a disk under systemd-nspawn, without firmware or kernel."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.built.qemu import logs
from tests.built.tree import as_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ROOT: Final = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
"""The type of a root partition for amd64 (Discoverable Partitions Specification)."""


def extract(raw: Path, tree: Path) -> None:
    """Copy the root file system of a disk into the directory `tree`, with neither mount nor loop device.

    debugfs(8) keeps owners, modes and contents; it loses set-id and sticky bits, ACLs
    and hard links. Enough for a boot: systemd-tmpfiles sets those of /tmp again.
    """
    listed = subprocess.run(["sfdisk", "--json", raw], capture_output=True, check=True)
    table = json.loads(listed.stdout)["partitiontable"]
    (start,) = (part["start"] for part in table["partitions"] if part["type"] == _ROOT)
    offset = start * int(table["sectorsize"])
    tree.mkdir()
    done = subprocess.run(
        as_root("debugfs", "-R", f'rdump / "{tree}"', f"{raw}?offset={offset}"),
        capture_output=True,
        text=True,
        check=True,
    )
    # debugfs reports failures, but exits with 0; its first line is its version.
    assert done.stderr.count("\n") <= 1, done.stderr


_NONE: Final[Mapping[str, str]] = {}
_WITH_CGROUPS = 'mountpoint --quiet /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"'
"""Where nobody has mounted control groups, as in a chroot, systemd-nspawn does not start."""


_HERE: Final = ("--register=no", "--keep-unit", "--private-network", "--resolv-conf=off", "--timezone=off")
"""The host may be a container itself, where systemd does not run and nothing can be registered with it."""

_AS_DOCUMENTED: Final = f"""\
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
export PATH SYSTEMD_NSPAWN_UNIFIED_HIERARCHY
exec unshare --mount sh -euc {shlex.quote(_WITH_CGROUPS)} sh \\
    systemd-nspawn {" ".join(_HERE)} --link-journal=no %s "$@"
"""


def as_documented(name: str, *options: str) -> str:
    """A program in place of systemd-nspawn: README's command with what a test adds to it."""
    return _AS_DOCUMENTED % shlex.join((f"--machine={name}", *options))


@dataclass(frozen=True, slots=True)
class Container:
    """A running container."""

    process: subprocess.Popen[bytes]
    tree: Path
    log: Path

    def first(self) -> int:
        """The process id, here, of the container's process 1; 0 while it is not yet in its tree."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii").split()
        # Before that it is in the host's name spaces, and would answer for the host, or it has just ended.
        with contextlib.suppress(FileNotFoundError):
            if children and Path(f"/proc/{children[0]}/root").samefile(self.tree):
                return int(children[0])
        return 0

    def run(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        inside = ["nsenter", "--all", "--target", str(self.first()), *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=seconds, check=False)

    def wait(self, unit: str, seconds: float) -> None:
        """Wait until `unit` is active; AssertionError with the state of the jobs if it does not become so."""
        end = time.monotonic() + seconds
        while True:
            ended = self.process.poll()
            assert ended is None, f"systemd-nspawn ended ({ended}) before {unit}\n{self.log.read_text('utf-8')}"
            if self.first() and self.run("systemctl", "is-active", "--quiet", unit).returncode == 0:
                return
            assert time.monotonic() < end, f"no {unit} in {seconds} s\n{self.run('systemctl', 'list-jobs').stdout}"
            time.sleep(0.5)


@contextmanager
def boot(
    tree: Path,
    name: str,
    *arguments: str,
    environment: Mapping[str, str] = _NONE,
) -> Iterator[Container]:
    """Boot a tree with a network of its own, ended when left. `name` is the container's and its log's.

    `arguments` are a kernel's, as far as systemd reads them (kernel-command-line(7)); `environment` is for
    systemd-nspawn itself.
    """
    log = logs() / f"{name}.log"
    command = [
        *("unshare", "--mount", "sh", "-euc", _WITH_CGROUPS, "sh"),
        *("systemd-nspawn", "--quiet", "--directory", str(tree), "--machine", name, "--boot"),
        *_HERE,
        # A terminal, which nobody sits at.
        "--console=passive",
        "--link-journal=no",
        "--bind-ro=/dev/null:/etc/fstab",  # the disks of fstab(5) are not there
        *arguments,
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", **environment},
        )
        container = Container(process, tree, log)
        try:
            yield container
        finally:
            if process.poll() is None:
                out.write(container.run("journalctl", "--boot", "--no-pager").stdout.encode())
                # The tree is a copy: nothing in it needs an orderly end.
                os.kill(container.first() or process.pid, signal.SIGKILL)
            process.wait()
