# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of an image that have newer versions: what is found, what is published, and what apt knows."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud.archive import lifecycle
from debian_cloud.errors import Error
from debian_cloud.image import index, staleness
from debian_cloud.image.installed import Installed
from debian_cloud.image.staleness import Update
from debian_cloud.text import deb822
from tests import gnupg, malformed, throwaway
from tests.samples import RECORD

INSTALLED = (
    Installed("zlib1g", "1", "amd64"),
    Installed("openssl", "3.0-1", "amd64"),
    Installed("tzdata", "2026a", "all"),
    Installed("base", "1", "all"),
)
NEWER = {"openssl": ("3.0-2", True), "tzdata": ("2026b", False), "zlib1g": ("2", True)}
OLD = replace(RECORD, id=replace(RECORD.id, serial="20261119.0"))
GONE = replace(
    OLD,
    status="withdrawn",
    status_date="2026-11-21",
    status_reason="it does not boot: at all",
    cves=("CVE-2026-12345", "CVE-2026-23456"),
)


def found(record: index.ImageRecord) -> str:
    return staleness.found(record.id, INSTALLED, lambda package: NEWER.get(package.name), "2026-11-20")


def test_security_updates_come_first() -> None:
    assert found(RECORD) == (
        f"Image: {RECORD.directory}\n"
        "Pending-Date: 2026-11-20\n"
        "Pending-Security:\n"
        " openssl 3.0-1 3.0-2\n"
        " zlib1g 1 2\n"
        "Pending:\n"
        " tzdata 2026a 2026b\n"
    )
    nothing = staleness.found(RECORD.id, INSTALLED, lambda _: None, "2026-11-20")
    assert nothing == f"Image: {RECORD.directory}\nPending-Date: 2026-11-20\n"


def test_what_is_found_is_what_an_index_may_say() -> None:
    """If more were found than an index may list, no further index could be published."""

    def of(number: int, version: str) -> str:
        those = [Installed(f"{'p' * 70}{index}", version, "all") for index in range(number)]
        return staleness.found(RECORD.id, those, lambda _: ("9" * 70, True), "2026-11-20")

    assert staleness.MOST_UPDATES < deb822.MOST_LINES
    largest = replace(RECORD, status="deprecated", status_date="2026-11-21")
    largest = replace(largest, status_reason="\N{GRINNING FACE}" * 500, cves=("CVE-2026-1234567890123456",) * 100)
    text = staleness.render([largest], staleness.by_image(of(staleness.MOST_UPDATES, "1" * 100)))
    assert len(staleness.parse(text)[0].security) == staleness.MOST_UPDATES
    for number, version in ((1, "~"), (1, ":::"), (1, "1" * 200), (staleness.MOST_UPDATES + 1, "1")):
        with pytest.raises(Error):
            of(number, version)


def test_the_index_says_of_each_image_what_became_of_it() -> None:
    records = (*lifecycle.published([RECORD, replace(RECORD, format="raw"), GONE], ()), GONE)
    text = staleness.render(records, staleness.by_image(f"{found(RECORD)}\n{found(GONE)}"))
    gone, fine = staleness.parse(text)
    assert (fine.id.serial, fine.status, fine.pending_date) == ("20261120.0", "current", "2026-11-20")
    assert fine.security == (Update("openssl", "3.0-1", "3.0-2"), Update("zlib1g", "1", "2"))
    assert fine.others == (Update("tzdata", "2026a", "2026b"),)
    assert (gone.status, gone.date, gone.reason) == ("withdrawn", "2026-11-21", GONE.status_reason)
    assert gone.cves == GONE.cves
    # A withdrawn image must not be used, so no updates are listed.
    assert (gone.security, gone.others, gone.pending_date) == ((), (), "")
    # For an image that was never checked, nothing is listed.
    (unknown,) = staleness.parse(staleness.render([RECORD, replace(RECORD, status="current")][1:], {}))
    assert unknown.pending_date == ""
    assert staleness.parse(text.replace("Pending:", "Later: x\nPending:")) == (gone, fine)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" openssl 3.0-1 3.0-2", " openssl 3.0-2"),
        (" openssl 3.0-1 3.0-2", " \x1b[31m 3.0-1 3.0-2"),
        ("Pending-Date: 2026-11-20", "Pending-Date: today"),
        ("Status: current", "Status: fine\x07"),
        ("Status: current\n", ""),
        ("Suite: trixie", "Suite: ../trixie"),
        ("Version: 20261120.0", "Version: 1"),
        ("Status: current", "Status: current\nCVEs: x"),
        ("Status: current", "Status: current\nStatus-Reason: \x1b[31m"),
    ],
)
def test_a_stanza_that_lies_is_refused(old: str, new: str) -> None:
    text = staleness.render(lifecycle.published([RECORD], ()), staleness.by_image(found(RECORD)))
    assert old in text
    with pytest.raises(Error):
        staleness.parse(text.replace(old, new))


@pytest.mark.parametrize("text", malformed.BAD_STATUS.values(), ids=malformed.BAD_STATUS)
def test_a_malformed_index_is_refused(text: bytes) -> None:
    assert len(staleness.parse(malformed.STATUS)) == 3
    with pytest.raises(Error) as refused:
        tuple(staleness.read(io.BytesIO(text)))
    assert refused.value.status == 1


def test_what_was_read_is_remembered_once_for_all_images() -> None:
    known = {"a" * 64: INSTALLED, "b" * 64: (*INSTALLED[1:], Installed("base", "2", "all")), "c" * 64: ()}
    text = staleness.remembered(known)
    assert staleness.recalled(text) == known
    assert text.count("openssl") == 1
    assert staleness.recalled(staleness.remembered({"a" * 64: INSTALLED[:1]})) == {"a" * 64: INSTALLED[:1]}
    for damaged in ("", text[:-1], text[: len(text) // 3], text.replace(" 3", " 9"), text.replace("tzdata ", "")):
        with pytest.raises(ValueError):  # noqa: PT011 # noqa: PT011 # any of them
            staleness.recalled(damaged)


# With apt's data.

ASK = """
import json, sys
from pathlib import Path
from debian_cloud.packages import releases, resolver
from debian_cloud.host import run
from debian_cloud.image import sources
from debian_cloud.host.progress import Progress
root, top, keyring = map(Path, sys.argv[1:4])
source = lambda name, *suites: sources.Source(f"file:{top}/{name}", suites, str(keyring))
debian, archive = (source("debian", "trixie"), source("security", "trixie-security")), source("archive", "trixie")
plan = sources.update(root, (*debian, archive), "amd64")
run.carry_out(plan, root, Progress(len(plan), quiet=True))
read = releases.read(root / "lists", (*debian, archive))
apt = resolver.Apt(root, read, archive)
asked = [word.split("=") for word in sys.argv[4:]]
print(json.dumps([apt.debian_epoch, [apt.newer(*words) for words in asked]]))
"""


def repository(folder: Path, suite: str, label: str, versions: dict[str, str], home: Path, epoch: int) -> None:
    """Make an archive with these versions, signed with a key."""
    packages = "\n".join(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x\nDescription: x\nFilename: x.deb\n"
        f"Size: 1\nSHA256: {'0' * 64}\n"
        for name, version in versions.items()
    )
    index_file = folder / "dists" / suite / "main/binary-amd64/Packages"
    index_file.parent.mkdir(parents=True)
    index_file.write_text(packages)
    now = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(epoch))
    release = (
        f"Origin: Debian\nLabel: {label}\nSuite: {suite}\nCodename: {suite}\nDate: {now}\nArchitectures: amd64\n"
        f"Components: main\nSHA256:\n {hashlib.sha256(packages.encode()).hexdigest()} {len(packages)}"
        " main/binary-amd64/Packages\n"
    )
    throwaway.sign(home, release, folder / "dists" / suite / "InRelease")


def test_apt_knows_what_is_newer_and_what_is_security() -> None:
    epoch = int(time.time()) - 3600
    with throwaway.folder() as top:
        home = top / "key"
        gnupg.new_key(home, "x")
        keyring = top / "key.gpg"
        keyring.write_bytes(gnupg.gpg(home, "--export"))
        debian = {"same": "1", "later": "2", "fixed": "1.1", "passed": "1.2", "ours": "1", "older": "1"}
        repository(top / "debian", "trixie", "Debian", debian, home, epoch)
        security = {"fixed": "1.1+deb13u1", "passed": "1.1+deb13u1", "same": "0.9"}
        repository(top / "security", "trixie-security", "Debian-Security", security, home, epoch + 60)
        archive = {"ours": "9", "debian-cloud-config-x": "1:2"}
        repository(top / "archive", "trixie", "debian-cloud", archive, home, epoch + 120)
        wanted = {
            "same=1": None,
            "same=0.1": ["1", True],
            "later=1": ["2", False],
            "fixed=1.1": ["1.1+deb13u1", True],
            # The point release includes the security update.
            "passed=1.1": ["1.2", True],
            "passed=1.1+deb13u1": ["1.2", False],
            # The archive never replaces a package of Debian.
            "ours=1": None,
            "debian-cloud-config-x=3": ["1:2", False],
            "older=2": None,
            "nowhere=1": None,
        }
        root = top / "root"
        root.mkdir()
        env = {"PYTHONPATH": str(Path(staleness.__file__).parents[2]), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, "-c", ASK, root, top, keyring, *wanted],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [epoch + 60, [*wanted.values()]]
