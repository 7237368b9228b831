# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the images of configurations only from signed packages.

apt resolves the configuration package from Debian and from the archive of
configurations, each verified by its own key. The result is
a disk that boots by BIOS and by UEFI, with a .buildinfo that names each package
with version and SHA-256, and a .changes to sign (debsign(1)) and upload
(dput(1)). Neither root, loop devices nor KVM are needed; nothing is left behind
if the build fails or is interrupted.

If DIR has these files already, made by the same plan and not written to since,
nothing is done.

Archives are reached as this machine's apt reaches them: by its proxies and
certificates (apt.conf(5)), and with its credentials (apt_auth.conf(5)). None of
that is in the image or its .buildinfo.

With --source, packages that Debian does not have may also come from another
archive, which must be signed by the keys that its Signed-By names
(sources.list(5)). Packages that Debian or the archive of configurations has never
come from there. Such an image is not official; its .buildinfo names the source and
its signers, and the image's own apt does not use that source.

With --snapshot the archive is used as it was published under that id, and Debian's
packages come from its mirror as it is now. Debian has snapshots of its own: name
one by --mirror and --security-mirror, with --allow-expired.

With several configurations, or several suites separated by commas, the images are
built at once, as many as there are processors and memory, or --jobs. What they
share is installed once. If one fails, the others go on.

The root file system as it is after each stage of the installation is kept in the
cache, and other builds continue from there. --cache-size bounds what these layers
take; with 0, none is used or kept. Where there is room, the root file system is
made in memory, unless the variable DEBIAN_CLOUD_TREE_ON_DISK is set, or the build may
still run at the user's last logout, when logind(8) removes it.

No other user may be able to rename or exchange DIR: programs of the build run there.

With --offline, no network is used: what a build has fetched before is in the cache
(see the verb cache), and is verified as if it had come now; if an index or a package is
not there, or an index is too old, it is named. Sources on this machine are read anew.
The image is the same.

With --timings, a table on standard error shows what each step cost: seconds of
wall time, and of CPU time (user and system) of all its processes. It ends with the
packages that took longest to install, in seconds of wall time; --json has all.

    debian-cloud build ec2 --output images
    debian-cloud build generic --add vim,htop --format qcow2
    debian-cloud build ec2 azure gce --suite trixie,bookworm --output images
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from debian_cloud import names
from debian_cloud.build import several
from debian_cloud.cli import options
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import progress
from debian_cloud.host.timing import Timing
from debian_cloud.text.printable import paragraph, printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.build.request import BuildRequest
    from debian_cloud.build.several import Image

_SLOWEST: Final = 10
"""Packages that the table shows."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_request(parser, several=True)
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="how many images to build at once")
    options.add_cache_size(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--timings", action="store_true", help="print what each step cost, in seconds")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    output: Path = args.output.resolve()
    asked = _asked(options.build_request(args), args)
    bound = options.cache_size(args)
    if len(asked) == 1:
        image = several.one(next(iter(asked.values())), output, bound, progress.shown(quiet=args.quiet))
        if not image.new and not args.quiet:
            print("debian-cloud: nothing has changed since these files were made", file=sys.stderr)
        facts = _facts(image, output, timings=args.timings)
        print(json.dumps(facts, indent=2) if args.json else _files(image, output))
        if args.timings:
            print(_table(image), file=sys.stderr)
        return 0
    return _several(asked, output, bound, args)


def _asked(first: BuildRequest, args: argparse.Namespace) -> dict[str, BuildRequest]:
    """Return the request for each image, by a name that tells it from the others."""
    suites = tuple(dict.fromkeys(names.word(suite, "suite") for suite in args.suite.split(",")))
    asked = {
        name if len(suites) == 1 else f"{name}/{suite}": replace(first, config=name, suite=suite)
        for suite in suites
        for name in map(names.config, args.configs)
    }
    if args.jobs < 0:
        raise Error("--jobs cannot be negative", "give how many images to build at once", USAGE)
    if args.lock and len(asked) > 1:
        raise Error("the lock is of one image", "give one configuration and one suite with --lock", USAGE)
    return asked


def _several(asked: dict[str, BuildRequest], output: Path, bound: int, args: argparse.Namespace) -> int:
    """Build several images at once; return the exit status, which is not 0 if one failed."""
    board = progress.Board(tuple(asked), quiet=args.quiet)
    found = several.build(asked, output, bound, args.jobs, board)
    made = {name: outcome.value for name, outcome in found.items() if outcome.error is None}
    failed = {name: outcome.error for name, outcome in found.items() if outcome.error is not None}
    if args.json:
        facts = [_facts(image, output, timings=args.timings) for image in made.values()]
        errors = {name: {"error": error.message, "hint": error.hint} for name, error in failed.items()}
        print(json.dumps({"images": facts, "failed": errors}, indent=2))
    else:
        for image in made.values():
            print(_files(image, output))
    if args.timings:
        for name, image in made.items():
            print(f"{name}:\n{_table(image)}", file=sys.stderr)
    for name, error in failed.items():
        print(f"debian-cloud: error: {name}: {paragraph(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"debian-cloud: hint: {paragraph(error.hint)}", file=sys.stderr)
    return max((error.status for error in failed.values()), default=0)


def _files(image: Image, output: Path) -> str:
    return "\n".join(str(output / name) for name in image.files)


def _facts(image: Image, output: Path, *, timings: bool) -> dict[str, Any]:
    files = {name.removeprefix(f"{image.stem}."): str(output / name) for name in image.files}
    found: dict[str, Any] = {"stem": image.stem, "plan": image.plan, "new": image.new, "files": files}
    if timings:
        found |= {name: [asdict(one) for one in getattr(image, name)] for name in ("timings", "packages")}
    return found


def _table(image: Image) -> str:
    """The cost of each step and of all together, one on a line; then the slowest packages."""
    timings, slowest = image.timings, image.packages[:_SLOWEST]
    total = Timing("total", sum(timing.seconds for timing in timings), sum(timing.cpu for timing in timings))
    lines = [f"{'seconds':>9}{'CPU':>9}  step"]
    lines += [f"{one.seconds:>9.2f}{one.cpu:>9.2f}  {printable(one.title)}" for one in (*timings, total)]
    if slowest:
        lines += ["", f"{'unpack':>9}{'configure':>11}  package"]
    lines += [f"{one.unpack:>9.2f}{one.configure:>11.2f}  {printable(one.name)}" for one in slowest]
    return "\n".join(lines)
