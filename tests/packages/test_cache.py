# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache stays within its limit, whatever processes use it and however they end."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from debian_cloud.build import store
from debian_cloud.packages import cache
from tools import manual

ROOT = Path(__file__).resolve().parents[2]
SIZE = 1 << 16


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BOUND", 3 * SIZE)


def fill(folder: Path, size: int = SIZE, age: int = 0) -> Path:
    """Make a directory of the cache, last used `age` seconds ago."""
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "lists/x_Packages").write_bytes(os.urandom(size))
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def use(folder: Path, size: int = 0) -> None:
    with cache.used(folder, "the cache"):
        if size:
            (folder / "more").write_bytes(os.urandom(size))


def there(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    for number in range(5):
        fill(tmp_path / f"f{number}", age=100 * (6 - number))
    use(tmp_path / "f1")
    assert there(tmp_path) == {"f1", "f3", "f4"}
    # Within the limit, nothing is removed.
    use(tmp_path / "f3")
    use(tmp_path / "new")
    assert there(tmp_path) == {"f1", "f3", "f4", "new"}
    use(tmp_path / "new", SIZE)
    assert there(tmp_path) == {"f1", "f3", "new"}


def test_what_was_used_with_a_wrong_clock_goes_first(tmp_path: Path) -> None:
    """Otherwise it would stay for as long as the clock was wrong, and all that is used now would go."""
    for number in range(3):
        fill(tmp_path / f"f{number}", age=-(10**8) if number == 1 else 100)
    use(tmp_path / "new", SIZE)
    assert there(tmp_path) == {"f0", "f2", "new"}
    files = tmp_path / "files"
    files.mkdir()
    for number, age in enumerate((100, -(10**8), 200)):
        (files / str(number)).write_bytes(bytes(4096))
        os.utime(files / str(number), (time.time() - age,) * 2)
    cache.bound_files(files, 8192)
    assert there(files) == {"0", "2"}


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    for number in range(4):
        fill(tmp_path / f"f{number}", age=100 * (5 - number))
    descriptor = os.open(tmp_path / "f0", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    # A directory larger than the limit also stays while it is used.
    use(tmp_path / "mine", 4 * SIZE)
    assert there(tmp_path) == {"f0", "mine"}
    os.close(descriptor)
    use(tmp_path / "f0")
    assert there(tmp_path) == {"f0"}


def test_it_is_bounded_when_a_run_fails(tmp_path: Path) -> None:
    for number in range(4):
        fill(tmp_path / f"f{number}", age=100 * (5 - number))
    with pytest.raises(RuntimeError), cache.used(tmp_path / "f3", "the cache"):
        raise RuntimeError
    assert there(tmp_path) == {"f1", "f2", "f3"}


def test_what_a_killed_run_left_goes(tmp_path: Path) -> None:
    fill(tmp_path / ".gone.f0.123")
    (tmp_path / "a file").touch()
    (tmp_path / "link").symlink_to("/")
    use(tmp_path / "f1")
    assert there(tmp_path) == {"f1", "a file", "link"}


def test_keyrings_go_last(tmp_path: Path) -> None:
    keyrings = tmp_path / cache.KEYRINGS
    keyrings.mkdir()
    for number, age in enumerate((10**6, 10**5, 10)):
        (keyrings / f"k{number}.gpg").write_bytes(os.urandom(SIZE))
        os.utime(keyrings / f"k{number}.gpg", (time.time() - age,) * 2)
    fill(tmp_path / "f0", age=10)
    use(tmp_path / "f1")
    assert there(tmp_path) == {"f1", cache.KEYRINGS}
    assert len(there(keyrings)) == 3
    use(tmp_path / "f1", SIZE)
    assert there(keyrings) == {"k1.gpg", "k2.gpg"}
    use(tmp_path / "f1", 4 * SIZE)
    # Another run may be about to read k2.gpg.
    assert there(keyrings) == {"k2.gpg"}


def test_many_at_once_leave_it_whole(tmp_path: Path) -> None:
    """Each process finds its own directory, whatever the others remove and although one is killed at work."""
    script = f"""
import os, sys
from pathlib import Path
from debian_cloud.packages import cache
cache.BOUND = {3 * SIZE}
for number in range(12):
    directory = Path({str(tmp_path)!r}) / f"f{{(int(sys.argv[1]) + number) % 6}}"
    with cache.used(directory, "the cache"):
        (directory / "x").write_bytes(os.urandom({SIZE}))
        if sys.argv[1] == "3" and number == 6:
            os.kill(os.getpid(), 9)
        assert (directory / "x").stat().st_size == {SIZE}
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    many = [
        subprocess.Popen([sys.executable, "-c", script, str(n)], env=env, stderr=subprocess.PIPE) for n in range(4)
    ]
    said = [process.communicate(timeout=60)[1].decode() for process in many]
    assert [process.returncode for process in many] == [0, 0, 0, -9], said
    assert not any("Traceback" in words for words in said)
    use(tmp_path / "f0")
    assert len(there(tmp_path)) <= 3 + 1
    assert not any(name.startswith(".") for name in there(tmp_path))


def test_its_place_and_its_bound_are_in_the_man_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    page = manual.manual().replace("\\-", "-")
    assert re.search(r"\.SH FILES\n(?:(?!\.SH).*\n)*\.TP\n\.I ~/\.cache/debian-cloud\n", page)
    assert "/var/cache/debian-cloud" in page
    assert f"At most {cache.BOUND // 2**30} GiB stay there" in page
    assert f"besides {cache.BOUND_OF_DEBS // 2**30} of packages and\n{store.BOUND // 2**30} of layers" in page
