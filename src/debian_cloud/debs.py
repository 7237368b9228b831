# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch .debs through the private apt, and take them apart."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import deb822, run
from .binary import Binary, File
from .errors import USAGE, Error
from .plan import Run
from .progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .options import Origin


def fetched(origin: Origin, packages: Iterable[tuple[str, str]]) -> tuple[Binary, ...]:
    """Packages (name, version) of the origin, as its signed indexes have them, taken apart."""
    wanted = tuple(f"{name}={version}" for name, version in packages)
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as folder:
        step = Run("fetch the configuration", ("apt-get", "-c", str(origin.conf), "-q", "download", *wanted))
        run.carry_out((step,), Path(folder), Progress(1, quiet=True))
        return tuple(read(path) for path in sorted(Path(folder).glob("*.deb")))


def read(deb: Path) -> Binary:
    """A .deb taken apart; Error when it is none."""
    path = deb.resolve()
    if not path.is_file():
        raise Error(f"there is no file {deb}", "give a .deb, a .changes, a source tree or a configuration", USAGE)
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as name:
        folder = Path(name)
        steps = (
            Run(f"open {deb.name}", ("dpkg-deb", "--control", str(path), "control")),
            Run(f"unpack {deb.name}", ("dpkg-deb", "--extract", str(path), "files")),
        )
        run.carry_out(steps, folder, Progress(len(steps), quiet=True))
        control = {p.name: p.read_text("utf-8", "replace") for p in sorted((folder / "control").iterdir())}
        (fields,) = deb822.parse(control.pop("control"))
        return Binary(fields, control, tree(folder / "files"))


def tree(folder: Path) -> tuple[File, ...]:
    """The files and links below a folder, as if it were the root."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = f"/{path.relative_to(folder)}"
        if path.is_symlink():
            found.append(File(name, link=str(path.readlink())))
        elif path.is_file():
            found.append(File(name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode)))
    return tuple(found)
