# SPDX-License-Identifier: GPL-3.0-or-later
"""An ordinary user builds: with subordinate ids, a home that nobody else may look into, and nothing more."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_cloud import deb822
from tests.conftest import ROOT, World, traces


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may look into, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="rootless."))
    folder.chmod(0o755)
    yield folder
    # What is left after a test that failed may belong to the user's subordinate ids: root removes that, too.
    shutil.rmtree(folder)


@pytest.fixture
def user(place: Path) -> Iterator[pwd.struct_passwd]:
    """A user for the test, with a private home and subordinate ids (subuid(5))."""
    if os.geteuid() != 0:
        pytest.skip("only root can add a user; without root, all other tests build as an ordinary user")
    name, home = f"debian-cloud-{os.getpid()}", place / "home"
    subprocess.run(
        ["useradd", "--system", "--user-group", "--add-subids-for-system", "--home-dir", home, name], check=True
    )
    found = pwd.getpwnam(name)
    home.mkdir(mode=0o700)
    os.chown(home, found.pw_uid, found.pw_gid)
    yield found
    subprocess.run(["userdel", name], check=True)


def test_an_ordinary_user_builds_an_image(world: World, place: Path, user: pwd.struct_passwd) -> None:
    # The checkout and the archive may stand where only root may look.
    for source in (ROOT / "src", world.public / "dists", world.public / "pool"):
        shutil.copytree(source, place / source.name)
    shutil.copy(world.keyring, place / "archive.gpg")
    (place / "bin").mkdir()
    command = place / "bin" / "debian-cloud"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={place}/src exec /usr/bin/python3 -m debian_cloud "$@"\n')
    command.chmod(0o755)
    output = place / "images"
    output.mkdir(mode=0o755)
    os.chown(output, user.pw_uid, user.pw_gid)
    # No sbin: an ordinary user's PATH lacks it.
    environment = {"HOME": user.pw_dir, "PATH": f"{place}/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [
            *(command, "build", "nocloud", "--format", "raw", "--output", output),
            *("--archive", f"file:{place}", "--keyring", place / "archive.gpg"),
        ],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        umask=0o077,
        cwd=user.pw_dir,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    assert {path.suffix for path in files} >= {".raw", ".buildinfo"}
    assert sorted(output.iterdir()) == sorted(files)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(user.pw_uid, user.pw_gid)}
    assert traces(output) == []
    assert traces(Path(user.pw_dir)) == []
    # The same packages as root's build.
    (own,) = (path for path in files if path.suffix == ".buildinfo")
    (roots,) = (world.folder / "images").glob("*-nocloud-*.buildinfo")
    mine, theirs = (deb822.parse(path.read_text("utf-8"))[0] for path in (own, roots))
    assert mine["Packages-Sha256"] == theirs["Packages-Sha256"]
    raw = own.with_suffix(".raw")
    subprocess.run(["e2fsck", "-fn", f"{raw}?offset={128 * 2**20}"], capture_output=True, check=True)
    # Root's files are root's, whoever built.
    stat = subprocess.run(
        ["debugfs", "-R", "stat /etc/shadow", f"{raw}?offset={128 * 2**20}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "User:     0   Group:    42" in stat.stdout
