# SPDX-License-Identifier: GPL-3.0-or-later
"""An image built twice is the same file, whatever differs between the two machines.

The world's images are made of layers that they share; those that are compared with them are made from nothing.
"""

from __future__ import annotations

import io
import lzma
import os
import platform
import pwd
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from debian_cloud.disk.opened import DiskImage, opened
from debian_cloud.host import tools
from debian_cloud.image.entries import FILE
from debian_cloud.names import RELEASES
from tests import one_line
from tests.build.compared import compared, debian
from tests.conftest import ALL, DISKS, ROOT, SUITE, World, traces

if TYPE_CHECKING:
    from debian_cloud.image.entries import Entry

IMAGES = {
    "ec2": (SUITE, "ec2"),
    **({**DISKS, **{config: (SUITE, config) for config in ("container", "gce", "openstack")}} if ALL else {}),
}
"""Name of a test -> suite and configuration."""
OWN = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
OTHER = "bookworm" if OWN == "trixie" else "trixie"
"""A release other than this machine's, with other versions of every tool."""

NEEDS = {*tools.PACKAGES.values()} - {"debian-cloud"} | {"debian-archive-keyring", "python3-apt", "python3-debian"}
"""Packages that a machine needs to build."""

# Settings that differ from this machine's, and that a build's tools would obey.
ENVIRONMENT: Final = {
    "LANG": "de_DE.UTF-8",
    "LC_ALL": "tr_TR.UTF-8",
    "TZ": "Pacific/Kiritimati",
    "XZ_DEFAULTS": "-9",
    "TAR_OPTIONS": "--mtime=@0 --sort=none",
    "ZSTD_CLEVEL": "1",
    "MTOOLSRC": "/nowhere",
    "POSIXLY_CORRECT": "1",
    "SOURCE_DATE_EPOCH": "0",
}

# PLACE has the same name inside. TREE is the root of a namespace, because a chroot cannot start a user namespace.
_ON_ANOTHER_MACHINE: Final = """
tree=$1 place=$2
shift 2
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
for file in resolv.conf hosts; do cp -L "/etc/$file" "$tree/etc/"; done
mkdir -p "$tree$place" "$tree/old"
mount --rbind "$place" "$tree$place"
cd "$tree"
pivot_root . old
cd /
umount -l /old
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Host:
    """How to start a build there: a prefix of its command, and its environment; `uid` owns the built files."""

    name: str
    prefix: tuple[str | Path, ...]
    environment: dict[str, str] = field(default_factory=dict)
    uid: int = 0
    umask: int = 0o077


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that all users may read, on a file system that lists names in another order."""
    if os.geteuid() != 0:
        pytest.skip("only root can build both as root and as another; without root, all tests build as the same user")
    folder = Path(tempfile.mkdtemp(prefix="identity."))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


@pytest.fixture
def another_user(place: Path) -> Iterator[Host]:
    """An ordinary user of this machine: a private home, subordinate ids (subuid(5)), one processor, no sbin."""
    name, home = f"debian-cloud-{os.getpid()}", place / "home"
    subprocess.run(
        ["useradd", "--system", "--user-group", "--add-subids-for-system", "--home-dir", home, name], check=True
    )
    user = pwd.getpwnam(name)
    for folder in (home, place / "tmp"):
        folder.mkdir(mode=0o700)
        os.chown(folder, user.pw_uid, user.pw_gid)
    as_user = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    yield Host(
        "an ordinary user",
        # The machine has another name, too.
        (
            *("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh", *as_user),
            *("taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))),
        ),
        {
            **ENVIRONMENT,
            "HOME": str(home),
            "USER": name,
            "TMPDIR": str(place / "tmp"),
            "PATH": f"/bin:/usr/bin:{place}/bin",
        },
        user.pw_uid,
    )
    subprocess.run(["userdel", name], check=True)


@pytest.fixture(scope="session")
def another_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root file system of a machine of another release, with only the packages that a build needs."""
    folder = tmp_path_factory.mktemp("another")
    (folder / "sources.list").write_text(one_line.as_lines(debian(OTHER)))
    bootstrap = ("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--quiet")
    options = (f"--include={','.join(sorted(NEEDS))}", '--aptopt=APT::Sandbox::User "root"')
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    subprocess.run([*namespaces, *bootstrap, *options, OTHER, folder / "tree", folder / "sources.list"], check=True)
    yield folder / "tree"
    shutil.rmtree(folder)


@pytest.fixture
def another_release(another_tree: Path, place: Path) -> Host:
    """A machine of another Debian release, on which root builds."""
    (place / "tmp").mkdir(mode=0o700)
    namespaces = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
    return Host(
        f"root of {OTHER}",
        (*namespaces, "sh", "-euc", _ON_ANOTHER_MACHINE, "sh", another_tree, place),
        {
            **ENVIRONMENT,
            "LC_ALL": "fr_FR.UTF-8",
            "TZ": "America/St_Johns",
            "HOME": "/root",
            "TMPDIR": str(place / "tmp"),
            "PATH": f"{place}/bin:/bin:/sbin:/usr/bin:/usr/sbin",
        },
        umask=0o027,
    )


def built(world: World, name: str, host: Host, place: Path) -> dict[str, Path]:
    """Build an image in `place` from the world's packages; return extension -> file."""
    suite, config = IMAGES[name]
    # The checkout and the archive may be readable only for root.
    for source in (ROOT / "src", world.public / "dists", world.public / "pool"):
        shutil.copytree(source, place / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(world.keyring, place / "archive.gpg")
    (buildinfo,) = (world.folder / "images").glob(f"debian-{RELEASES[suite]}-{config}-amd64-*.buildinfo")
    shutil.copy(buildinfo, place / "lock")
    (place / "bin").mkdir()
    command = place / "bin" / "debian-cloud"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={place}/src exec /usr/bin/python3 -B -m debian_cloud "$@"\n')
    command.chmod(0o755)
    output = place / "images"
    output.mkdir(mode=0o755)
    os.chown(output, host.uid, -1)
    known = (world.folder / "images").glob(f"{buildinfo.stem}.*")
    formats = {"raw", "qcow2", "tar.xz"} & {path.name.removeprefix(f"{buildinfo.stem}.") for path in known}
    release, *security = debian(suite)
    done = subprocess.run(
        [
            *(*host.prefix, command, "build", config, "--lock", place / "lock", "--output", output),
            *("--suite", suite, "--format", ",".join(sorted(formats)), "--allow-expired"),
            *("--archive", f"file:{place}", "--keyring", place / "archive.gpg"),
            *("--mirror", release.uri, *(word for one in security for word in ("--security-mirror", one.uri))),
        ],
        umask=host.umask,
        cwd="/",
        env=host.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    files = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(output.iterdir()) == sorted(files)
    assert {path.stat().st_uid for path in files} == {host.uid}
    # Ignore the file system that the fixture mounted, which may be seen from another test's root.
    assert [line for line in traces(place) if f"{place} " not in line] == []
    return {path.name.removeprefix(f"{buildinfo.stem}."): path for path in files}


def same(world: World, files: dict[str, Path], host: Host) -> None:
    """Assert that every file of the image equals the world's; else fail with diffoscope's report."""
    disks = {extension: path for extension, path in files.items() if extension in ("raw", "qcow2", "tar.xz")}
    assert disks
    # Compare the disk before the files made from it.
    for extension, second in sorted(disks.items(), reverse=True):
        first = world.folder / "images" / second.name
        # cmp(1) is faster than hashing the zeros of a whole disk.
        if subprocess.run(["cmp", "--silent", first, second], check=False).returncode:
            pytest.fail(f"{extension} of {host.name} is another:\n{account(first, second)}", pytrace=False)


def account(first: Path, second: Path) -> str:
    """The difference of two images: diffoscope's report, and the first bytes."""
    with tempfile.TemporaryDirectory() as name:
        # diffoscope reads a tar, but prints a disk as a dump.
        told = compared(first, second) if first.suffix == ".xz" else of_disks(first, second, Path(name))
    script = 'cmp -l "$1" "$2" 2>&1 | head -n 20'
    offsets = subprocess.run(["sh", "-c", script, "sh", first, second], capture_output=True, text=True, check=True)
    return f"{told}\nfirst bytes (offset, octal, octal):\n{offsets.stdout}"


def of_disks(first: Path, second: Path, folder: Path) -> str:
    """The difference of two disks' contents."""
    own, other = content(first), content(second)
    lay_out(first, folder / "first", own, other)
    lay_out(second, folder / "second", other, own)
    return compared(folder / "first", folder / "second")


def content(image: Path) -> dict[str, Entry]:
    """Every path of an image, those of the EFI system partition below `esp`."""
    with opened(image) as read:
        found = {f"root/{entry.path}": entry for entry in read.entries()}
        if isinstance(read, DiskImage) and read.esp:
            found |= {f"esp/{entry.path}": entry for entry in read.esp.entries()}
    return found


def line(entry: Entry) -> str:
    """One line with all properties of a path, except those that all paths share."""
    shown = [f"{entry.kind} {entry.mode:04o} {entry.uid}:{entry.gid} {entry.mtime} inode={entry.inode}"]
    shown += [f"{name}={value}" for name in ("size", "sha256", "target", "xattrs") if (value := getattr(entry, name))]
    return " ".join((*shown, *([str(entry.device)] if any(entry.device) else [])))


def lay_out(image: Path, folder: Path, own: dict[str, Entry], other: dict[str, Entry]) -> None:
    """Write the input for diffoscope: the list of all paths, the boot areas, and each file that differs."""
    folder.mkdir()
    lines = (f"{path} {line(own[path])}\n" for path in sorted(own))
    (folder / "list").write_text("".join(lines), "ascii", "backslashreplace")
    with opened(image) as read:
        if isinstance(read, DiskImage):
            (folder / "boot-sector").write_bytes(read.boot_code)
            (folder / "grub-core").write_bytes(read.bios or b"")
            (folder / "partitions").write_text("\n".join(map(str, read.partitions)))
        for path, entry in own.items():
            if entry.kind == FILE and (path not in other or other[path].sha256 != entry.sha256):
                where, _, inside = path.partition("/")
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                source = read.esp if where == "esp" and isinstance(read, DiskImage) else read
                assert source is not None
                (folder / path).write_bytes(source.content(inside))


@pytest.mark.thorough
@pytest.mark.parametrize("name", IMAGES)
def test_another_user_builds_the_same_image(world: World, name: str, place: Path, another_user: Host) -> None:
    """Without root, and in another language, place, file system, time zone, umask and environment, and later."""
    files = built(world, name, another_user, place)
    same(world, files, another_user)


@pytest.mark.thorough
@pytest.mark.parametrize("name", IMAGES)
def test_another_release_builds_the_same_image(world: World, name: str, place: Path, another_release: Host) -> None:
    """mmdebstrap, apt, dpkg, Python and every other tool of the machine have other versions."""
    files = built(world, name, another_release, place)
    same(world, files, another_release)


def test_a_difference_is_told_by_diffoscope(tmp_path: Path) -> None:
    for name, text, mode in (("first", b"one\n", 0o644), ("second", b"other\n", 0o600)):
        with lzma.open(tmp_path / f"{name}.tar.xz", "wb") as out, tarfile.open(fileobj=out, mode="w") as tar:
            for path, data in (("etc/same", b"same\n"), ("etc/motd", text)):
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(data), mode
                tar.addfile(member, io.BytesIO(data))
    told = account(tmp_path / "first.tar.xz", tmp_path / "second.tar.xz")
    assert "etc/motd" in told
    assert "-one" in told
    assert "+other" in told
    assert "+-rw-------" in told
    assert "── etc/same" not in told
    assert len(told) < 30000
