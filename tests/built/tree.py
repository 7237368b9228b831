# SPDX-License-Identifier: GPL-3.0-or-later
"""A root file system as a directory: made, taken from an image, read, and worked in as root and as other users.

If the tests run as an ordinary user, files of other users belong to subordinate ids,
so all that reads or removes a tree runs in a namespace, too.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


def as_root(*command: str | Path) -> list[str]:
    """A command that runs the given one as root of a new namespace; its mounts and processes end with it."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user", "--map-auto")
    return ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *map(str, command)]


# TREE DIRECTORY…: the directories up to "--" are /mnt/NAME inside; the rest is the command.
_ENTER: Final = """
tree=$1; shift
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount -t tmpfs -o mode=755 tmpfs "$tree/run"
# where a system with systemd-resolved looks
mkdir -p "$tree/run/systemd/resolve"
[ ! -e /etc/resolv.conf ] || cp -L /etc/resolv.conf "$tree/run/systemd/resolve/stub-resolv.conf"
mount -t tmpfs -o mode=755 tmpfs "$tree/mnt"
while [ "$1" != -- ]; do
    mkdir "$tree/mnt/${1##*/}"
    mount --bind "$1" "$tree/mnt/${1##*/}"
    shift
done
shift
exec chroot "$tree" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""

# A tree has no service manager, so no service starts in it (invoke-rc.d(8)).
_NO_SERVICES: Final = "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"

# No test reads the initrd or the byte-code of a tree that it installed, and both are made by each installation;
# the images have them.
_NOT_MADE: Final = """
for name in update-initramfs py3compile; do
    printf '#!/bin/sh\\n' >"/usr/local/sbin/$name" && chmod 755 "/usr/local/sbin/$name"
done
"""

# All trees of a test run share the packages that apt fetched: /mnt/cache.
_APT: Final = """
APT::Sandbox::User "root";
APT::Keep-Downloaded-Packages "true";
APT::Install-Recommends "false";
Dir::Cache::Archives "/mnt/cache";
DPkg::Options:: "--force-unsafe-io";
Dpkg::Use-Pty "false";
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is at a path: `kind` as in find(1)'s %y (f, d, l), an octal `mode`, `owner` as "user:group"."""

    kind: str
    mode: str
    owner: str
    target: str = ""
    md5: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """A root file system. `shown` are directories of the host, which are below /mnt inside, under their names."""

    path: Path
    shown: tuple[Path, ...] = field(default=())

    def run(
        self, *command: str, seconds: float = 600, given: str = "", check: bool = True, alone: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the tree as root, without a terminal; AssertionError if it fails and `check`.

        With `alone`, its only network is a loopback interface of its own.
        """
        network = ("unshare", "--net", "sh", "-euc", 'ip link set lo up; exec "$@"', "sh") if alone else ()
        done = subprocess.run(
            as_root(*network, "sh", "-euc", _ENTER, "sh", self.path, *self.shown, "--", *command),
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done

    def apt(self, *arguments: str, seconds: float = 900) -> str:
        """Run apt-get as an administrator's script would, and return its output."""
        done = self.run("apt-get", "-y", "-q", *arguments, seconds=seconds)
        return done.stdout + done.stderr

    def text(self, path: str) -> str:
        """The text of a file, whatever its mode; AssertionError if there is none."""
        done = subprocess.run(as_root("cat", str(self.path / path)), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "replace")

    def entries(self, *folders: str) -> dict[str, Entry]:
        """Path -> entry of directories and all below them, without a leading slash; by default of all."""
        there = [folder for folder in folders if (self.path / folder).is_symlink() or (self.path / folder).exists()]
        places = there if folders else ["."]
        script = 'cd "$1"; shift; find "$@" -xdev -printf "%y %m %U:%G %P\\0%H\\0%l\\0"'
        listed = _bytes(as_root("sh", "-euc", script, "sh", str(self.path), *places)).split("\0")
        script = 'cd "$1"; shift; find "$@" -xdev -type f -print0 | xargs -0 md5sum -z --'
        digests = _bytes(as_root("sh", "-euc", script, "sh", str(self.path), *places)).split("\0")
        md5 = {_path(line[34:]): line[:32] for line in digests if line}
        users, groups = self._names("passwd"), self._names("group")
        found = {}
        for index in range(0, len(listed) - 2, 3):
            kind, mode, ids, name = listed[index].split(" ", 3)
            user, group = ids.split(":")
            owner = f"{users.get(user, user)}:{groups.get(group, group)}"
            path = _path(f"{listed[index + 1]}/{name}" if name else listed[index + 1])
            found[path] = Entry(kind, mode, owner, listed[index + 2], md5.get(path, ""))
        return found

    def _names(self, database: str) -> dict[str, str]:
        """Id -> name in the tree: ids of system users depend on the order of installation."""
        lines = (self.path / "etc" / database).read_text("utf-8").splitlines()
        return {line.split(":")[2]: line.split(":")[0] for line in lines}

    def copy(self, to: Path) -> Tree:
        """Copy the tree."""
        subprocess.run(as_root("cp", "-a", "--reflink=auto", str(self.path), str(to)), check=True)
        return Tree(to, self.shown)

    def remove(self) -> None:
        subprocess.run(as_root("rm", "-rf", "--one-file-system", str(self.path)), check=True)


def _bytes(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "surrogateescape")


def _path(name: str) -> str:
    return name.removeprefix("./") or "."


def debian_sources(suite: str) -> str:
    """Debian's sources for a suite, with the mirror that this machine's own apt uses."""
    line = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(LABEL) main"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", line, "Created-By: Packages", "Origin: Debian"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = sorted(set(listed.stdout.splitlines()))
    of_suite = {" Debian main": f" {suite} main", " Debian-Security main": f" {suite}-security main"}
    text = "".join(f"{line}\n" for line in lines)
    for old, new in of_suite.items():
        text = text.replace(old, new)
    return text


def bootstrap(to: Path, suite: str, archive: Path, keyring: Path) -> Tree:
    """Make a minimal Debian that also knows the served directory of an archive, with the indexes of both."""
    sources, cache = to.with_name(f"{to.name}.list"), to.with_name("cache")
    sources.write_text(debian_sources(suite), "utf-8")
    (cache / "partial").mkdir(parents=True)
    done = subprocess.run(
        as_root(
            *("mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase", "--skip=cleanup/apt"),
            *("--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"', suite, to, sources),
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    tree = Tree(to, (archive, cache))
    tree.run("sh", "-euc", _NO_SERVICES + _NOT_MADE)
    tree.run("sh", "-euc", "cat >/etc/apt/apt.conf.d/99test", given=_APT)
    subprocess.run(as_root("install", "-m", "644", keyring, to / "usr/share/keyrings/test.gpg"), check=True)
    line = f"deb [signed-by=/usr/share/keyrings/test.gpg] copy:/mnt/{archive.name} {suite} main\n"
    tree.run("sh", "-euc", "cat >/etc/apt/sources.list.d/test.list", given=line)
    tree.apt("update")
    return tree
