# SPDX-License-Identifier: GPL-3.0-or-later
"""Running machines install a new version of a configuration by themselves, and apply it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from debian_cloud.build import scripts
from debian_cloud.names import RELEASES
from tests import gnupg
from tests.built import nspawn
from tests.built.conftest import Root, unpacked
from tests.built.dpkg import Dpkg
from tests.built.tree import Tree
from tests.conftest import SUITE, World
from tests.packaging import build
from tools import render

SSHD: Final = "etc/ssh/sshd_config.d/60-debian-cloud.conf"
GRUB: Final = "etc/default/grub.d/60_debian-cloud-config.cfg"
OLD_WORD: Final = "nvme_core.io_timeout=4294967295"
NEW_WORD: Final = "nvme_core.io_timeout=4294967294"
NEXT: Final = "9.0"
VERSION: Final = f"{NEXT}~deb{RELEASES[SUITE]}u1"

# apt and dpkg use one processor.


@dataclass(frozen=True, slots=True)
class Archive:
    """A copy of the world's archive with the next version of the configurations."""

    folder: Path
    url: str
    """The machines' address of it: an address of 127.0.0.1, which their own network namespace has, too."""

    @property
    def public(self) -> Path:
        return self.folder / "public"

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def link(source: str, to: str) -> None:
    """Hard-link a published file, which never changes, or copy it if it is on another disk."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)


@pytest.fixture(scope="module")
def next_version(world: World, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Version 2, with two changed drop-ins: built, signed, uploaded, accepted and published like version 1."""
    tmp = tmp_path_factory.mktemp("next")
    archive = tmp / "archive"
    sockets = shutil.ignore_patterns("S.*", "public")
    shutil.copytree(world.archive, archive, symlinks=True, ignore=sockets)
    shutil.copytree(world.public, archive / "public", symlinks=True, copy_function=link)
    dput = archive / "dput/dput.cf"
    dput.write_text(dput.read_text("utf-8").replace(str(world.archive), str(archive)), "utf-8")

    tree = build.copy(build.ROOT, tmp)
    changelog = tree / "debian/changelog"
    changelog.write_text(re.sub(r"\([^)]*\)", f"({NEXT})", changelog.read_text("utf-8"), count=1), "utf-8")
    change(tree / "configs/cloud/files" / SSHD, "ClientAliveInterval 120", "ClientAliveInterval 121")
    change(tree / "configs/ec2/files" / GRUB, OLD_WORD, NEW_WORD)
    render.adopt(tree, SUITE)
    (changes,) = build.build(tree).glob("debian-cloud_*.changes")
    with gnupg.temporary_home() as place:
        # A copy of the maintainer's home: other tests sign with that, and its agent is theirs.
        shutil.copytree(world.folder / "maintainer", place, ignore=sockets, dirs_exist_ok=True)
        home = {"GNUPGHOME": str(place)}
        (key,) = re.findall(
            r"^fpr:+([0-9A-F]+):", run("gpg", "--list-secret-keys", "--with-colons", **home), re.MULTILINE
        )
        run("debsign", f"-k{key}", changes, **home)
        run("dput", "-c", dput, "debian-cloud", changes, **home)
    run("debian-cloud-archive", "accept", archive)
    run("debian-cloud-archive", "publish", archive)
    run("dpkg-deb", "--extract", archive / "public" / f"debian-cloud-archive-keyring_{SUITE}.deb", tmp / "keyring")
    sources = (tmp / "keyring/etc/apt/sources.list.d/debian-cloud.sources").read_text("utf-8")
    (url,) = re.findall(r"^URIs: (http://127\.0\.0\.1:\d+)$", sources, re.MULTILINE)
    return Archive(archive, url)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def machine(world: World, tmp_path: Path) -> Iterator[Root]:
    """The root file system of an EC2 machine, from the image of version 1.

    The tests cannot reach Debian's mirror, so only the configuration is new.
    """
    with unpacked(world, "ec2", tmp_path) as root:
        yield root


@pytest.mark.thorough
@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-nspawn needs root")
def test_a_machine_takes_the_next_version_by_itself(machine: Root, next_version: Archive) -> None:
    tree = machine.tree
    name = "debian-cloud-config-ec2"
    before = Dpkg(tree.path).installed[name]
    assert before != VERSION
    # Its only network is its own loopback, and it must not wait for another.
    offline = "systemd.mask=systemd-networkd-wait-online.service"
    with nspawn.boot(tree.path, "ec2-upgrade", offline) as container:
        container.wait("multi-user.target", 240)
        late = container.run("systemctl", "show", "--property=JobRunningTimeoutUSec", "--value", "dev-ttyAMA0.device")
        assert late.stdout == "10min\n"
        assert container.run("systemctl", "is-enabled", "apt-daily-upgrade.timer").stdout == "enabled\n"
        assert container.run("systemctl", "is-active", "apt-daily-upgrade.timer").stdout == "active\n"
        server = container.run("systemctl", "show", "--property=MainPID", "--value", "ssh.service").stdout
        assert int(server) > 1
        assert "\nclientaliveinterval 120\n" in container.run("sshd", "-T").stdout

        serve = (
            "/usr/bin/python3",
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            "--directory",
            str(next_version.public),
        )
        with subprocess.Popen(
            ["nsenter", "--net", "--target", str(container.first()), *serve, next_version.port],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as web:
            try:
                reached = ("curl", "--silent", "--fail", "--retry", "20", "--retry-connrefused", "--retry-delay", "1")
                done = container.run(*reached, "--output", "/dev/null", f"{next_version.url}/dists/")
                assert done.returncode == 0, done.stderr
                # The services that the two timers start at a time of their own. At the first boot, they may run
                # already.
                for service in ("apt-daily.service", "apt-daily-upgrade.service"):
                    done = container.run("systemctl", "start", service, seconds=600)
                    assert done.returncode == 0, done.stderr + container.run("journalctl", "--unit", service).stdout
            finally:
                web.kill()
        log = tree.text("var/log/unattended-upgrades/unattended-upgrades.log")
        assert {Dpkg(tree.path).installed[each] for each in configurations(tree.path)} == {VERSION}, log
        assert "ClientAliveInterval 121" in tree.text(SSHD)
        assert "\nclientaliveinterval 121\n" in container.run("sshd", "-T").stdout
        assert container.run("systemctl", "is-active", "ssh.service").stdout == "active\n"
        assert container.run("systemctl", "show", "--property=MainPID", "--value", "ssh.service").stdout != server
        assert not list((tree.path / "etc").rglob("*.dpkg-*"))


def configurations(tree: Path) -> list[str]:
    names = [name for name in Dpkg(tree).installed if re.fullmatch("debian-cloud-config-.*", name)]
    assert len(names) == 4, names
    return names


# For programs, the machine's disk is that of the image; grub-mkconfig(8) looks for udev's link to it.
_DISK: Final = """
mkdir -p /run/dev/disk/by-partuuid
for device in null zero full random urandom; do
    : >"/run/dev/$device"
    mount --bind "/dev/$device" "/run/dev/$device"
done
: >"/run/dev/disk/by-partuuid/$1"
mount --rbind /run/dev /dev
printf 'root_partuuid=%s\\nroot_uuid=%s\\n' "$1" "$2" >/run/grub-probe.identities
mount --bind /mnt/disk/grub-probe /usr/sbin/grub-probe
# This process id name space would be a container to it, and a machine is none.
mount --bind /usr/bin/false /usr/bin/systemd-detect-virt
"""
_UPGRADE: Final = """
rm /run/systemd/resolve/stub-resolv.conf
python3 -m http.server --bind 127.0.0.1 --directory /mnt/public "$3" >/dev/null 2>&1 &
curl --silent --fail --retry 20 --retry-connrefused --retry-delay 1 --output /dev/null "http://127.0.0.1:$3/dists/"
apt-get update
unattended-upgrade --verbose
"""


@pytest.mark.thorough
def test_a_changed_command_line_is_in_the_boot_loaders_menu(
    machine: Root, next_version: Archive, tmp_path: Path
) -> None:
    """In a chroot, because a container has no boot loader, and so gets no menu."""
    disk = tmp_path / "disk"
    disk.mkdir()
    probe = disk / "grub-probe"
    probe.write_text(scripts.text("grub-probe"), "utf-8")
    probe.chmod(0o755)
    before = machine.tree.text("boot/grub/grub.cfg")
    assert OLD_WORD in before
    (partuuid,) = re.findall(r"^PARTUUID=(\S+) / ", machine.tree.text("etc/fstab"), re.MULTILINE)
    (uuid,) = set(re.findall(r"--fs-uuid --set=root (\S+)$", before, re.MULTILINE))
    tree = Tree(machine.tree.path, (next_version.public, disk))
    command = ("sh", "-euc", _DISK + _UPGRADE, "sh", partuuid, uuid, next_version.port)
    said = tree.run(*command, alone=True).stdout
    assert {Dpkg(tree.path).installed[each] for each in configurations(tree.path)} == {VERSION}, said
    changed = zip(before.splitlines(), tree.text("boot/grub/grub.cfg").splitlines(), strict=True)
    assert {(old.replace(OLD_WORD, NEW_WORD), new) for old, new in changed if old != new} == {
        (line.replace(OLD_WORD, NEW_WORD),) * 2 for line in before.splitlines() if OLD_WORD in line
    }
