# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests share: one world made by the demo, with one image of each configuration."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[1]
# The commands of this tree, and Debian's before any other Python's, however pytest was called.
os.environ["PATH"] = ":".join(
    [f"{ROOT}/.venv/bin", f"{ROOT}/archive", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]
)
SUITE = "trixie"
CONFIGS = ("ec2", "generic", "nocloud")


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


@dataclass(frozen=True, slots=True)
class World:
    """What `tests/demo` leaves: an archive, its key, images, a mirror, a clean Debian that used it."""

    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def public(self) -> Path:
        return self.archive / "public"

    @property
    def mirror(self) -> Path:
        return self.folder / "mirror"

    @property
    def keyring(self) -> Path:
        return self.folder / "archive.gpg"

    @property
    def sources(self) -> list[str]:
        """Arguments that make this archive the source of configurations."""
        return ["--archive", f"file:{self.public}", "--keyring", str(self.keyring)]


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


@pytest.fixture(scope="session")
def world() -> World:
    """The main job, done once for all configurations (some minutes); DEBIAN_CLOUD_WORLD keeps it between runs."""
    folder = Path(os.environ.get("DEBIAN_CLOUD_WORLD", ROOT / "build" / "world"))
    if "DEBIAN_CLOUD_WORLD" not in os.environ or not (folder / "summary").exists():
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "demo.log"
        with log.open("wb") as out:
            done = subprocess.run(
                [ROOT / "tests" / "demo", folder, *CONFIGS],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert done.returncode == 0, log.read_text("utf-8", "replace")[-6000:]
    return World(folder)


@pytest.fixture(scope="session")
def images(world: World) -> Mapping[str, Image]:
    """Configuration -> its image."""
    found = {}
    for config in CONFIGS:
        (raw,) = (world.folder / "images").glob(f"*-{config}-*.raw")
        found[config] = Image(raw)
    return found


@pytest.fixture(scope="session")
def bash_timeout() -> int:
    """Seconds that a script may take in pytest-shell."""
    return 60
