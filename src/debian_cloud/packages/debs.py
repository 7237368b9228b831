# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch .debs through the private apt, and read .debs and source trees."""

from __future__ import annotations

import gzip
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files, run
from debian_cloud.host.progress import Progress
from debian_cloud.image import config
from debian_cloud.image.binary import ENTRY, MAINTAINER_SCRIPTS, QUESTIONS, Binary, File
from debian_cloud.packages import manifest
from debian_cloud.plan import Run
from debian_cloud.text import deb822

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from debian_cloud.packages.origin import Origin

_LARGEST: Final = 2**26
"""Most bytes of a configuration's files."""
_MOST: Final = 10_000
"""Most files of a configuration."""
_LONGEST: Final = 2**20
"""Longest line of Contents, in bytes: a directory's line names all packages that ship it."""
_CONTROL_FILES: Final = (*MAINTAINER_SCRIPTS, *QUESTIONS, "triggers")
# XB-Image-Size in a source package is Image-Size in the binary one (deb-src-control(5)).
_USER_FIELD: Final = re.compile("^X[BCS]*B[BCS]*-")


def fetched(origin: Origin, packages: Iterable[tuple[str, str]]) -> tuple[Binary, ...]:
    """Fetch packages (name, version) from the origin, as its signed indexes have them, and read them."""
    wanted = tuple(f"{name}={version}" for name, version in packages)
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as folder:
        step = Run("fetch the configuration", ("apt-get", "-c", str(origin.conf), "-q", "download", *wanted))
        run.carry_out((step,), Path(folder), Progress(1, quiet=True))
        return tuple(read(path) for path in sorted(Path(folder).glob("*.deb")))


def read(deb: Path) -> Binary:
    """Read a .deb; raise Error if it is not one."""
    path = deb.resolve()
    if not path.is_file():
        raise Error(f"there is no file {deb}", "give a .deb, a .changes, a source tree or a configuration", USAGE)
    # Check this before unpacking: a few kilobytes can unpack to more than a disk holds.
    size, count = manifest.holds(path)
    if size > _LARGEST or count > _MOST:
        raise Error(
            f"{deb} has more than {_LARGEST >> 20} MiB or {_MOST} files", "a configuration has a few small files"
        )
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as name:
        folder = Path(name)
        steps = (
            Run(f"open {deb.name}", ("dpkg-deb", "--control", str(path), "control")),
            Run(f"unpack {deb.name}", ("dpkg-deb", "--extract", str(path), "files")),
        )
        run.carry_out(steps, folder, Progress(len(steps), quiet=True))
        control = {
            name: text
            for name in _CONTROL_FILES
            if (text := _control_file(folder / "control" / name, deb)) is not None
        }
        stanzas = deb822.parse(_text(folder / "control" / "control") or "")
        if len(stanzas) != 1 or not stanzas[0].get("Package"):
            raise Error(f"{deb} does not name its package", "a control file needs one stanza: deb-control(5)", USAGE)
        try:
            return Binary(stanzas[0], control, tree(folder / "files"))
        except OSError as error:
            raise Error(
                f"{deb} has a file that cannot be read: {error.strerror}",
                "give its files and directories read permission",
            ) from None


def _text(path: Path) -> str | None:
    """Return the text of a regular file, else None: a symlink, a FIFO or a directory leads elsewhere or nowhere."""
    if path.is_symlink() or not path.is_file():
        return None
    return files.read(path).decode("utf-8", "replace")


def _control_file(path: Path, package: Path) -> str | None:
    """Return the text of a control file or None; raise Error if dpkg would run what is not read here."""
    text = _text(path)
    if text is None and (path.is_symlink() or path.exists()):
        raise Error(f"{package} has a {path.name} that is not a plain file", "replace it with a plain file")
    return text


def tree(folder: Path) -> tuple[File, ...]:
    """Return the files and symlinks below a directory, as if it were the root."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = f"/{path.relative_to(folder)}"
        if path.is_symlink():
            found.append(File(name, link=str(path.readlink())))
        elif path.is_file():
            found.append(File(name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode)))
    return tuple(found)


def source(root: Path) -> tuple[str, tuple[Binary, ...]]:
    """Return the suite of a source tree, and its configurations, one Binary for each architecture.

    Their files are in configs/NAME/files and files-ARCH; in a source package of
    only one binary package, in files and files-ARCH.
    """
    path = root / "debian" / "control"
    control = deb822.parse(files.text(path))
    changelog = root / "debian" / "changelog"
    match = ENTRY.match(files.text(changelog)) if changelog.is_file() else None
    version, suite = (match["version"], match["suite"]) if match else ("", "")
    inherited = {"Section": control[0].get("Section", "") if control else "", "Version": version}
    packages = [{_USER_FIELD.sub("", name): value for name, value in stanza.items()} for stanza in control[1:]]
    if not packages or not all(fields.get("Package") for fields in packages):
        raise Error(
            f"{path} has {'a stanza without Package' if packages else 'no package'}",
            "write the source's stanza first, then one for each package: deb-src-control(5)",
            USAGE,
        )
    found = []
    for fields in packages:
        name = fields["Package"]
        if not is_configuration(name, fields):
            continue
        alone = len(packages) == 1
        folder = root if alone else root / "configs" / names.config(name)
        for architecture in fields.get("Architecture", "").split() or [""]:
            shipped = [file for tree_ in ("files", f"files-{architecture}") for file in tree(folder / tree_)]
            found.append(
                Binary(
                    {**inherited, **config.of_architecture(fields, architecture), "Architecture": architecture},
                    dict(_control_files(root / "debian", name, alone=alone)),
                    tuple(shipped),
                )
            )
    return suite, tuple(found)


def is_configuration(name: str, fields: Mapping[str, str]) -> bool:
    """Return whether a package is an image's configuration, or a layer."""
    return name.startswith(names.PACKAGE_PREFIX) or config.is_image(fields)


def owners(contents: Iterable[Path], wanted: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return wanted path -> the packages that ship it, from gzip-compressed Contents files."""
    # Before the /usr merge, the same file was listed without usr/.
    known = {_without_usr(path).encode(): path for path in wanted}
    found: dict[str, list[str]] = {}
    for path in contents:
        with gzip.open(path) as lines:
            # Without a limit, a line of gibibytes would be read into memory.
            while line := lines.readline(_LONGEST + 1):
                if len(line) > _LONGEST:
                    raise Error(
                        f"{path.name} has a line of more than {_LONGEST} bytes", "its archive must be repaired"
                    )
                # File names may contain spaces; package names do not.
                name, _, packages = line.rstrip().rpartition(b" ")
                wanted_path = known.get(name.rstrip().removeprefix(b"usr/"))
                if wanted_path:
                    # section/name or component/section/name.
                    found.setdefault(wanted_path, []).extend(
                        item.rpartition("/")[2] for item in packages.decode("utf-8", "replace").split(",")
                    )
    return {path: tuple(dict.fromkeys(packages)) for path, packages in found.items()}


def _without_usr(path: str) -> str:
    return path.removeprefix("/").removeprefix("usr/")


def _control_files(debian: Path, package: str, *, alone: bool) -> Iterator[tuple[str, str]]:
    for name in _CONTROL_FILES:
        paths = (debian / f"{package}.{name}", *([debian / name] if alone else []))
        texts = (_control_file(path, debian) for path in paths)
        text = next((text for text in texts if text is not None), None)
        if text is not None:
            yield name, text
