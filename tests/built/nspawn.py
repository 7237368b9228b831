# SPDX-License-Identifier: GPL-3.0-or-later
"""A container for a test: the root file system of a disk in systemd-nspawn, without firmware or kernel."""

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
    """Copy the root file system of a disk into the directory `tree`, without mounts and loop devices.

    debugfs(8) keeps owners, modes and contents; it loses set-id and sticky bits, ACLs
    and hard links. That is enough to boot: systemd-tmpfiles sets the modes of /tmp again.
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
"""systemd-nspawn does not start if control groups are not mounted, as in a chroot."""


_HERE: Final = ("--register=no", "--keep-unit", "--private-network", "--resolv-conf=off", "--timezone=off")
"""The host may be a container itself, without a running systemd at which a machine could be registered."""

_AS_DOCUMENTED: Final = f"""\
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
export PATH SYSTEMD_NSPAWN_UNIFIED_HIERARCHY
exec unshare --mount sh -euc {shlex.quote(_WITH_CGROUPS)} sh \\
    systemd-nspawn {" ".join(_HERE)} --link-journal=no %s "$@"
"""


def as_documented(name: str, *options: str) -> str:
    """A program to run instead of systemd-nspawn: README's command with the test's options."""
    return _AS_DOCUMENTED % shlex.join((f"--machine={name}", *options))


@dataclass(frozen=True, slots=True)
class Container:
    """A running container."""

    process: subprocess.Popen[bytes]
    tree: Path
    log: Path

    def first(self) -> int:
        """The host's process id of the container's process 1; 0 if its root is not the tree yet."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii").split()
        # Before that, it is in the host's namespaces and would answer for the host; or it has just ended.
        with contextlib.suppress(FileNotFoundError):
            if children and Path(f"/proc/{children[0]}/root").samefile(self.tree):
                return int(children[0])
        return 0

    def run(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        inside = ["nsenter", "--all", "--target", str(self.first()), *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=seconds, check=False)

    def wait(self, unit: str, seconds: float) -> None:
        """Wait until `unit` is active; if it does not become so, raise AssertionError with the state of the jobs."""
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
    """Boot a tree with a network of its own for the duration of the block. `name` is for the container and its log.

    `arguments` are kernel arguments that systemd reads (kernel-command-line(7)); `environment` is for
    systemd-nspawn itself.
    """
    log = logs() / f"{name}.log"
    command = [
        *("unshare", "--mount", "sh", "-euc", _WITH_CGROUPS, "sh"),
        *("systemd-nspawn", "--quiet", "--directory", str(tree), "--machine", name, "--boot"),
        *_HERE,
        # A terminal without input.
        "--console=passive",
        "--link-journal=no",
        "--bind-ro=/dev/null:/etc/fstab",  # the disks in fstab(5) do not exist
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
                # The tree is a copy, which needs no clean shutdown.
                os.kill(container.first() or process.pid, signal.SIGKILL)
            process.wait()
