# SPDX-License-Identifier: GPL-3.0-or-later
"""README's commands run as they are written; only addresses are replaced, and root's commands are recorded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests import throwaway
from tests.archive.clients import serving
from tests.archive.conftest import Archive, run
from tests.throwaway import FINE, configuration
from tools import archive_manual

if TYPE_CHECKING:
    from tests.archive.clients import Apt
    from tests.archive.conftest import Maker

ROOT = Path(__file__).resolve().parents[2]
URL = "http://cloud.example.org"
PLACE = "/srv/debian-cloud"
TEN_MINUTES = "Run your own archive in ten minutes"
NOBODY = 65534
# A gpg that needs a passphrase gets none.
NOBODY_ASKS = "batch\npinentry-mode loopback\npassphrase-file /dev/null\n"


def readme(title: str) -> list[str]:
    """The blocks of commands of a section."""
    section = (ROOT / "README.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands of a block, each on one line, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+", " ", line).strip() for line in lines if line.strip() and not line.startswith("#")]


def test_the_man_page_says_the_same() -> None:
    section = archive_manual.page().partition(".SS Your own archive in ten minutes\n")[2].partition("\n.SS ")[0]
    blocks = re.findall(r"^\.nf\n(.*?)^\.fi", section, re.MULTILINE | re.DOTALL)
    there = [command for block in blocks for command in commands(block.replace("\\-", "-").replace("\\e", "\\"))]
    assert there == [command for block in readme(TEN_MINUTES) for command in commands(block)]
    assert len(there) > 10


def test_each_archive_lies_where_it_was_made() -> None:
    """Examples for a user's own archive are in the home directory, those for a served archive below PLACE."""
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", (ROOT / "README.md").read_text(), re.M | re.S))
    of_one_s_own = {title for title, text in sections.items() if "~/archive" in text}
    assert of_one_s_own == {"A first image in three commands", "An image of one's own"}
    served = {title for title, text in sections.items() if f"{PLACE}/archive" in text}
    assert {TEN_MINUTES, "Keep it", "A worked example"} <= served
    assert not served & of_one_s_own
    assert "~/archive" not in archive_manual.page()


def tool(folder: Path, name: str, script: str) -> None:
    """Make a command of that name from an sh script."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_three_commands() -> None:
    """The three commands work for an ordinary user with a private home; a small image is planned instead of built."""
    install, three = readme("A first image in three commands")
    # tests/demo builds and installs packages.
    assert commands(install)[0] == "make packages SUITE=trixie"
    assert [command.split()[0] for command in commands(three)] == ["debian-cloud-archive"] * 2 + ["debian-cloud"]
    with throwaway.folder() as top:
        home, packages = top / "home", top / "here/build/packages/trixie"
        packages.mkdir(parents=True)
        home.mkdir(mode=0o700)
        configuration(top / "debs", "mine", FINE).rename(packages / "debian-cloud-config-mine_1.0_amd64.deb")
        tool(top / "bin", "debian-cloud", f'PYTHONPATH={ROOT}/src exec /usr/bin/python3 -B -m debian_cloud "$@"')
        (top / "bin/debian-cloud-archive").symlink_to(ROOT / "archive/debian-cloud-archive")
        command = ["bash", "-c", "set -eux\n" + three.replace("build ec2 --output images", "plan mine >plan")]
        if os.geteuid() == 0:
            for path in (home, top / "here"):
                os.chown(path, NOBODY, NOBODY)
            who = str(NOBODY)
            command = ["setpriv", "--reuid", who, "--regid", who, "--clear-groups", *command]
        env = {"PATH": f"{top}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, cwd=top / "here", env=env, text=True, capture_output=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
        assert f"known by:  {home}/.config/debian-cloud/archive.sources\n" in done.stdout
        assert "accepted: debian-cloud-config-mine_1.0_added-" in done.stdout
        assert f"copy:{home}/archive/public" in (top / "here/plan").read_text()


def test_ten_minutes(
    short_path: Path, env: dict[str, str], make: Maker, clients: Callable[[str], Apt], tmp_path: Path
) -> None:
    operator, server, machine, others = readme(TEN_MINUTES)
    home = Path(tempfile.mkdtemp(dir=short_path))
    (home / ".gnupg").mkdir(mode=0o700)
    (home / ".gnupg/gpg.conf").write_text(NOBODY_ASKS)
    source, built = make.deb(None), tmp_path / "here/build/packages/trixie"
    built.mkdir(parents=True)
    for file in (*source.files, source.changes):
        shutil.copy(file, built)
    asked = tmp_path / "asked"
    tool(tmp_path / "bin", "sudo", f'echo "$@" >>{asked}')
    # The directory that root makes there.
    (place := home / "srv").mkdir()
    own = {**env, "HOME": str(home), "USER": "somebody", "PATH": f"{tmp_path}/bin:{env['PATH']}"}

    def runs(block: str) -> str:
        script = f"cd {tmp_path}/here\nset -eux\n{block.replace(URL, url).replace(PLACE, str(place))}"
        return run(["bash", "-c", script], own).stdout

    archive = Archive(place / "archive", own)
    with serving(archive.public, []) as url:
        told = runs(operator)
        # There are no images, so keeping closures needs no network.
        assert "accepted: debian-cloud_1.0_all.changes" in told
        assert "published: serial " in told
        assert f"archive    {archive.path} as {url}\n" in told
        assert "suite      trixie: 2 packages; images: none" in told
        assert asked.read_text() == f"install -d -o somebody {place}\n"
        asked.unlink()
        runs(server)
        installed, copied, linked, reloaded, *enabled = asked.read_text().splitlines()
        assert (installed, reloaded) == ("apt install nginx", "systemctl reload nginx")
        example, name = copied.split()[1:]
        text = (ROOT / "archive/examples" / Path(example).name).read_text()
        # The example needs no certificate as it is copied, and serves the archive that was made.
        assert re.findall(r"^ *listen .*443|^ *ssl_", text, re.MULTILINE) == []
        assert f"    root {PLACE}/archive/public;\n" in text
        assert name.startswith("/etc/nginx/sites-available/")
        assert linked.split()[:2] == ["ln", "-sf"]
        target, folder = linked.split()[2:]
        assert os.path.normpath(f"{folder}{target}") == name
        units = [
            re.fullmatch(r"systemctl enable --now (debian-cloud-archive-[a-z]+@)(.*)(\..*)", line) for line in enabled
        ]
        assert len(units) == 2
        for unit in units:
            assert unit
            assert (ROOT / f"archive/systemd/{unit[1]}{unit[3]}").is_file()
            unescaped = run(["systemd-escape", "--path", "--unescape", unit[2]], own).stdout
            assert unescaped == f"{archive.path}\n"

        client = clients("apt-3")
        tool(client.root / "usr/local/bin", "sudo", 'exec "$@"')
        tool(client.root / "usr/local/bin", "wget", '/usr/lib/apt/apt-helper download-file "$1" "${1##*/}"')
        script = f"cd /root 2>/dev/null || cd /\nPATH=/usr/local/bin:$PATH\nset -eux\n{machine.replace(URL, url)}"
        done = client.run("sh", "-c", script)
        assert done.returncode == 0, done.stdout
        assert client.candidate("debian-cloud-config-demo") == "1.0"
        # The last sentence of the section: apt updates from a snapshot.
        (last, *_) = run(["debian-cloud-archive", "snapshot", archive.path, "--list"], own).stdout.split()
        done = client.run("apt", "update", "--snapshot", last)
        assert done.returncode == 0, done.stdout
    found = json.loads(archive.run("status", "--json").stdout)
    assert found["snapshot"] == last

    # The upload of another user.
    theirs = make.deb(None, "2.0")
    theirs.changes.write_text(theirs.changes.read_text().replace("Test <test@example.org>", "You <you@example.org>"))
    asked.unlink()
    runs(others.replace("FILE.changes", str(theirs.changes)))
    assert asked.read_text() == "apt install devscripts dput-ng\n"
    assert f"accepted: {theirs.changes.name}: into the pool" in archive.run("accept").stdout
