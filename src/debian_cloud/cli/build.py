# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the image of a configuration only from signed packages.

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

With --offline, no network is used: what a build has fetched before is in the cache
(see the verb cache), and is verified as if it had come now; if an index or a package is
not there, or an index is too old, it is named. Sources on this machine are read anew.
The image is the same.

With --timings, a table on standard error shows what each step cost: seconds of
wall time, and of CPU time (user and system) of all its processes.

    debian-cloud build ec2 --output images
    debian-cloud build generic --add vim,htop --format qcow2
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debian_cloud.build import workspace
from debian_cloud.cli import options
from debian_cloud.host.timing import Timing
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_request(parser)
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--timings", action="store_true", help="print what each step cost, in seconds")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    output: Path = args.output.resolve()
    built = workspace.build(options.build_request(args), output, quiet=args.quiet)
    planned = built.planned
    if not built.new and not args.quiet:
        print("debian-cloud: nothing has changed since these files were made", file=sys.stderr)
    if args.json:
        files = {name.removeprefix(f"{planned.stem}."): str(output / name) for name in planned.outputs}
        found: dict[str, Any] = {"stem": planned.stem, "plan": planned.id, "new": built.new, "files": files}
        if args.timings:
            found["timings"] = [asdict(timing) for timing in built.timings]
        print(json.dumps(found, indent=2))
    else:
        for name in planned.outputs:
            print(output / name)
    if args.timings:
        print(_table(built.timings), file=sys.stderr)
    return 0


def _table(timings: tuple[Timing, ...]) -> str:
    """The cost of each step and of all together, one on a line."""
    total = Timing("total", sum(timing.seconds for timing in timings), sum(timing.cpu for timing in timings))
    lines = [f"{'seconds':>9}{'CPU':>9}  step"]
    lines += [f"{one.seconds:>9.2f}{one.cpu:>9.2f}  {printable(one.title)}" for one in (*timings, total)]
    return "\n".join(lines)
