# SPDX-License-Identifier: GPL-3.0-or-later
"""A suite added later is as `init` would have made it, complete or absent, and works with real apt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.archive.clients import machine
from tests.archive.conftest import run

if TYPE_CHECKING:
    from tests.archive.clients import Apt
    from tests.archive.conftest import Archive, Key, Maker

FILES = (
    *("conf/distributions", "conf/incoming", "conf/unofficial"),
    *("dput/debian-cloud.json", "dput/debian-cloud-sftp.json", "dput/dput.cf"),
)


def configuration(archive: Path) -> dict[str, str]:
    """What an archive's files say about its suites, with its path removed."""
    return {name: (archive / name).read_text().replace(str(archive), "") for name in FILES}


def follower(archive: Archive, suite: str, folder: Path, env: dict[str, str]) -> Apt:
    """Make a machine with the keyring package of a suite."""
    apt = machine(folder, env)
    apt.installs(archive.public / f"debian-cloud-archive-keyring_{suite}.deb")
    return apt


def updates(apt: Apt) -> None:
    done = apt.get("update")
    assert done.returncode == 0, done.stdout
    assert not re.search("^[WE]: ", done.stdout, re.MULTILINE), done.stdout


def test_a_suite_that_is_added_is_as_init_makes_it(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path, env: dict[str, str]
) -> None:
    trixie = follower(archive, "trixie", tmp_path / "trixie", env)
    updates(trixie)
    done = archive.run("add-suite", "forky", "--unofficial")
    keyring = archive.public / "debian-cloud-archive-keyring_forky.deb"
    assert done.stdout.splitlines()[1:] == ["suite:     forky", f"keyring:   {keyring}"]
    archive.run("add-suite", "trixie-proposed")
    other = archive.path.parent / "b"
    suites = ("--suite", "trixie", "--suite", "forky", "--suite", "trixie-proposed", "--unofficial", "forky")
    run(["debian-cloud-archive", "init", other, *suites], env)
    assert configuration(archive.path) == configuration(other)
    assert "\nSuites: trixie forky trixie-proposed\n" in (archive.public / "project/trace/master").read_text()
    archive.run("check")
    assert archive.run("status").stdout.count("\nsuite ") == 3

    # Machines of the first suite are not affected, a machine of the new one follows it, and uploads go there.
    updates(trixie)
    forky = follower(archive, "forky", tmp_path / "forky", env)
    updates(forky)
    archive.take(make.deb(uploader, "1.0", suite="forky"))
    archive.run("publish")
    updates(forky)
    updates(trixie)
    assert forky.candidate("debian-cloud-config-demo") == "1.0"
    assert not trixie.run("apt-cache", "policy", "debian-cloud-config-demo").stdout
    # The machine moves to the next release, whose keyring package is newer.
    assert forky.candidate("debian-cloud-archive-keyring").startswith("14+")
    archive.take(make.deb(uploader, "2.0", suite="trixie-proposed"))
    archive.run("promote", "trixie-proposed", "trixie")
    archive.run("publish")
    updates(trixie)
    assert trixie.candidate("debian-cloud-config-demo") == "2.0"


def test_what_an_operator_changed_holds_for_a_new_suite(archive: Archive) -> None:
    """The suite gets the edited Origin, which its machines' pins need; other edits stay."""
    conf = archive.path / "conf/distributions"
    text = conf.read_text().replace("Label: debian-cloud", "Label: ours").replace("ValidFor: 14d", "ValidFor: 7d")
    conf.write_text(f"# ours\n{text.rstrip()}")
    sftp = archive.path / "dput/debian-cloud-sftp.json"
    sftp.write_text(sftp.read_text().replace("HOST-OF-THE-ARCHIVE.invalid", "cloud.example.org"))
    archive.run("add-suite", "sid")
    first, second = conf.read_text().strip().split("\n\n")
    assert first == f"# ours\n{text.strip()}"
    assert ("Label: ours" in second, "ValidFor: 7d" in second) == (True, True)
    assert '"fqdn": "cloud.example.org"' in sftp.read_text()
    assert '"^(trixie|sid)$"' in sftp.read_text()


def test_what_is_wrong_changes_nothing(archive: Archive) -> None:
    before, files = archive.snapshot(), configuration(archive.path)
    for arguments, words in (
        (("trixie",), "the archive already has the suite trixie"),
        (("../x",), "is not a suite's codename"),
        (("all",), "conf/uploaders uses this word"),
        (("forky", "sid"), "takes DIR and SUITE"),
        (("forky", "--frob"), "unknown option --frob"),
        ((), "takes DIR and SUITE"),
    ):
        done = archive.run("add-suite", *arguments, check=False)
        assert done.returncode == 2
        assert words in done.stderr
        assert "\nhint: " in done.stderr
    assert (archive.snapshot(), configuration(archive.path)) == (before, files)


_MORE = (pytest.param(after, marks=pytest.mark.thorough) for after in (0.3, 0.8, 2.5, 4.0))


@pytest.mark.parametrize("after", [1.5, *_MORE])
def test_a_cut_leaves_the_archive_as_it_was_or_the_next_verb_completes_it(archive: Archive, after: float) -> None:
    before, files = archive.snapshot(), configuration(archive.path)
    archive.killed(after, "add-suite", "forky")
    cut = (archive.path / "adding").exists() or configuration(archive.path) != files
    archive.run("resign")
    assert not (archive.path / "adding").exists()
    entered = configuration(archive.path) != files
    assert entered == cut
    archive.run("check")
    if not entered:
        archive.run("publish")
        assert {*archive.snapshot()} >= {*before}
    archive.run("publish" if entered else "add-suite", *(() if entered else ("forky",)))
    assert (archive.public / "dists/forky/InRelease").is_file()
    assert (archive.public / "debian-cloud-archive-keyring_forky.deb").is_file()
    assert "forky" in (archive.path / "conf/incoming").read_text()
    archive.run("check")


def test_a_cut_while_its_files_are_put_in_place(archive: Archive, env: dict[str, str]) -> None:
    """After an interruption at any of the renames, the next verb moves the remaining files."""
    run(["cp", "-a", archive.path / "conf", archive.path / "dput", archive.path.parent], env)
    archive.run("add-suite", "forky")
    after = configuration(archive.path)
    for moved in range(len(FILES) + 1):
        for number, name in enumerate(sorted(FILES)):
            new, old = archive.path / "adding" / name, archive.path.parent / name
            new.parent.mkdir(parents=True, exist_ok=True)
            if number >= moved:
                new.write_text((archive.path / name).read_text())
                (archive.path / name).write_text(old.read_text())
        assert (configuration(archive.path) == after) == (moved == len(FILES))
        archive.run("publish", "--if-new")
        assert configuration(archive.path) == after
        assert not (archive.path / "adding").exists()
