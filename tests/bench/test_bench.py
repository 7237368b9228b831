# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the bench with small commands: who fails is named and not tried again, and the others go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import ours
from bench.mirror import Mirror

MIRROR = Mirror("http://127.0.0.1:1/debian", "http://127.0.0.1:1/debian-security", "trixie")


@pytest.fixture
def small(tmp_path: Path) -> bench.Bench:
    works = {
        "good": ours.Work(("sh", "-c", "echo x >> ../../runs; mkdir out")),
        "bad": ours.Work(("sh", "-c", "echo x >> ../../bad; echo no such thing >&2; exit 1")),
        "cache": ours.Work(("sh", "-c", 'echo "$XDG_CACHE_HOME" >> ../../caches')),
        "kept": ours.Work(("sh", "-c", 'echo "$XDG_CACHE_HOME" >> ../../caches'), kept=True),
    }
    (tmp_path / "top").mkdir()
    env = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": "/kept"}
    return bench.Bench(tmp_path / "top", MIRROR, env, ("bash",), works)


def test_a_failure_is_named_once_and_the_others_go_on(small: bench.Bench, tmp_path: Path) -> None:
    small.round(("bad", "good"), measured=False)
    for _ in range(2):
        small.round(("bad", "good"), measured=True)
    assert small.failures == {"bad": "exit status 1\nno such thing\n"}
    assert {name: len(costs) for name, costs in small.costs.items()} == {"good": 2}
    assert (tmp_path / "bad").read_text() == "x\n"
    assert (tmp_path / "runs").read_text() == "x\n" * 3
    # Each has a directory of its own, which is removed.
    assert [*small.top.iterdir()] == []


def test_a_cold_run_has_a_cache_of_its_own(small: bench.Bench, tmp_path: Path) -> None:
    small.round(("cache", "cache", "kept"), measured=True)
    first, second, kept = (tmp_path / "caches").read_text().splitlines()
    assert first != second
    assert kept == "/kept"


def test_a_peer_that_fails_is_named(small: bench.Bench) -> None:
    """There is nothing at the mirror's address: the peer's own tool says so."""
    small.round(("mmdebstrap",), measured=False)
    assert "exit status 1" in small.failures["mmdebstrap"]
    assert "mmdebstrap" in small.failures["mmdebstrap"].partition("\n")[2]


def test_loop_devices_of_a_directory() -> None:
    files = ("/tmp/a/bench.x/disk", "/bench.x/disk (deleted)", "/tmp/bench.xy/disk", "/swap", None)
    listed = json.dumps(
        {"loopdevices": [{"name": f"/dev/loop{number}", "back-file": file} for number, file in enumerate(files)]}
    )
    assert bench.attached(listed, "bench.x") == ("/dev/loop0", "/dev/loop1")
    assert bench.attached("", "bench.x") == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--peers", "fai,nobody"), "no such peer: nobody; there are debos, fai,"), (("--rounds", "0"), "one round")],
)
def test_wrong_words_are_refused(words: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "bench", *words]
    done = subprocess.run(command, cwd=bench.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
