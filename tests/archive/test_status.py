# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of an archive, reported for people and for scripts."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import clock
from tests.archive.conftest import run

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker

DAY = 86400


def status(archive: Archive) -> Any:
    return json.loads(archive.run("status", "--json").stdout)


def test_status_tells_what_is_published_and_what_waits(new_archive: Archive, make: Maker, uploader: Key) -> None:
    archive = new_archive
    new = status(archive)
    now = time.time()
    assert new["archive"] == str(archive.path)
    assert new["url"] == f"file://{archive.public}"
    assert new["serial"] == time.strftime("%Y%m%d01", time.gmtime())
    assert new["snapshot"] == archive.run("snapshot").stdout.strip()
    (suite,) = new["suites"]
    assert suite["suite"] == "trixie"
    assert now - 60 < suite["date"] <= now
    assert suite["valid_until"] - suite["date"] == 14 * DAY
    # The one package is the keyring package.
    assert (suite["packages"], suite["images"]) == (1, {})
    nothing: dict[str, list[str]] = {"packages": [], "images": [], "held": [], "closures": []}
    assert suite["waiting"] == nothing
    (key,) = new["keys"]
    listed = archive.key.gpg("--with-colons", "--list-keys")
    assert f"fpr:::::::::{key['fingerprint']}:" in listed
    assert key["owner"].startswith("Debian Cloud Archive <")
    assert (key["state"], key["until"]) == ("active", None)

    archive.take(make.deb(uploader, "1.5"))
    archive.take(make.image(uploader))
    archive.refuse(make.deb(None, "1.6"))
    archive.put(make.deb(uploader, "1.7"))
    found = status(archive)
    assert (found["incoming"], found["rejected"]) == (1, 1)
    (suite,) = found["suites"]
    assert (suite["packages"], suite["images"]) == (1, {})
    assert suite["waiting"]["packages"] == ["debian-cloud-config-demo 1.5"]
    assert suite["waiting"]["images"] == ["images/trixie/ec2/amd64/20261120.0"]
    told = archive.run("status").stdout
    assert "accepted, not published: debian-cloud-config-demo 1.5\n" in told
    assert "accepted, not published: images/trixie/ec2/amd64/20261120.0\n" in told
    assert "1 in incoming, 1 kept in rejected" in told
    assert re.search(r"signed 20\d\d-\d\d-\d\d \d\d:\d\d UTC, valid until .*, 14 days\n", told)
    assert f"{key['fingerprint']} {key['owner']}\n           active, signs without end\n" in told

    archive.run("publish")
    published = status(archive)
    assert published["serial"] > new["serial"]
    assert published["snapshot"] > new["snapshot"]
    (suite,) = published["suites"]
    assert (suite["packages"], suite["images"]) == (2, {"current": 1})
    assert suite["waiting"] == nothing


def test_status_warns_of_what_has_expired_and_disturbs_nobody(archive: Archive) -> None:
    later: list[str | Path] = [*clock.off_by("+20d"), "debian-cloud-archive", "status", archive.path]
    assert re.search("EXPIRED 20..-..-.. ", run(later, archive.env).stdout)
    archive.key.gpg("--quick-set-expire", status(archive)["keys"][0]["fingerprint"], "10d")
    (key,) = status(archive)["keys"]
    assert 9 * DAY < key["until"] - time.time() <= 10 * DAY
    assert re.search("active, EXPIRED 20..-..-.. ", run(later, archive.env).stdout)
    # status works while another verb holds the lock, and after reprepro was killed.
    (archive.path / "state/db/lockfile").touch()
    before = sorted((archive.path / "state/db").iterdir())
    flock: list[Any] = ["flock", archive.path / "lock", "debian-cloud-archive", "status", archive.path]
    assert run(flock, archive.env).returncode == 0
    assert sorted((archive.path / "state/db").iterdir()) == before


def test_status_of_what_is_no_archive(archive: Archive) -> None:
    cases: list[tuple[list[str | Path], str]] = [
        ([archive.public], "is not an archive"),
        ([], "one DIR"),
        ([archive.path, "-x"], "unknown option -x"),
    ]
    for arguments, word in cases:
        done = run(["debian-cloud-archive", "status", *arguments], archive.env, check=False)
        assert done.returncode == 2
        assert word in done.stderr
        assert "hint: " in done.stderr


def test_the_journal_learns_what_is_an_error(archive: Archive, tmp_path: Path) -> None:
    """Each event is one line, with a priority if standard error is the journal (systemd.exec(5), JOURNAL_STREAM)."""
    command: list[str | Path] = ["debian-cloud-archive", "status", archive.public]
    for journal, prefix in ((True, "<3>"), (False, "")):
        with (tmp_path / "stream").open("w+") as stream:
            known = (tmp_path / "stream").stat()
            env = {**archive.env, "JOURNAL_STREAM": f"{known.st_dev}:{known.st_ino + (0 if journal else 1)}"}
            subprocess.run(command, env=env, stderr=stream, check=False)
            stream.seek(0)
            assert stream.readline() == f"{prefix}error: {archive.public} is not an archive\n"
