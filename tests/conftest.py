# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests share: one world made by the demo, with images of several configurations and suites."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
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
# The commands of this tree, and Debian's before any other Python's, no matter how pytest was started.
os.environ["PATH"] = ":".join(
    [f"{ROOT}/.venv/bin", f"{ROOT}/archive", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]
)
# A process that a shell starts in the background ignores SIGINT, one of nohup(1) SIGHUP, and so would all that the
# tests start and interrupt.
# pytest-xdist may import this in another thread of its workers, which have this from the process that starts them.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
SUITE = "trixie"
CONFIGS = ("ec2", "generic", "nocloud")
"""Disks of SUITE that take all steps: built, uploaded, published, mirrored, fetched."""
PUBLISHED = ("container", *CONFIGS)
"""All images that take all steps."""
ALL = bool(os.environ.get("DEBIAN_CLOUD_ALL"))
"""Whether every image is tested (`make check-all`), or only those that differ most."""
BOOTS = ALL or bool(os.environ.get("DEBIAN_CLOUD_BOOTS"))
"""Whether every machine is booted (`make check-boot`), or only one and containers."""
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
    """What `tests/demo` leaves: an archive, its key, images, a mirror, a minimal Debian that used it."""

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
    """List what still uses a directory: mounts of any namespace, loop devices, processes."""
    name = str(folder)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end while it is read, and has no executable after that.
        with contextlib.suppress(OSError):
            found += [line for line in (process / "mountinfo").read_text().splitlines() if name in line]
        for link in ("cwd", "root", "exe"):
            with contextlib.suppress(OSError):
                # The links of a process in a chroot of another namespace show the path from outside.
                if name in str((process / link).readlink()):
                    found.append(f"{process}/{link}")
        with contextlib.suppress(OSError):
            if name.encode() in (process / "cmdline").read_bytes():
                found.append(f"{process}/cmdline")
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found += [str(backing)] if name in backing.read_text() else []
    return found


_HERE = Path.cwd()
_WORLD = Path(os.environ.get("DEBIAN_CLOUD_WORLD", ROOT / "build" / "world"))
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
_making = pytest.StashKey[subprocess.Popen[bytes]]()
# These are made once for a session, and take minutes: tests that use the same one run in the same process.
_SHARED = (("images", {"root"}), ("machines", {"base", "ec2", "azure"}))
# Modules whose tests with images take minutes: they come first, so that no process waits for another at the end.
_LONG = ("proof/test_verify.py", "built/test_machine_upgrade.py", "built/test_renewal.py", "test_library.py")


def _needs_the_world(item: pytest.Item) -> bool:
    return "world" in getattr(item, "fixturenames", ())


def _group(item: pytest.Item) -> str:
    """The group of a test, which runs in one process: its module, or an expensive fixture."""
    used = set(getattr(item, "fixturenames", ()))
    for name, fixtures in _SHARED:
        if used & fixtures:
            return name
    if item.get_closest_marker("counts_over_all_images"):
        return "images"
    module = item.nodeid.partition("::")[0]
    return f"{module}, with images" if _needs_the_world(item) else module


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of other targets; group the others for pytest-xdist, except those that name a group."""
    for item in items:
        for mark, wanted, target in ("thorough", ALL, "check-all"), ("boots", BOOTS, "check-boot"):
            if item.get_closest_marker(mark) and not wanted:
                item.add_marker(pytest.mark.skip(reason=f"make {target}"))
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(_group(item)))


def _order(item: pytest.Item) -> tuple[bool, bool, bool]:
    """Put tests that need the world last, as it is made meanwhile; those that take minutes first."""
    shared = {name for name, _ in _SHARED}
    (group,) = next(item.iter_markers("xdist_group")).args
    own = (
        group in shared
        or not group.startswith("tests/")
        or group.startswith(tuple(f"tests/{name}" for name in _LONG))
    )
    return "counts_over_all_images" in item.keywords, _needs_the_world(item), not own


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start making the world at once, beside the tests that do not need it; one made from these sources is reused."""
    # Done here and not earlier, because pytest itself sorts by the fixtures' parameters.
    session.items.sort(key=_order)
    if session.config.option.collectonly or _WORKER != "gw0" or not any(map(_needs_the_world, session.items)):
        return
    if not _is_whole():
        session.config.stash[_making] = _make(_WORLD)


def _make(world: Path) -> subprocess.Popen[bytes]:
    """Start tests/world, which waits if another process makes the world, and does not make it twice."""
    world.mkdir(parents=True, exist_ok=True)
    with (world / f"world.{_WORKER}.log").open("wb") as out:
        return subprocess.Popen(
            [ROOT / "tests" / "world", world],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            # A group of its own, so that all that it started can be ended with it.
            start_new_session=True,
        )


def _is_whole() -> bool:
    """Whether the world is complete and matches the sources; a DEBIAN_CLOUD_WORLD is taken as it is."""
    try:
        made_of = (_WORLD / "whole").read_text("ascii")
    except FileNotFoundError:
        return False
    state = subprocess.run([ROOT / "tests" / "world", "--state"], capture_output=True, text=True, check=True).stdout
    return "DEBIAN_CLOUD_WORLD" in os.environ or made_of == state


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the making of the world if the tests end before it."""
    process = config.stash.get(_making, None)
    if process and process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport:
    """Show the output of the commands of a failed test, no matter which function ran them."""
    report = pytest.TestReport.from_item_and_call(item, call)
    if call.excinfo and report.failed:
        report.sections += [
            (f"what was said by: {command}", text) for command, text in said(call.excinfo.value).items()
        ]
    return report


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> World:
    """What `tests/world` made, once for all tests."""
    stash = request.config.stash
    if _making not in stash and not _is_whole():
        stash[_making] = _make(_WORLD)
    if _making in stash:
        log = _WORLD / f"world.{_WORKER}.log"
        assert stash[_making].wait() == 0, log.read_text("utf-8", "replace")[-6000:]
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


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Refuse a test that leaves another working directory to those after it."""
    ended = Path.cwd()
    os.chdir(_HERE)
    assert ended == _HERE, f"the test ended in {ended}"


@pytest.fixture
def gnupg_home() -> Iterator[Path]:
    """An empty GnuPG home, whose agent ends with the test."""
    with gnupg.temporary_home() as home:
        yield home


@pytest.fixture(scope="session")
def bash_timeout() -> int:
    """Seconds that a script may take in pytest-shell."""
    return 60
