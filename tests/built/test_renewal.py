# SPDX-License-Identifier: GPL-3.0-or-later
"""An image with packages that make secrets, or that read the machine's identity, contains neither."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from debian_cloud.image import identities
from tests.build.compared import compared, debian
from tests.built import nspawn
from tests.built.tree import Tree
from tests.conftest import ALL, SUITE, World

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a machine another name, and boots a container"),
]

MADE_AGAIN: Final = {
    **({"bind9": ("etc/bind/rndc.key",)} if ALL else {}),
    "dropbear": ("etc/dropbear/dropbear_ed25519_host_key",),
    "munge": ("etc/munge/munge.key",),
    "nvme-cli": ("etc/nvme/hostnqn", "etc/nvme/hostid"),
    "open-iscsi": ("etc/iscsi/initiatorname.iscsi",),
    "openssh-server": ("etc/ssh/ssh_host_ed25519_key",),
    "postfix": ("etc/aliases.db",),
    "ssl-cert": ("etc/ssl/private/ssl-cert-snakeoil.key", "etc/ssl/certs/ssl-cert-snakeoil.pem"),
    "nsd": ("etc/nsd/nsd_control.key", "etc/nsd/nsd_server.pem"),
}
"""Added package -> files that it makes when it is installed, and on each machine."""

OFFLINE: Final = "systemd.mask=systemd-networkd-wait-online.service"
"""The container has no network to wait for."""

# Another machine: its files and its kernel give other names.
_ELSEWHERE: Final = """
hostname elsewhere
domainname nis.elsewhere
echo elsewhere >"$1/hostname"
sed 's/^search.*//; $a search elsewhere.example' /etc/resolv.conf >"$1/resolv.conf"
echo '127.0.1.1 elsewhere.example elsewhere' | cat /etc/hosts - >"$1/hosts"
for file in hostname resolv.conf hosts; do
    [ ! -e "/etc/$file" ] || mount --bind "$1/$file" "/etc/$file"
done
shift
umask 077
exec env LANG=de_DE.UTF-8 LANGUAGE=de LC_ALL=tr_TR.UTF-8 TZ=Pacific/Kiritimati "$@"
"""


# An image up to the compression of its tar.
_TAR: Final = "tar --create --file=- --sort=name --format=pax --numeric-owner --acls --xattrs --xattrs-include=*"
_TIMES: Final = "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"


@dataclass(frozen=True, slots=True)
class Made:
    """The same root file system made on two machines."""

    here: Tree
    elsewhere: Tree


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A container with all those packages, made here and on a machine that differs in everything else."""
    release, security = debian(SUITE)
    command = [
        *("debian-cloud", "plan", "container", "--suite", SUITE, "--add", ",".join(MADE_AGAIN)),
        *("--archive", f"file:{world.public}", "--keyring", str(world.keyring), "--allow-expired"),
        *("--mirror", release.uri, "--security-mirror", security.uri),
    ]
    plan = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    # Stop after the tree is made, because packing it would take most of the time.
    steps, packing, _ = plan.partition(". pack the tree\n")
    assert packing
    (stem,) = re.findall("(?m)^mkdir (debian-.*)$", steps)
    identity = tmp_path_factory.mktemp("identity")
    machine = ("unshare", "--mount", "--uts", "sh", "-euc", _ELSEWHERE, "sh", str(identity))
    # One processor, for which the kernel reports another architecture.
    alone = ("taskset", "--cpu-list", str(max(os.sched_getaffinity(0))), "setarch", "i686")
    trees = []
    for prefix in ((), (*machine, *alone)):
        folder = tmp_path_factory.mktemp("made")
        done = subprocess.run([*prefix, "sh"], input=steps, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        trees.append(Tree(folder / stem / "tree"))
    yield Made(*trees)
    for tree in trees:
        tree.remove()


@pytest.mark.thorough
def test_nothing_of_the_machine_that_makes_it_is_in_an_image(made: Made, tmp_path: Path) -> None:
    """An image is independent of the machine's names, time zone, locale, umask, processors, kernel and chance."""
    for name, tree in (("here", made.here), ("elsewhere", made.elsewhere)):
        with (tmp_path / f"{name}.tar").open("wb") as out:
            subprocess.run([*_TAR.split(), _TIMES, f"--directory={tree.path}", "."], stdout=out, check=True)
    if subprocess.run(["cmp", "--silent", tmp_path / "here.tar", tmp_path / "elsewhere.tar"], check=False).returncode:
        told = compared(tmp_path / "here.tar", tmp_path / "elsewhere.tar")
        pytest.fail(f"another machine makes another image:\n{told}", pytrace=False)


@pytest.mark.thorough
def test_an_image_has_nothing_that_is_one_machines_alone(made: Made) -> None:
    tree = made.here.path
    assert [path for paths in MADE_AGAIN.values() for path in paths if os.path.lexists(tree / path)] == []
    # The certificate's other name is gone, too.
    names = (tree / "etc/ssl/certs").iterdir()
    assert [path for path in names if path.is_symlink() and "snakeoil" in str(path.readlink())] == []
    noted = tree / identities.RENEWED
    assert noted.read_text("ascii").split() == sorted(MADE_AGAIN)
    assert (noted.stat().st_mode & 0o7777, noted.stat().st_uid, noted.stat().st_gid) == (0o644, 0, 0)
    settings = (tree / "etc/postfix/main.cf").read_text("utf-8")
    assert re.findall(r"(?m)^myhostname = (.*)$", settings) == ["localhost"]
    assert not (tree / "etc/hostname").exists()


@pytest.fixture
def machines(made: Made, tmp_path: Path) -> Iterator[tuple[Tree, Tree]]:
    """Two machines with the image's root file system."""
    trees = made.here.copy(tmp_path / "first"), made.elsewhere.copy(tmp_path / "second")
    yield trees
    for tree in trees:
        tree.remove()


def test_each_machine_makes_its_own_at_its_first_boot(machines: tuple[Tree, Tree]) -> None:
    found: list[dict[str, bytes]] = []
    for number, tree in enumerate(machines):
        # A host id that the administrator wrote stays.
        given = tree.path / "etc/nvme/hostid"
        if number:
            given.write_text("given\n")
        with nspawn.boot(tree.path, f"renewal-{number}", OFFLINE) as container:
            container.wait("multi-user.target", 300)
            state = container.run("systemctl", "show", "--property=Result,ActiveState", "debian-cloud-renew.service")
            assert state.stdout.split() == ["Result=success", "ActiveState=active"]
            # The daemon has its key, and other programs can read the keys and the certificate.
            assert container.run("sh", "-c", "munge --no-input | unmunge").returncode == 0
            assert container.run("ssh-keygen", "-l", "-f", "/etc/ssh/ssh_host_ed25519_key").returncode == 0
            certificate = ("/etc/ssl/certs/ssl-cert-snakeoil.pem",) * 2
            assert container.run("openssl", "verify", "-CAfile", *certificate).returncode == 0
        assert not (tree.path / identities.RENEWED).exists()
        paths = [path for paths in MADE_AGAIN.values() for path in paths]
        found.append({path: (tree.path / path).read_bytes() for path in paths})
        modes = {path: (tree.path / path).stat().st_mode & 0o777 for path in paths}
        closed = ("munge.key", "rndc.key", "_key", "snakeoil.key", "nsd_control.key", "initiatorname.iscsi")
        assert [path for path, mode in modes.items() if path.endswith(closed) and mode & 0o007] == []
        assert [path for path, content in found[-1].items() if not content] == []
    assert found[1]["etc/nvme/hostid"] == b"given\n"
    assert [path for path in found[0] if found[0][path] == found[1][path]] == []
    # A file that was removed on purpose is not made again.
    tree = machines[0]
    (tree.path / "etc/munge/munge.key").unlink()
    with nspawn.boot(tree.path, "renewal-again", OFFLINE) as container:
        container.wait("multi-user.target", 300)
    assert not (tree.path / "etc/munge/munge.key").exists()
