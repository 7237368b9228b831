# SPDX-License-Identifier: GPL-3.0-or-later
"""README's ten minutes, run as they are written; only the address is another, and root's commands are noted."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.archive.clients import serving
from tests.archive.conftest import Archive, run

if TYPE_CHECKING:
    from tests.archive.clients import Apt
    from tests.archive.conftest import Maker

ROOT = Path(__file__).resolve().parents[2]
URL = "https://cloud.example.org"
# Who is asked for a passphrase here gives none.
NOBODY_ASKS = "batch\npinentry-mode loopback\npassphrase-file /dev/null\n"


def readme() -> list[str]:
    """The blocks of commands of the section."""
    section = (
        (ROOT / "README.md")
        .read_text()
        .partition("## Run your own archive in ten minutes\n")[2]
        .partition("\n## ")[0]
    )
    return re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands of a block, without remarks, each in one line."""
    lines = text.replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+", " ", line).strip() for line in lines if line.strip() and not line.startswith("#")]


def test_the_man_page_says_the_same() -> None:
    page = (ROOT / "archive/debian-cloud-archive.1").read_text()
    section = page.partition(".SS Your own archive in ten minutes\n")[2].partition("\n.SS ")[0]
    blocks = re.findall(r"^\.nf\n(.*?)^\.fi", section, re.MULTILINE | re.DOTALL)
    there = [command for block in blocks for command in commands(block.replace("\\-", "-").replace("\\e", "\\"))]
    _, *rest = readme()
    assert there == [command for block in rest for command in commands(block)]
    assert len(there) > 10


def tool(folder: Path, name: str, script: str) -> None:
    """A command of that name, a line of sh."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_ten_minutes(
    short_path: Path, env: dict[str, str], make: Maker, clients: Callable[[str], Apt], tmp_path: Path
) -> None:
    install, operator, server, machine = readme()
    # Packages are built and installed elsewhere (tests/demo).
    assert commands(install)[0] == "make packages SUITE=trixie"
    home = Path(tempfile.mkdtemp(dir=short_path))
    (home / ".gnupg").mkdir(mode=0o700)
    (home / ".gnupg/gpg.conf").write_text(NOBODY_ASKS)
    source, built = make.deb(None), tmp_path / "here/build/packages/trixie"
    built.mkdir(parents=True)
    for file in (*source.files, source.changes):
        shutil.copy(file, built)
    (built / source.changes.name).write_text(
        source.changes.read_text().replace("Maintainer: Test <test@example.org>", "Maintainer: You <you@example.org>")
    )
    asked = tmp_path / "asked"
    tool(tmp_path / "bin", "sudo", f'echo "$@" >>{asked}')
    own = {**env, "HOME": str(home), "PATH": f"{tmp_path}/bin:{env['PATH']}"}

    def runs(block: str) -> str:
        script = f"cd {tmp_path}/here\nset -eux\n{block.replace(URL, url)}"
        return run(["bash", "-c", script], own).stdout

    archive = Archive(home / "archive", own)
    with serving(archive.public, []) as url:
        told = runs(operator)
        # What the images were made of, of which there are none, needs no network.
        assert "accepted: debian-cloud_1.0_all.changes" in told
        assert "published: serial " in told
        assert f"archive    {archive.path} as {url}\n" in told
        assert "suite      trixie: 2 packages; images: none" in told
        runs(server)
        copied, *enabled = asked.read_text().splitlines()
        example, name = copied.split()[1:]
        assert (ROOT / "archive/examples" / Path(example).name).is_file()
        assert name.startswith("/etc/nginx/sites-available/")
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
        # And the time machine, as the last sentence has it.
        (last, *_) = run(["debian-cloud-archive", "snapshot", archive.path, "--list"], own).stdout.split()
        done = client.run("apt", "update", "--snapshot", last)
        assert done.returncode == 0, done.stdout
    found = json.loads(archive.run("status", "--json").stdout)
    assert found["snapshot"] == last
