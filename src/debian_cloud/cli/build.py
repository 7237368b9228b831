# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the image of a configuration from signed packages alone.

apt resolves the configuration package, the only one asked for, from Debian and
from the archive of configurations, each verified by its own key. The result is
a disk that boots by BIOS and by UEFI, with a .buildinfo that names each package
with version and SHA-256, and a .changes to sign (debsign(1)) and upload
(dput(1)). Neither root, loop devices nor KVM are needed; nothing is left behind
when it fails or is interrupted.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import planning, run
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.progress import Progress

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    planning.arguments(parser)
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="where the files go (default: here)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    planned = planning.planned(args)
    output: Path = args.output.resolve()
    _refuse_existing(output, planned.outputs)
    _make(output)
    _refuse_full(output, planned)
    workspace = output / f".{planned.stem}.build"
    with run.ending_politely(), run.locked(workspace, f"the build of {planned.stem} in {output}") as lock:
        try:
            # What a killed build of the same image left is of no use: ours is the lock.
            run.empty(workspace)
            run.carry_out(planned.plan, workspace, Progress(len(planned.plan), quiet=args.quiet), lock)
            with run.undisturbed():
                _refuse_existing(output, planned.outputs)
                for name in planned.outputs:
                    (workspace / name).rename(output / name)
        finally:
            with run.undisturbed():
                run.remove(workspace)
    if args.json:
        files = {name.removeprefix(f"{planned.stem}."): str(output / name) for name in planned.outputs}
        print(json.dumps({"stem": planned.stem, "plan": planned.id, "files": files}, indent=2))
    else:
        for name in planned.outputs:
            print(output / name)
    return 0


def _make(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(
            f"nothing can be written to {output}: {error.strerror}", "choose another folder with --output", USAGE
        ) from None


def _refuse_existing(output: Path, outputs: tuple[str, ...]) -> None:
    for name in outputs:
        if (output / name).exists() or (output / name).is_symlink():
            raise Error(f"{output / name} exists already", "remove it, or choose another --output or --serial", USAGE)


def _refuse_full(output: Path, planned: planning.Planned) -> None:
    # The tree, the disk made of it, and its compressed form with the .debs before it.
    needed = planned.resolution.installed_size * 5 // 2
    free = shutil.disk_usage(output).free
    if free < needed:
        raise Error(
            f"the disk is full: {output} has {free >> 20} MiB free, the build needs about {needed >> 20}",
            "free some space, or choose another place with --output",
            FAILED,
        )
