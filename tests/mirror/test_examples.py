# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of a service and a timer, and runs that a push starts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.mirror.tree import ROOT, Archive, Mirror, Server, seen_by_client

EXAMPLES = ROOT / "debian/mirror-examples"


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    units = [tmp_path / path.name for path in EXAMPLES.iterdir()]
    assert sorted(unit.suffix for unit in units) == [".service", ".timer"]
    for unit in units:
        # The command as it is here; the program need not be installed.
        unit.write_text((EXAMPLES / unit.name).read_text().replace("=debian-cloud-mirror ", "=/bin/true "))
    done = analyze("verify", "--man=no", *units)
    assert [line for line in done.stderr.splitlines() if "debian-cloud-mirror" in line] == []


def test_the_service_may_do_little() -> None:
    """The exposure that systemd computes, from 0 to 100 (systemd-analyze(1), security)."""
    service = EXAMPLES / "debian-cloud-mirror.service"
    done = analyze("security", "--offline=yes", "--threshold=30", "--no-pager", service)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_that_was_pushed_waits_for_the_one_before_it(
    archive: Archive, slow: Callable[[str, int], Server], mirror: Mirror
) -> None:
    archive.add_image("ec2", "20261121.0", 2_000_000)
    archive.publish()
    fast = mirror.source
    mirror.source = slow("http", 500).url
    first = subprocess.Popen(mirror.command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not (mirror.dest / ".mirror/incoming").is_dir():
            time.sleep(0.01)
        archive.publish()
        mirror.source = fast
        assert "another" in mirror.run().stderr
        done = mirror.run("--wait")
        assert done.returncode == 0, done.stderr
        assert "waiting for another" in done.stderr
        assert first.wait(60) == 0
    finally:
        first.kill()
        first.communicate()
    assert seen_by_client(mirror.dest) == archive.date
