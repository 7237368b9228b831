# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of a mirror: what it shows, what was fetched and is not shown yet, and its own state.

```
DEST/dists pool images rebuilds closures    what is shown
DEST/project/trace                          when this host and the archive were here last
DEST/.mirror/incoming/                      what was fetched, at its path in the tree
DEST/.mirror/work/                          files that a run needs only while it runs
DEST/.mirror/SUITE.files                    verified files, "SHA256 SIZE PATH", and "link TARGET PATH"
DEST/.mirror/SUITE.shown                    what the last complete run for a suite has shown
DEST/.mirror/left                           since when no index lists a file, "SECONDS PATH"
DEST/.mirror/terms                          how long signatures are good, and until when, both in seconds
```

An operator may have other file systems in the tree, or links to directories outside: they are followed and kept. A
link to another place in the tree is not followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.host import run
from debian_cloud.mirror import LocalError
from debian_cloud.mirror.listed import UNKNOWN, Listed, is_clean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

SHOWN: Final = ("dists", "pool", "images", "rebuilds", "closures")
"""The parts of the tree that the indexes list."""
_STATE: Final = ".mirror"
_CURRENT: Final = "current"
_DEEPEST: Final = 16
"""Maximum depth of a path in the tree, so that a link into itself ends."""
_REMOVE: Final = "remove it; nothing was changed"
_BATCH: Final = 256
"""Maximum number of files that a thread hashes before it takes others."""
_PIECE: Final = 2**20
_FILES: Final = ".files"
MARK: Final = ".shown"
"""End of the name of the file that says what a complete run has shown."""
_NEW: Final = ".new"
_LOST: Final = "lost+found"
_READERS: Final = 8
"""Maximum number of files that are hashed at once."""


@dataclass(slots=True)
class Entries:
    """What a directory tree has: sizes of files, targets of links that are not followed, and directories.

    `outside` are the links to directories outside the tree, and `halves` the files that a killed run has left.
    """

    files: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    outside: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tree:
    """The directory of a mirror; `below` is the path of the source's tree in its rsync module."""

    dest: Path
    below: str = ""

    @property
    def state(self) -> Path:
        """The directory of the mirror's own files."""
        return self.dest / _STATE

    @property
    def work(self) -> Path:
        """A directory for working files of a run."""
        return self.state / "work"

    @property
    def incoming(self) -> Path:
        """The directory of the files that are not shown yet."""
        return self.state / "incoming" / self.below

    def prepare(self) -> None:
        """Make the directories, and remove what an earlier run must not leave to this one."""
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in ("dists", "project"):
            _remove(self.incoming / folder)
        for path in (self.work, self.incoming, *(self.dest / name for name in SHOWN)):
            path.mkdir(parents=True, exist_ok=True)

    def end(self, *, everything: bool = True) -> None:
        """Remove what a complete run needs no longer: with `everything`, also what was fetched and not shown."""
        for path in (*(self.state / "incoming").iterdir(),) if everything else ():
            _remove(path)
        _remove(self.work)

    def clear(self, path: str) -> None:
        """Remove what is staged at a path."""
        _remove(self.incoming / path)

    def shown(self) -> Entries:
        """What the tree shows."""
        found = Entries()
        root = self.dest.resolve()
        for name in SHOWN:
            _walk(f"{self.dest}/{name}", name, found, root)
        return found

    def staged(self) -> dict[str, int]:
        """Path -> size of each file that is not shown yet; what is no file of a clean name is removed."""
        found = Entries()
        _walk(str(self.incoming), "", found, self.incoming.resolve())
        for path in [*found.links, *(path for path in found.files if not is_clean(path))]:
            (self.incoming / path).unlink(missing_ok=True)
            found.files.pop(path, None)
        return found.files

    def known(self) -> tuple[dict[str, str], dict[str, str]]:
        """Path -> SHA-256 of each file that was shown, and path -> target of each link; of all suites."""
        files: dict[str, str] = {}
        links: dict[str, str] = {}
        for place in self._lists():
            with place.open(encoding="utf-8", errors="surrogateescape") as lines:
                for line in lines:
                    word, _, rest = line.partition(" ")
                    second, _, path = rest.rstrip("\n").partition(" ")
                    if word == "link":
                        links[path] = second
                    elif path:
                        files[path] = word
        return files, links

    def remember(self, suite: str, files: Iterable[Listed], links: Mapping[str, str]) -> None:
        """Write the list of a suite."""
        with (self.work / "list").open("w", encoding="utf-8") as out:
            for file in files:
                out.write(f"{file.sha256 or '-'} {file.size if file.size != UNKNOWN else '-'} {file.path}\n")
            out.writelines(f"link {target} {path}\n" for path, target in links.items())
        (self.work / "list").replace(self.state / f"{suite}{_FILES}")

    def forget(self) -> None:
        """Remove the lists of suites that an operator has removed."""
        for path in self._dropped():
            (self.state / f"{path.name.removesuffix(_FILES)}{MARK}").unlink(missing_ok=True)
            path.unlink()

    def has_dropped(self) -> bool:
        """Whether an operator has removed a suite, whose list is still there."""
        return bool(self._dropped())

    def places(self, staged: Mapping[str, int]) -> Callable[[str], str]:
        """A function that gives the place of a file: staged, or else shown."""
        into, out = f"{self.incoming}/", f"{self.dest}/"
        return lambda path: (into if path in staged else out) + path

    def stage(self, path: str, name: str) -> None:
        """Copy a file, staged or shown, to the place of another staged one."""
        source, target = self.incoming / path, self.incoming / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source if source.is_file() else self.dest / path, target)

    def put(self, paths: Iterable[str]) -> None:
        """Rename staged files to their places, each in one step."""
        # Text instead of Path: a large archive has a hundred thousand files.
        into, out = f"{self.incoming}/", f"{self.dest}/"
        folders: set[str] = set()
        for path in paths:
            source, target, folder = into + path, out + path, path.rpartition("/")[0]
            found = os.stat(source)  # noqa: PTH116 - see above
            if stat.S_IMODE(found.st_mode) != 0o644:
                os.chmod(source, 0o644)  # noqa: PTH101 - see above
            # apt asks only for what is newer: a time in the future would hide all later versions.
            if found.st_mtime > time.time():
                os.utime(source)
            if folder not in folders:
                folders.add(folder)
                (self.dest / folder).mkdir(parents=True, exist_ok=True)
            try:
                os.replace(source, target)  # noqa: PTH105 - see above
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy(Path(source), Path(target))

    def link(self, path: str, name: str) -> None:
        """Give a shown file a second name, in one step."""
        source, target = self.dest / path, self.dest / name
        beside = _beside(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.hardlink_to(source)
        except OSError:
            shutil.copy2(source, beside)
        beside.replace(target)
        # rename(2) leaves both names if they are already of one file.
        beside.unlink(missing_ok=True)

    def point(self, path: str, target: str) -> None:
        """Let a link lead to what is beside it, in one step."""
        link = self.dest / path
        with contextlib.suppress(OSError):
            if str(link.readlink()) == target:
                return
        beside = _beside(link)
        beside.symlink_to(target)
        beside.replace(link)

    def sync(self) -> None:
        """Write everything to the disk: a power failure must not leave an InRelease without its files."""
        run.output(("sync", "-f", *(str(self.dest / name) for name in SHOWN)))

    def _lists(self) -> list[Path]:
        return sorted(self.state.glob(f"*{_FILES}"))

    def _dropped(self) -> list[Path]:
        suites = self.dest / "dists"
        return [
            path for path in self._lists() if not (suites / path.name.removesuffix(_FILES) / "InRelease").exists()
        ]


def refuse_folders(wanted: Collection[str], links: Iterable[str], there: Entries) -> None:
    """Raise Error if a directory is where a file or a link must be, or a file where a directory must be."""
    for path in (*wanted, *links):
        if path in there.folders:
            raise LocalError(f"the mirror has a directory {path}, which is a file in the archive", _REMOVE)
    known: set[str] = set()
    for path in wanted:
        folder = path.rpartition("/")[0]
        while folder and folder not in known:
            known.add(folder)
            if folder in there.files or folder in there.links:
                raise LocalError(f"the mirror has a file {folder}, which is a directory in the archive", _REMOVE)
            folder = folder.rpartition("/")[0]


def hashes(paths: Sequence[str], place: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Path and SHA-256 of each file that can be read; "" for another. `place` gives the file of a path."""

    def of(path: str) -> tuple[str, str]:
        try:
            return path, _hashed(place(path))
        except OSError:
            return path, ""

    # hashlib releases the interpreter's lock: threads use several processors. A thread for each file would take more
    # time than most files.
    readers = min(_READERS, os.cpu_count() or 1)
    batch = max(1, min(_BATCH, len(paths) // (4 * readers)))
    batches = [paths[start : start + batch] for start in range(0, len(paths), batch)]
    with ThreadPoolExecutor(readers) as pool:
        for found in pool.map(lambda some: [of(path) for path in some], batches):
            yield from found


def _hashed(place: str) -> str:
    # A FIFO must not block the run.
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        sha256 = hashlib.sha256()
        while data := os.read(descriptor, min(_PIECE, os.fstat(descriptor).st_size + 1)):
            sha256.update(data)
        return sha256.hexdigest()
    finally:
        os.close(descriptor)


def _copy(source: Path, target: Path) -> None:
    """The same if an operator has another file system at the target."""
    beside = _beside(target)
    shutil.copy2(source, beside)
    with beside.open("rb") as copy:
        os.fsync(copy.fileno())
    beside.replace(target)
    source.unlink()


def _beside(target: Path) -> Path:
    """A name beside a path that servers hide; what a killed run left there is removed."""
    beside = target.with_name(f".{target.name}{_NEW}")
    beside.unlink(missing_ok=True)
    return beside


def _walk(folder: str, name: str, found: Entries, root: Path, depth: int = 0) -> None:
    if depth > _DEEPEST:
        return
    if name:
        found.folders.add(name)
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            path = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name != _LOST:
                    _walk(entry.path, path, found, root, depth + 1)
            elif entry.name[0] == "." and entry.name.endswith(_NEW):
                found.halves.append(path)
            elif not entry.is_symlink():
                # What is no regular file has no size that is listed.
                found.files[path] = entry.stat().st_size if entry.is_file() else UNKNOWN - 1
            elif entry.name != _CURRENT and entry.is_dir() and not Path(entry.path).resolve().is_relative_to(root):
                found.outside.append(path)
                _walk(entry.path, path, found, root, depth + 1)
            else:
                found.links[path] = os.readlink(entry.path)  # noqa: PTH115 - as in `put`


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
