# SPDX-License-Identifier: GPL-3.0-or-later
"""A verb returns when the gpg-agent that it has started has ended, however late that is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.archive.conftest import Archive, run

if TYPE_CHECKING:
    from tests.archive.conftest import Maker

LATE = "( sleep 1; exec {gpgconf} {arguments} ) >/dev/null 2>&1 &"
NEVER = ":"


def slowed(folder: Path, env: dict[str, str], body: str) -> dict[str, str]:
    """An environment in which `gpgconf --kill` does this instead, and returns at once."""
    folder.mkdir()
    gpgconf = shutil.which("gpgconf", path=env["PATH"])
    body = body.format(gpgconf=gpgconf, arguments='"$@"')
    (folder / "gpgconf").write_text(f'#!/bin/sh\ncase $* in\n*--kill*) {body} ;;\n*) exec {gpgconf} "$@" ;;\nesac\n')
    (folder / "gpgconf").chmod(0o755)
    return {**env, "PATH": f"{folder}:{env['PATH']}"}


def agents(below: Path) -> list[str]:
    """The command lines of agents whose home is below a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0].endswith("gpg-agent") and any(word.startswith(f"{below}/") for word in words):
            found.append(" ".join(words))
    return found


def sockets(below: Path) -> list[str]:
    return [str(path) for path in below.rglob("S.*") if path.is_socket()]


def test_an_agent_that_ends_late_is_waited_for(archive: Archive, env: dict[str, str], tmp_path: Path) -> None:
    slow = Archive(archive.path, slowed(tmp_path / "bin", env, LATE))
    slow.run("resign")
    assert (agents(archive.path), sockets(archive.path / "gnupg")) == ([], [])


def test_the_maintainer_key_gets_its_place_without_its_agent(
    archive: Archive, make: Maker, env: dict[str, str], tmp_path: Path
) -> None:
    slow = Archive(archive.path, slowed(tmp_path / "bin", env, LATE))
    done = slow.run("add", make.deb(None).changes)
    assert (agents(archive.path), sockets(archive.path / "maintainer")) == ([], [])
    assert (archive.path / "maintainer").is_dir(), done.stdout


def test_init_shows_an_archive_without_its_agent(env: dict[str, str], short_path: Path, tmp_path: Path) -> None:
    place = short_path / "late" / "a"
    place.parent.mkdir()
    run(["debian-cloud-archive", "init", place], slowed(tmp_path / "bin", env, LATE))
    assert (agents(place.parent), sockets(place)) == ([], [])


@pytest.mark.thorough
def test_an_agent_that_does_not_end_is_killed(archive: Archive, env: dict[str, str], tmp_path: Path) -> None:
    slow = Archive(archive.path, slowed(tmp_path / "bin", env, NEVER))
    slow.run("resign")
    assert agents(archive.path) == []
