# SPDX-License-Identifier: GPL-3.0-or-later
"""Client machines of an archive: as this machine's apt sees them, and complete ones with apt 2.6 and apt 3."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from debian_cloud.host import run
from debian_cloud.image import sources
from tests import clock, one_line

RELEASES: Final = {"apt-2.6": "bookworm", "apt-3": "trixie"}
"""Name of a client -> the release that has this apt."""

# Some build machines turn both dates off; the tests need them on.
CONFIGURATION: Final = """\
APT::Sandbox::User "root"; APT::Architecture "amd64"; APT::Architectures { "amd64"; };
APT::Update::Error-Mode "any"; Acquire::Languages "none"; Acquire::Retries "0";
Acquire::Check-Valid-Until "true"; Acquire::Check-Date "true";
"""
_PATH: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
# The programs that apt and dpkg call, and another clock; the machine needs no others.
_NEEDS: Final = "apt dash dpkg base-files coreutils sed grep findutils diffutils tar libc-bin gpgv faketime"
_LEFT_OUT: Final = (
    *("dev/*", "etc/apt/sources.list", "etc/apt/apt.conf.d/70debconf", "var/cache/apt/*.bin"),
    *(f"usr/share/{name}" for name in ("doc", "locale", "man", "info")),
    *("usr/lib/*/gconv", "usr/lib/*/perl*", "usr/share/perl*"),
)
"""Patterns of files that no client needs: the few hundred that remain are copied and removed quickly."""
# TREE is the root. The directory of temporary files, archives included, has the same name inside.
_IN: Final = """
tree=$1 shared=$2
shift 2
mount --rbind /dev "$tree/dev"
mkdir -p "$tree$shared"
mount --rbind "$shared" "$tree$shared"
exec chroot "$tree" "$@"
"""


@dataclass(frozen=True, slots=True)
class Apt:
    """A client machine; `prefix` goes before each command, `requests` are those that `serving` recorded."""

    root: Path
    env: dict[str, str]
    requests: list[str] = field(default_factory=list)
    prefix: tuple[str | Path, ...] = ()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine; both its outputs are in `stdout`."""
        return subprocess.run(
            [*self.prefix, *command],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )

    def get(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run apt-get on this machine."""
        return self.run("apt-get", *arguments)

    def installs(self, package: Path) -> None:
        """Install the keyring package as a user would; if apt is this machine's, unpack it and point apt at it."""
        if self.prefix:
            done = self.run("dpkg", "--install", package)
            assert done.returncode == 0, done.stdout
            return
        subprocess.run(["dpkg-deb", "-x", package, self.root], env=self.env, check=True)
        entry = self.root / "etc/apt/sources.list.d/debian-cloud.sources"
        entry.write_text(entry.read_text().replace("Signed-By: ", f"Signed-By: {self.root}"))

    def candidate(self, package: str) -> str:
        """The version of a package that apt would install."""
        done = self.run("apt-cache", "policy", package)
        assert done.returncode == 0, done.stdout
        (version,) = re.findall("^  Candidate: (.*)$", done.stdout, re.MULTILINE)
        return str(version)

    def version(self, package: str) -> str:
        """The installed version of a package; empty if it is not installed (needs a complete machine)."""
        done = self.run("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package)
        status, _, version = done.stdout.partition(" ")
        return version if done.returncode == 0 and status == "installed" else ""

    def later(self, days: int) -> Apt:
        """The same machine with its clock some days ahead, or behind (needs a complete machine)."""
        return replace(self, prefix=(*self.prefix, *clock.off_by(f"{days:+}d")))


def machine(root: Path, env: dict[str, str]) -> Apt:
    """Make a machine without any source from this machine's apt: fast, but nothing can be installed on it."""
    for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/apt/preferences.d"):
        (root / name).mkdir(parents=True)
    (root / "etc/apt/trusted.gpg.d").mkdir()
    (root / "var/lib/dpkg").mkdir()
    (root / "var/lib/dpkg/status").touch()
    (root / "apt.conf").write_text(
        f'Dir "{root}"; Dir::State::status "{root}/var/lib/dpkg/status"; Dir::Bin::dpkg "/usr/bin/dpkg";\n'
        f'Dir::Bin::methods "/usr/lib/apt/methods";\n{CONFIGURATION}'
    )
    return Apt(root, {**env, "APT_CONFIG": str(root / "apt.conf")})


def private(folder: Path, sources: str) -> list[str]:
    """The options of an apt in a new directory that knows only `sources`, a deb822 file."""
    for name in ("state/lists/partial", "cache", "sources"):
        (folder / name).mkdir(parents=True)
    (folder / "sources/a.sources").write_text(sources)
    words = (
        f"Dir::State={folder}/state",
        "Dir::State::status=/dev/null",
        f"Dir::Cache={folder}/cache",
        "Dir::Etc::SourceList=/dev/null",
        f"Dir::Etc::SourceParts={folder}/sources",
        "APT::Sandbox::User=root",
    )
    return [word for pair in words for word in ("-o", pair)]


@contextmanager
def serving(folder: Path, requests: list[str]) -> Iterator[str]:
    """Serve a directory over HTTP on loopback, and yield its address. Each request is recorded with its status."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the name of the overridden method
            requests.append(format % args)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _namespaces() -> tuple[str, ...]:
    return ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--mount", "--kill-child")


def _bootstrap(release: str, folder: Path) -> Path:
    """Unpack a root file system with apt of a release, owned by the caller."""
    debian = sources.debian(sources.targets(run.output(sources.INDEXTARGETS)), release, expired=True)
    (folder / "sources.list").write_text(one_line.as_lines(debian))
    tree, tar = folder / "tree", folder / "tree.tar"
    tree.mkdir()
    root = os.geteuid() == 0
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc") if root else ()
    command = (
        "mmdebstrap",
        f"--mode={'root' if root else 'unshare'}",
        "--variant=extract",
        "--format=tar",
        "--quiet",
    )
    what = (f"--include={','.join(_NEEDS.split())}", release, "-", folder / "sources.list")
    with tar.open("wb") as out:
        subprocess.run([*namespaces, *command, *what], stdout=out, stdin=subprocess.DEVNULL, check=True)
    unpack = ("tar", "-x", "--no-same-owner", "-C", tree, "-f", tar)
    subprocess.run([*unpack, *(f"--exclude=./{path}" for path in _LEFT_OUT)], check=True)
    tar.unlink()
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    # mmdebstrap leaves Debian's sources, which no client needs.
    for entry in (tree / "etc/apt/sources.list.d").iterdir():
        entry.unlink()
    (tree / "etc/apt/apt.conf.d/00machine").write_text(CONFIGURATION)
    return tree


@pytest.fixture(scope="session")
def trees() -> Iterator[Callable[[str], Path]]:
    """A function: name of a client -> its root file system, made at the first call."""
    folder = Path(tempfile.mkdtemp(prefix="clients-"))

    @functools.cache
    def tree(name: str) -> Path:
        (folder / name).mkdir()
        return _bootstrap(RELEASES[name], folder / name)

    yield tree
    shutil.rmtree(folder)


@pytest.fixture
def clients(trees: Callable[[str], Path]) -> Iterator[Callable[[str], Apt]]:
    """A function: name of a client -> a new complete machine without a source or a trusted key."""
    folders: list[Path] = []

    def client(name: str) -> Apt:
        tree = trees(name)
        folders.append(Path(tempfile.mkdtemp(dir=tree.parent)))
        root = folders[-1] / "root"
        # Hard links are safe: dpkg and apt replace files and change none.
        subprocess.run(["cp", "-al", tree, root], check=True)
        prefix: tuple[str | Path, ...] = (*_namespaces(), "sh", "-euc", _IN, "sh", root, tempfile.gettempdir())
        return Apt(root, dict(_PATH), prefix=prefix)

    yield client
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(params=RELEASES)
def client(request: pytest.FixtureRequest, clients: Callable[[str], Apt]) -> Apt:
    """A complete machine with apt 2.6, then one with apt 3."""
    return clients(request.param)
