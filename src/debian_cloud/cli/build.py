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

    debian-cloud build ec2 --output images
    debian-cloud build generic --add vim,htop --format qcow2
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.build import workspace
from debian_cloud.cli import options

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_request(parser)
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    output: Path = args.output.resolve()
    built = workspace.build(options.build_request(args), output, quiet=args.quiet)
    planned = built.planned
    if not built.new and not args.quiet:
        print("debian-cloud: nothing has changed since these files were made", file=sys.stderr)
    if args.json:
        files = {name.removeprefix(f"{planned.stem}."): str(output / name) for name in planned.outputs}
        print(json.dumps({"stem": planned.stem, "plan": planned.id, "new": built.new, "files": files}, indent=2))
    else:
        for name in planned.outputs:
            print(output / name)
    return 0
