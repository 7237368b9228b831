# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a planned image in a separate directory, and rename it into place when it is complete.

The directory is beside the output, locked by its builder and by every process of its steps. It is always removed; the
next build empties what a killed build left, once the last process of that has ended.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.build import layers, request, store
from debian_cloud.build.scripts import install
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host import files, folders, memory, run, signals
from debian_cloud.host.progress import say
from debian_cloud.host.timing import PackageTiming, Timing, timed
from debian_cloud.packages import described
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debian_cloud.build.request import BuildRequest, Planned
    from debian_cloud.host.progress import Begin

_COMPLETE: Final = "complete"
"""File of the workspace with the id of the plan, and whether layers were used, once all files are made."""
_NO_NAME: Final = re.compile(r"[\x00-\x1f\x7f\"]")


@dataclass(frozen=True, slots=True)
class Built:
    """What was planned, and the cost of each step: the first is planning itself.

    `new` is whether the files were made now: the same plan may have made them before. `packages` are those that were
    installed now, the slowest first.
    """

    planned: Planned
    new: bool
    timings: tuple[Timing, ...]
    packages: tuple[PackageTiming, ...] = ()


def build(asked: BuildRequest, output: Path, begin: Begin, *, bound: int = store.BOUND) -> Built:
    """Make the files of the requested image in a directory, all or none, unless they are there already.

    `begin` and `bound` are as for `make`.
    """
    # Check this before anything is fetched.
    run.check_namespace()
    planning: list[Timing] = []
    with timed("read the indexes and resolve", planning):
        planned = request.planned(asked)
    if is_made(planned, output):
        return Built(planned, new=False, timings=(*planning,))
    steps, packages = make(planned, output.resolve(), begin, bound=bound)
    return Built(planned, new=True, timings=(*planning, *steps), packages=packages)


def is_made(planned: Planned, output: Path) -> bool:
    """Return whether a directory has all planned files, as the same plan has left them.

    A file of another size, or that was written to after its .buildinfo, counts as changed: for example a disk that
    was booted. So does a file that another user owns or can write to: the digests are not computed again.
    """
    try:
        file = output / f"{planned.stem}.buildinfo"
        made, buildinfo = file.lstat(), described.of(file)
        found = {name: (output / name).lstat() for name in planned.outputs}
    except (OSError, Error):
        return False
    return (
        buildinfo.plan == planned.id
        and all(
            stat.S_ISREG(one.st_mode) and one.st_uid == os.geteuid() and not one.st_mode & 0o022
            for one in (made, *found.values())
        )
        and all(
            name in found and found[name].st_size == size and found[name].st_mtime_ns <= made.st_mtime_ns
            for name, (_, size) in buildinfo.digests.items()
        )
    )


def make(
    planned: Planned, output: Path, begin: Begin, *, bound: int = store.BOUND
) -> tuple[tuple[Timing, ...], tuple[PackageTiming, ...]]:
    """Make the planned files in a directory, all or none; return the cost of each step, and of packages (`Built`).

    `begin` gives the progress to report to, for a number of steps.
    Layers in the cache are used, and kept there up to `bound` bytes; if it is 0, none are. Raise Error if one of the
    files already exists.
    """
    _refuse_name(output)
    make_output(output)
    workspace = output / f".{planned.stem}.build"
    with signals.ending_politely(), folders.locked(workspace, f"the build of {planned.stem} in {output}") as lock:
        try:
            # Who can rename a directory above it can put other programs in the place of the plan's.
            files.refuse_changeable(workspace, "what is run there", "build in a directory of your own, as its owner")
            if not _is_complete(planned, workspace, output, bound):
                _refuse_existing(output, planned.outputs)
                # Files that a killed build of the same image left are of no use: we hold the lock.
                folders.empty(workspace)
                _refuse_full(output, planned)
                with memory.tree(workspace, planned.resolution.installed_size) as tree:
                    timings = _carried_out(planned, workspace, lock, tree, begin, bound)
                packages = _packages(workspace)
            else:
                timings, packages = (), ()
            with signals.undisturbed():
                _put_in_place(planned, workspace, output, bound)
        finally:
            with signals.undisturbed():
                folders.remove(workspace)
    return timings, packages


@contextlib.contextmanager
def scratch(stem: str) -> Iterator[Path]:
    """Yield a directory here for an image that is made again and not kept; it is removed at the end.

    Files that a killed run left in it are removed, too; what its build left, the next build removes.
    """
    place = Path(f".{stem}.again").resolve()
    with folders.locked(place, printable(str(place)), wait=True):
        try:
            for left in place.iterdir():
                if not left.is_dir() or left.is_symlink():
                    left.unlink()
            yield place
        finally:
            with signals.undisturbed():
                folders.remove(place)


def _is_complete(planned: Planned, workspace: Path, output: Path, bound: int) -> bool:
    """Return whether a killed build of the same plan had made all files, and was putting them in place.

    One that used layers is of no use for a build that must not.
    """
    try:
        found = (workspace / _COMPLETE).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return False
    if found not in {_complete(planned, 0), _complete(planned, bound)}:
        return False
    return all(any((place / name).exists() for place in (workspace, output)) for name in planned.outputs)


def _complete(planned: Planned, bound: int) -> str:
    return f"{planned.id} with layers" if bound else planned.id


def _put_in_place(planned: Planned, workspace: Path, output: Path, bound: int) -> None:
    """Move the files to the output; if it is killed, the next build goes on with the rest."""
    _refuse_existing(output, tuple(name for name in planned.outputs if (workspace / name).exists()))
    (workspace / _COMPLETE).write_text(_complete(planned, bound), "ascii")
    for name in planned.outputs:
        if (workspace / name).exists():
            (workspace / name).rename(output / name)


def _carried_out(
    planned: Planned, workspace: Path, lock: int, tree: memory.Tree | None, begin: Begin, bound: int
) -> tuple[Timing, ...]:
    """Carry out a plan, from the last of its layers that is in the cache."""
    # Of all parts, before the first begins.
    run.check_tools(planned.steps)
    locks = (lock, *((tree.lock,) if tree else ()))
    place = tree.path if tree else None
    ids = layers.of(planned.steps)
    if not bound or not ids:
        return run.carry_out(planned.steps, workspace, begin(len(planned.steps)), locks, place)
    reason = workspace / store.NOT_KEPT
    with store.opened(bound) as kept:
        parts = layers.parts(planned.steps, str(kept.place), kept.begin(ids))
        progress = begin(sum(len(part.steps) for part in parts))
        timings: list[Timing] = []
        for part in parts:
            timings += run.carry_out(part.steps, workspace, progress, (*locks, *kept.locks), place)
            if part.layer:
                kept.made(part.layer)
            if reason.exists():
                # None of the later ones will be kept: nobody need wait for them.
                kept.give_up()
    if reason.exists():
        why = printable(reason.read_text("utf-8"))
        say(f"debian-cloud: other builds cannot continue from this one: {why}\n")
    return (*timings,)


def _packages(workspace: Path) -> tuple[PackageTiming, ...]:
    """Read what the installer has noted of each package."""
    note = workspace / install.SECONDS
    unpack, configure = dict[str, float](), dict[str, float]()
    for line in note.read_text("ascii").splitlines() if note.exists() else ():
        action, seconds, name = line.split()
        found = unpack if action in {"unpack", "install", "upgrade"} else configure
        found[name] = found.get(name, 0) + float(seconds)
    timings = (PackageTiming(name, unpack.get(name, 0), configure.get(name, 0)) for name in {**unpack, **configure})
    return tuple(sorted(timings, key=lambda timing: -timing.seconds))


def make_output(output: Path) -> None:
    """Make the directory for results, if needed; raise Error if it cannot be written to."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise Error(
            f"{output} cannot be written to: {error.strerror}", "choose another directory with --output", USAGE
        ) from None


def _refuse_name(output: Path) -> None:
    """Raise Error if a directory's name has characters that programs of a plan may read or print otherwise."""
    if bad := _NO_NAME.search(str(output)):
        raise Error(
            f"no image can be built in {printable(str(output))}: its name has {printable(bad[0])!r}",
            "choose another directory",
            USAGE,
        )


def _refuse_existing(output: Path, outputs: tuple[str, ...]) -> None:
    for name in outputs:
        if (output / name).exists() or (output / name).is_symlink():
            raise Error(f"{output / name} exists already", "remove it, or choose another --output or --serial", USAGE)


def _refuse_full(output: Path, planned: Planned) -> None:
    # Room for the tree, the disk made of it, and its compressed form, or the .debs before that.
    needed = planned.resolution.installed_size * 5 // 2
    free = shutil.disk_usage(output).free
    if free < needed:
        raise Error(
            f"the disk is full: {output} has {free >> 20} MiB free, but the build needs about {needed >> 20}",
            "free some space, or choose another place with --output",
            FAILED,
        )
