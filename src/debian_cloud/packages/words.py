# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare the arguments of verbs and steps that say where packages come from, and read them into `Places`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.packages import origin
from debian_cloud.packages.origin import Places

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.sources import Source


def add_places(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare the options that say where packages come from; return their group, to which callers can add others."""
    group = parser.add_argument_group("sources of packages")
    group.add_argument("--mirror", default="", metavar="URL", help="Debian mirror (default: this machine's apt's)")
    group.add_argument("--security-mirror", default="", metavar="URL", help="mirror of Debian's security updates")
    group.add_argument(
        "--allow-expired",
        action="store_true",
        help="accept Debian's indexes after their Valid-Until, as for a snapshot",
    )
    group.add_argument("--archive", default="", metavar="URL", help="archive of image configurations")
    group.add_argument("--keyring", default="", metavar="FILE", help="keys that may sign the archive's InRelease")
    return group


def add_source(
    group: argparse._ActionsContainer, use: str = "also take packages that Debian does not have from this source"
) -> None:
    """Declare the option for other sources of packages, each signed by its own keys; `use` says what they are for."""
    group.add_argument(
        "--source",
        type=origin.other_sources,
        action="append",
        default=[],
        metavar="FILE.sources",
        help=f"{use} (sources.list(5)); repeatable",
    )


def places(args: argparse.Namespace) -> Places:
    """Return where packages come from, by the options of `add_places` and those that were added to its group."""
    return Places(
        mirror=args.mirror,
        security_mirror=args.security_mirror,
        expired=args.allow_expired,
        archive=args.archive,
        keyring=Path(args.keyring) if args.keyring else None,
        snapshot=getattr(args, "snapshot", ""),
        others=others(args),
        offline=getattr(args, "offline", False),
    )


def others(args: argparse.Namespace) -> tuple[tuple[Source, tuple[str, ...]], ...]:
    """Return the other sources (`add_source`), each with the architectures that it is for."""
    # Each --source gives a tuple of sources.
    return tuple(source for file in getattr(args, "source", ()) for source in file)
