# SPDX-License-Identifier: GPL-3.0-or-later
"""Verbs are killed at any moment while apt and a mirror read: no reader sees a mixed state, and nothing is lost."""

from __future__ import annotations

import collections
import os
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.archive.clients import Apt, machine, serving
from tests.archive.conftest import Archive, Key, Maker, run
from tests.mirror.tree import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("DEBIAN_CLOUD_KILLS", "0")) or (300 if os.environ.get("DEBIAN_CLOUD_ALL") else 24)
VERBS = {"accept": 5, "publish": 4, "resign": 1, "snapshot": 1, "expire": 3}
"""Verb -> how often it is killed, relative to the others."""


def serials(text: str) -> set[str]:
    """The serials in an Images file."""
    return set(re.findall("^Version: (.*)$", text, re.MULTILINE))


def packages(text: str) -> set[str]:
    """The package names in a Packages file."""
    return set(re.findall("^Package: (.*)$", text, re.MULTILINE))


def seen_by_apt(apt: Apt, public: Path) -> tuple[set[str], set[str]]:
    """Packages and serials after an update without a complaint, whose files are there."""
    done = apt.get("update")
    assert done.returncode == 0, done.stdout
    assert not re.search("^[WE]:", done.stdout, re.MULTILINE), done.stdout
    lists = apt.root / "var/lib/apt/lists"
    names, versions = (
        "".join(path.read_text() for path in lists.glob(f"*_{kind}")) for kind in ("Packages", "Images")
    )
    for path in re.findall("^(?:Filename|Buildinfo): (.*)$", names + versions, re.MULTILINE):
        assert (public / path).is_file(), path
    return packages(names), serials(versions)


def test_no_kill_shows_a_mixture_or_loses_an_upload(
    archive: Archive, make: Maker, uploader: Key, env: dict[str, str], tmp_path: Path
) -> None:
    chance = random.Random(1)
    over = threading.Event()
    counts: collections.Counter[str] = collections.Counter()
    (archive.path / "conf/expire").write_text("snapshots 3\n")
    apt = machine(tmp_path / "machine", env)
    apt.installs(archive.public / "debian-cloud-archive-keyring_trixie.deb")
    keyring = apt.root / "usr/share/keyrings/debian-cloud-archive-keyring.gpg"
    sources = apt.root / "etc/apt/sources.list.d/debian-cloud.sources"

    def updates() -> None:
        known: tuple[set[str], set[str]] = set(), set()
        while not over.is_set():
            now = seen_by_apt(apt, archive.public)
            assert known[0] <= now[0], "a package is gone that was there"
            assert known[1] <= now[1], "an image is gone that was there"
            known = now
            counts["apt"] += 1

    def mirrors(url: str) -> None:
        command: list[str | Path] = [
            *COMMAND,
            "--quiet",
            "--keyring",
            keyring,
            "--suite",
            "trixie",
        ]
        target = tmp_path / "mirror"
        while not over.is_set():
            done = run([*command, url, target], env, check=False)
            # Between two renames Release does not match InRelease: the mirror asks to run it again, and changes
            # nothing.
            again = "contradicted its own signed index" in done.stderr
            assert done.returncode == 0 or again, done.stderr
            counts["mirror, told to come again" if again else "mirror"] += 1
            if not (target / "dists/trixie/InRelease").exists():
                continue
            for index in "main/images/Images", "main/binary-amd64/Packages":
                text = (target / "dists/trixie" / index).read_text()
                for path in re.findall("^(?:Filename|Buildinfo): (.*)$", text, re.MULTILINE):
                    assert (target / path).is_file(), path

    lasting = dict.fromkeys(VERBS, 2.0)
    uploads = 0
    with serving(archive.public, []) as url, ThreadPoolExecutor() as readers:
        sources.write_text(re.sub("^URIs: .*$", f"URIs: {url}", sources.read_text(), flags=re.MULTILINE))
        reading = [readers.submit(updates), readers.submit(mirrors, url)]
        try:
            while sum(counts[f"killed {verb}"] for verb in VERBS) < KILLS:
                (verb,) = chance.choices([*VERBS], [*VERBS.values()])
                # Killed runs accept little, so the queue must not grow without limit.
                if verb == "accept" and len(archive.queue()) < 20:
                    upload = (
                        make.deb(uploader, package=f"debian-cloud-config-demo{uploads}", version=f"1.{uploads}")
                        if uploads % 2
                        else make.image(uploader, f"20261120.{uploads}")
                    )
                    archive.put(upload)
                    uploads += 1
                began = time.monotonic()
                if archive.killed(chance.uniform(0, lasting[verb]), verb):
                    counts[f"killed {verb}"] += 1
                else:
                    # If it ended before that, the next one is killed within the time that this one took.
                    lasting[verb] = (lasting[verb] + time.monotonic() - began) / 2
                    counts[f"ended {verb}"] += 1
                for reader in reading:
                    if reader.done():
                        reader.result()
            archive.run("accept")
            archive.run("publish")
            final = seen_by_apt(machine_like(apt, tmp_path / "fresh"), archive.public)
        finally:
            over.set()
        for reader in reading:
            reader.result()
    done = archive.run("check", check=False)
    print(f"\n{dict(sorted(counts.items()))}, {uploads} uploads\n{done.stdout}")
    assert done.returncode == 0, done.stdout
    assert not archive.queue()
    assert not [*(archive.path / "rejected").iterdir()]
    assert final[1] == {f"20261120.{number}" for number in range(0, uploads, 2)}
    assert final[0] >= {f"debian-cloud-config-demo{number}" for number in range(1, uploads, 2)}
    assert counts["apt"] > 0
    assert counts["mirror"] > 0


def machine_like(apt: Apt, root: Path) -> Apt:
    """Make a machine with the same source that has never updated."""
    other = machine(root, apt.env)
    for name in "etc/apt/sources.list.d", "etc/apt/apt.conf.d":
        (root / name).mkdir(parents=True, exist_ok=True)
        for path in (apt.root / name).iterdir():
            (root / name / path.name).write_text(path.read_text())
    return other
