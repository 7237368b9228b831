# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that several verbs share: declared, and read into plain values. No verb."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.build import request, store
from debian_cloud.build.request import BuildRequest
from debian_cloud.image import config
from debian_cloud.image.custom import Custom, custom
from debian_cloud.packages import described, origin, words
from debian_cloud.proof.trust import Trust
from debian_cloud.text import sizes

if TYPE_CHECKING:
    import argparse


def add_request(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Declare the arguments of a build request, or of `several` requests that differ in configuration and suite."""
    if several:
        parser.add_argument("configs", nargs="+", metavar="CONFIG", help="image configurations, such as ec2")
    else:
        parser.add_argument("config", metavar="CONFIG", help="an image configuration, such as ec2")
    add_offline(add_sources(parser))
    parser.add_argument("--format", default="", metavar="LIST", help="formats, separated by commas: raw,qcow2")
    parser.add_argument(
        "--lock", type=Path, metavar="FILE", help="an image's .buildinfo: use exactly its packages, or fail"
    )
    parser.add_argument(
        "--serial",
        default="",
        help="YYYYMMDD.N (default: the day of the newest package index and 0, or another number if not official)",
    )
    group = add_changes(parser)
    group.add_argument(
        "--seed", default="", metavar="FILE", help="answers to debconf, as debconf-set-selections(1) reads them"
    )
    group.add_argument("--hostname", default="", metavar="NAME", help="/etc/hostname of the image")
    group.add_argument(
        "--keep-secrets", default="", metavar="LIST", help="paths that anyone may read, separated by commas"
    )


def add_cache_size(parser: argparse.ArgumentParser) -> None:
    """Declare the bound of the layers in the cache."""
    parser.add_argument(
        "--cache-size",
        default=sizes.in_words(store.BOUND),
        metavar="SIZE",
        help=f"what the layers in the cache may take (default: {sizes.in_words(store.BOUND)})",
    )


def cache_size(args: argparse.Namespace) -> int:
    """The bound that the arguments give, in bytes (`add_cache_size`)."""
    return config.amount(args.cache_size, "--cache-size")


def build_request(args: argparse.Namespace) -> BuildRequest:
    """The build request that the arguments give (`add_request`)."""
    return replace(
        resolve_request(args),
        formats=tuple(dict.fromkeys(name for name in args.format.split(",") if name)),
        serial=args.serial,
        lock=described.of(args.lock) if args.lock else None,
    )


def resolve_request(args: argparse.Namespace) -> BuildRequest:
    """The request that the arguments give, to be resolved but not built (`add_sources`, `add_changes`)."""
    config = args.config if "config" in args else args.configs[0]
    return BuildRequest(config, args.suite, args.arch, changes=_changes(args), places=words.places(args))


def add_changes(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare the changes that a user may make to the packages; the group, for further changes."""
    group = parser.add_argument_group("changes for a test; such an image is not official, and its record says so")
    group.add_argument(
        *("--add",),
        default="",
        metavar="LIST",
        help="additional packages, separated by commas: vim,htop; the disk may need a larger --size",
    )
    group.add_argument(
        "--remove", default="", metavar="LIST", help="packages to omit, if no other package needs them"
    )
    group.add_argument("--size", default="", metavar="SIZE", help="another size of the disk: 12G")
    words.add_source(group)
    return group


def _changes(args: argparse.Namespace) -> Custom:
    # `show` declares fewer of them.
    seed, hostname, keep = (getattr(args, name, "") for name in ("seed", "hostname", "keep_secrets"))
    text = request.seed_text(Path(seed)) if seed else ""
    return custom(args.add, args.remove, text, hostname, keep, args.size)


def add_sources(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare the sources of packages, and their suite; the group, for further options."""
    add_suite(parser)
    group = words.add_places(parser)
    group.add_argument(
        "--snapshot",
        default="",
        metavar="ID",
        help="use the archive as published under this id; Debian's packages still come from --mirror",
    )
    return group


def add_offline(group: argparse._ArgumentGroup) -> None:
    """Declare the option to use no network."""
    group.add_argument(
        "--offline", action="store_true", help="use no network: indexes and packages come from the cache"
    )


def add_closure(parser: argparse.ArgumentParser) -> None:
    """Declare the location of an image's closure."""
    group = parser.add_argument_group("sources of its packages")
    group.add_argument("--closure", default="", metavar="URL", help="the image's closure (default: in the archive)")
    group.add_argument("--archive", default="", metavar="URL", help="archive of image configurations")
    group.add_argument("--keyring", default="", metavar="FILE", help="keys that may sign the archive's InRelease")


def add_suite(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare suite and architecture."""
    parser.add_argument("--suite", default=origin.DEFAULT_SUITE, help="Debian suite (default: %(default)s)")
    parser.add_argument("--arch", default="", help="Debian architecture (default: this machine's)")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Declare the conditions on which a .buildinfo is trusted (`trust`)."""
    group = parser.add_argument_group("which .buildinfo is accepted")
    group.add_argument(
        "--signed-by", type=Path, metavar="FILE", help="keys of which one must have signed the .buildinfo"
    )
    group.add_argument("--unsigned", action="store_true", help="accept a .buildinfo that is not signed")
    group.add_argument("--mirror", default="", metavar="URL", help="a mirror of Debian that the image may use")
    group.add_argument(
        "--security-mirror", default="", metavar="URL", help="a mirror of its security updates that it may use"
    )
    group.add_argument(
        "--allow-expired", action="store_true", help="the image may accept indexes after their Valid-Until"
    )


def trust(args: argparse.Namespace) -> Trust:
    """The keys and sources that are trusted for an image (`add_trust`, and a `--keyring`)."""
    return Trust(
        keyring=Path(args.keyring) if args.keyring else None,
        signed_by=args.signed_by,
        unsigned=args.unsigned,
        mirrors=(args.mirror, args.security_mirror),
        expired=args.allow_expired,
        others=tuple(source for source, _ in words.others(args)),
    )
