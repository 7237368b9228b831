# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove from a root file system what each machine creates for itself, and find secrets.

TREE is the root file system in a build's workspace, before it is packed: all users
of the image can read all of it. Secrets and identities that packages created at
installation are removed, if each machine creates them again at its first boot;
/var/lib/debian-cloud/renew then lists their packages. Any other secret, by its path or
by its content, in the tree or in its initrd, is an error. A plan
calls this as root of a namespace.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.build import scrub
from debian_cloud.errors import Error

if TYPE_CHECKING:
    import argparse

_SHOWN = 10
"""Maximum number of findings that are listed; the others are counted."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("tree", type=Path, metavar="TREE", help="a root file system")
    parser.add_argument("--keep", action="append", default=[], metavar="PATH", help="a path that may be public")
    parser.add_argument("--drop", action="append", default=[], metavar="PATH", help="a path to remove")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    keep, drop = ([path.lstrip("/") for path in paths] for paths in (args.keep, args.drop))
    done = scrub.scrub(args.tree, keep, drop)
    for path in done.removed:
        print(f"removed: {scrub.shown(path)}")
    if not done.secrets:
        return 0
    told = "".join(f"\n  {finding}" for finding in done.secrets[:_SHOWN])
    more = len(done.secrets) - _SHOWN
    raise Error(
        "all users of the image could read secrets that belong to one machine:"
        f"{told}{f' (and {more} more)' if more > 0 else ''}",
        "omit the package; or, in a configuration of your own, name paths that a service creates on each machine in"
        " Image-Drop-Secrets, and paths that may be public in Image-Keep-Secrets (or with --keep-secrets)",
    )
