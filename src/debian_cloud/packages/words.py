# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments of verbs and steps that say where packages come from: declared, and read into `Places`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.packages import origin
from debian_cloud.packages.origin import Places

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.sources import Source


def add_places(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare where packages come from; the group, for what else decides that."""
    group = parser.add_argument_group("where packages come from")
    group.add_argument("--mirror", default="", metavar="URL", help="Debian mirror (default: this machine's apt's)")
    group.add_argument("--security-mirror", default="", metavar="URL", help="mirror of Debian's security updates")
    group.add_argument(
        "--allow-expired", action="store_true", help="take Debian's indexes past their Valid-Until, as of a snapshot"
    )
    group.add_argument("--archive", default="", metavar="URL", help="archive of image configurations")
    group.add_argument("--keyring", default="", metavar="FILE", help="keys that may sign the archive's InRelease")
    return group


def add_source(group: argparse._ActionsContainer) -> None:
    """Declare other sources of packages, each signed by keys of its own."""
    group.add_argument(
        "--source",
        type=origin.other_sources,
        action="append",
        default=[],
        metavar="FILE.sources",
        help="packages that Debian does not have from here, too (sources.list(5), with a Signed-By); repeatable",
    )


def places(args: argparse.Namespace) -> Places:
    """Where packages come from (`add_places`, and what else decides that)."""
    return Places(
        mirror=args.mirror,
        security_mirror=args.security_mirror,
        expired=args.allow_expired,
        archive=args.archive,
        keyring=Path(args.keyring) if args.keyring else None,
        snapshot=getattr(args, "snapshot", ""),
        others=others(args),
    )


def others(args: argparse.Namespace) -> tuple[tuple[Source, tuple[str, ...]], ...]:
    """The other sources (`add_source`), each with the architectures that it is for."""
    # One of these for each --source.
    return tuple(source for file in getattr(args, "source", ()) for source in file)
