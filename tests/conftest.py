# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests share: one world made by the demo, with images of several configurations and suites."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud.names import RELEASES
from tests import gnupg
from tests.command import said
from tests.throwaway import Published

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[1]
# The commands of this tree, and Debian's before any other Python's, however pytest was called.
os.environ["PATH"] = ":".join(
    [f"{ROOT}/.venv/bin", f"{ROOT}/archive", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]
)
# What a shell starts in the background ignores it, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
SUITE = "trixie"
CONFIGS = ("ec2", "generic", "nocloud")
"""Disks of SUITE that go the whole way: built, uploaded, published, mirrored, fetched."""
PUBLISHED = ("container", *CONFIGS)
"""All images that do."""
ALL = bool(os.environ.get("DEBIAN_CLOUD_ALL"))
"""Whether every image is looked into (`make check-all`), or those that differ most."""
DISKS = {
    **{config: (SUITE, config) for config in (*CONFIGS, *(("azure", "genericcloud") if ALL else ()))},
    **({"bookworm/generic": ("bookworm", "generic")} if ALL else {}),
    "forky/generic": ("forky", "generic"),
}
"""All disks that are built: their names in `images` -> suite and configuration."""


@dataclass(frozen=True, slots=True)
class Image:
    """The files of one built image."""

    raw: Path

    @property
    def stem(self) -> str:
        return self.raw.name.removesuffix(".raw")

    def file(self, extension: str) -> Path:
        return self.raw.with_name(f"{self.stem}.{extension}")

    @property
    def qcow2(self) -> Path:
        return self.file("qcow2")


@dataclass(frozen=True)
class World(Published):
    """What `tests/demo` leaves: an archive, its key, images, a mirror, a clean Debian that used it."""

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def public(self) -> Path:
        return self.archive / "public"

    @property
    def mirror(self) -> Path:
        return self.folder / "mirror"


def traces(folder: Path) -> list[str]:
    """What is still at work in a folder: mounts of any namespace, loop devices, processes."""
    name = str(folder)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end while it is looked at, and has no executable when it has ended.
        with contextlib.suppress(OSError):
            found += [line for line in (process / "mountinfo").read_text().splitlines() if name in line]
        for link in ("cwd", "root", "exe"):
            with contextlib.suppress(OSError):
                # In a chroot, what runs in another namespace shows its path from outside.
                if name in str((process / link).readlink()):
                    found.append(f"{process}/{link}")
        with contextlib.suppress(OSError):
            if name.encode() in (process / "cmdline").read_bytes():
                found.append(f"{process}/cmdline")
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found += [str(backing)] if name in backing.read_text() else []
    return found


_WORLD = Path(os.environ.get("DEBIAN_CLOUD_WORLD", ROOT / "build" / "world"))
_making = pytest.StashKey[subprocess.Popen[bytes] | None]()
_beside = pytest.StashKey[subprocess.Popen[bytes] | None]()
_reports = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
_REPORTS = "DEBIAN_CLOUD_REPORTS"
"""In the environment of a second pytest: the file to which its reports go, one in a line."""


def _needs_the_world(item: pytest.Item) -> bool:
    return "world" in getattr(item, "fixturenames", ())


def _order(item: pytest.Item) -> tuple[bool, bool, bool]:
    """Tests that need the world come late, as it is made in the meantime.

    What is done beside them comes after them, and last what counts over all images.
    """
    return "counts_over_all_images" in item.keywords, _is_beside(item), _needs_the_world(item)


def _is_beside(item: pytest.Item) -> bool:
    return "beside" in item.keywords and _REPORTS not in os.environ


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin the world at once, beside the tests that need none; one that was made of these sources is kept."""
    # Here and not before: pytest itself sorts by the fixtures' parameters.
    session.items.sort(key=_order)
    if session.config.option.collectonly or not any(map(_needs_the_world, session.items)) or _is_whole():
        return
    _WORLD.mkdir(parents=True, exist_ok=True)
    with (_WORLD / "world.log").open("wb") as out:
        session.config.stash[_making] = subprocess.Popen(
            [ROOT / "tests" / "world", _WORLD],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            # A group of its own, to be ended with all that it has begun.
            start_new_session=True,
        )


def _is_whole() -> bool:
    """Whether the world is there, and as the sources are now; DEBIAN_CLOUD_WORLD is taken as it is."""
    whole = _WORLD / "whole"
    if not whole.exists():
        return False
    state = subprocess.run([ROOT / "tests" / "world", "--state"], capture_output=True, text=True, check=True).stdout
    return "DEBIAN_CLOUD_WORLD" in os.environ or whole.read_text("ascii") == state


def pytest_unconfigure(config: pytest.Config) -> None:
    """Do not leave anything at work when the tests end before it."""
    for key in (_making, _beside):
        process = config.stash.get(key, None)
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if folder := config.stash.get(_reports, None):
        folder.cleanup()


def _begin_beside(session: pytest.Session) -> None:
    """As soon as the world is there, begin the tests that are marked so: most of a build uses one processor."""
    making = session.config.stash.get(_making, None)
    if _beside in session.config.stash or (making and making.poll() != 0):
        return
    session.config.stash[_beside] = None
    chosen = [item.nodeid for item in session.items if _is_beside(item)]
    if not chosen:
        return
    session.config.stash[_reports] = folder = tempfile.TemporaryDirectory(prefix="beside.")
    Path(folder.name, "reports").touch()
    with Path(folder.name, "log").open("wb") as out:
        session.config.stash[_beside] = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen],
            cwd=session.config.rootpath,
            env={**os.environ, _REPORTS: f"{folder.name}/reports", "DEBIAN_CLOUD_WORLD": str(_WORLD)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Take what another pytest says of a test that was done beside; else let it be done."""
    if not _is_beside(item):
        _begin_beside(item.session)
        return None
    # When there were no others, they are done here.
    process = item.config.stash.setdefault(_beside, None)
    if process is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    process.wait()
    folder = Path(item.config.stash[_reports].name)
    reports = (json.loads(line) for line in (folder / "reports").read_text("utf-8").splitlines())
    found = [report for report in reports if report["nodeid"] == item.nodeid]
    assert found, (folder / "log").read_text("utf-8", "replace")[-6000:]
    for data in found:
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        # Why a test was skipped is a tuple, which JSON has not.
        report.longrepr = tuple(report.longrepr) if isinstance(report.longrepr, list) else report.longrepr
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


class _Reports:
    """Of a second pytest: writes what is said of each test to where the first reads it."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        self._config = config
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._file.open("a", encoding="utf-8") as out:
            out.write(f"{json.dumps(data, default=str)}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Be the second pytest, if we are."""
    if file := os.environ.get(_REPORTS):
        config.pluginmanager.register(_Reports(config, Path(file)))
        # Ended by the first, it puts back what its fixtures made, as after Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport:
    """Show of a failure what the commands said, whoever ran them."""
    report = pytest.TestReport.from_item_and_call(item, call)
    if call.excinfo and report.failed:
        report.sections += [
            (f"what was said by: {command}", text) for command, text in said(call.excinfo.value).items()
        ]
    return report


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> World:
    """What `tests/world` made, once for all tests."""
    if making := request.config.stash.get(_making, None):
        assert making.wait() == 0, (_WORLD / "world.log").read_text("utf-8", "replace")[-6000:]
    return World(_WORLD)


@pytest.fixture(scope="session")
def images(world: World) -> Mapping[str, Image]:
    """Name of a disk, as in DISKS -> its files."""
    found = {}
    for name, (suite, config) in DISKS.items():
        (raw,) = (world.folder / "images").glob(f"debian-{RELEASES[suite]}-{config}-amd64-*.raw")
        found[name] = Image(raw)
    return found


@pytest.fixture(scope="session")
def container(world: World) -> Path:
    """The root file system of the container's image, as a tar."""
    (tar,) = (world.folder / "images").glob("*-container-*.tar.xz")
    return tar


@pytest.fixture
def gnupg_home() -> Iterator[Path]:
    """An empty GnuPG home, whose agent ends with the test."""
    with gnupg.temporary_home() as home:
        yield home


@pytest.fixture(scope="session")
def bash_timeout() -> int:
    """Seconds that a script may take in pytest-shell."""
    return 60
