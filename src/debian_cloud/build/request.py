# SPDX-License-Identifier: GPL-3.0-or-later
"""From the arguments of `plan` and `build` to the plan that both mean."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import formats, names
from debian_cloud.build import steps
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host import files, sign
from debian_cloud.image import sources
from debian_cloud.image.custom import Custom, custom
from debian_cloud.packages import evidence, options

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.lock import Lock
    from debian_cloud.image.resolution import Resolution
    from debian_cloud.plan import Plan


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, what it is for, and the names of the files that it leaves."""

    plan: Plan
    resolution: Resolution
    stem: str
    outputs: tuple[str, ...]

    @property
    def id(self) -> str:
        """What the .buildinfo names the plan by."""
        return steps.identity(self.plan)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that decide what is built."""
    parser.add_argument("config", metavar="CONFIG", help="an image configuration, such as ec2")
    options.add_sources(parser)
    parser.add_argument("--format", default="", metavar="LIST", help="disk formats, comma between them: raw,qcow2")
    parser.add_argument(
        "--lock", type=Path, metavar="FILE", help="an image's .buildinfo: take exactly its packages, or none"
    )
    parser.add_argument(
        "--serial",
        default="",
        help="YYYYMMDD.N (default: the day of the newest package index, .0; of a try, a number of its own)",
    )
    group = add_packages(parser)
    group.add_argument(
        "--seed", default="", metavar="FILE", help="answers to debconf, as debconf-set-selections(1) reads them"
    )
    group.add_argument("--hostname", default="", metavar="NAME", help="/etc/hostname of the image")
    group.add_argument(
        "--keep-secrets", default="", metavar="LIST", help="paths that everybody may have, comma between them"
    )


def locked(path: Path) -> Lock:
    """The lock in a .buildinfo, whoever signed it: a list of wishes, and of facts to those who verified it before."""
    return evidence.read(sign.text(path), str(path))


def described_by(file: Path) -> Path:
    """The .buildinfo of a file of an image: itself, or the one beside it; Error when there is none."""
    if file.suffix == ".buildinfo" or not file.exists():
        return file
    found = [path for path in file.parent.glob("*.buildinfo") if file.name.startswith(f"{path.stem}.")]
    if len(found) != 1:
        raise Error(
            f"{file} has no .buildinfo beside it",
            "give the image's .buildinfo, or put both into one directory",
            USAGE,
        )
    return found[0]


def add_belief(parser: argparse.ArgumentParser) -> None:
    """Declare what of a .buildinfo is believed."""
    group = parser.add_argument_group("what of its .buildinfo is believed")
    group.add_argument(
        "--signed-by", type=Path, metavar="FILE", help="keys, one of which must have signed the .buildinfo"
    )
    group.add_argument(
        "--unsigned", action="store_true", help="take the .buildinfo as it is: nobody need have signed it"
    )
    group.add_argument("--mirror", default="", metavar="URL", help="a mirror of Debian that the image may use")
    group.add_argument(
        "--security-mirror", default="", metavar="URL", help="a mirror of its security updates that it may use"
    )
    group.add_argument(
        "--allow-expired", action="store_true", help="the image may take indexes past their Valid-Until"
    )


def believed(args: argparse.Namespace, file: Path) -> evidence.Described:
    """A .buildinfo whose signature was verified, and whose image asks nobody but Debian (`add_belief`).

    `args.keyring` is from then on the keyring by which it was: of several archives that are known, that of the image.
    """
    found = _described(args, file, options.keyrings(args, _suite(file)))
    _refuse_sources(found.kept, args)
    return found


def _suite(file: Path) -> str:
    """Which suite an image says to be of, to decide whose keys are asked, and for nothing else; "" when it says none.

    Whoever verifies it tells why.
    """
    try:
        return locked(file).suite
    except Error:
        return ""


def _described(args: argparse.Namespace, file: Path, rings: tuple[Path, ...]) -> evidence.Described:
    failed: Error | None = None
    for ring in rings:
        try:
            found = evidence.described(file, ring, args.signed_by, unsigned=args.unsigned)
        except Error as error:
            failed = failed or error
        else:
            args.keyring = str(ring)
            return found
    assert failed
    raise failed


def _refuse_sources(kept: Lock, args: argparse.Namespace) -> None:
    evidence.refuse_sources(kept, (args.mirror, args.security_mirror), expired=args.allow_expired)


def add_packages(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare what a person may change about the packages; the group, for what else may be changed."""
    group = parser.add_argument_group("for a quick try; such an image is not official, and its record says so")
    group.add_argument(
        *("--add",),
        default="",
        metavar="LIST",
        help="more packages, comma between them: vim,htop; where the disk is too small for them, with --size",
    )
    group.add_argument("--remove", default="", metavar="LIST", help="packages to do without, where an image can")
    group.add_argument("--size", default="", metavar="SIZE", help="another size of the disk: 12G")
    options.add_source(group)
    return group


def changed(args: argparse.Namespace) -> Custom:
    """What the arguments change about an image."""
    seed = getattr(args, "seed", "")
    hostname, keep = (getattr(args, name, "") for name in ("hostname", "keep_secrets"))
    lines = tuple(line for source in options.others(args) for line in sources.as_change(source))
    given = custom(args.add, args.remove, _text(seed) if seed else "", hostname, keep, args.size)
    return replace(given, sources=lines)


def planned(args: argparse.Namespace) -> Planned:
    """The plan of the image that the arguments ask for."""
    wanted: tuple[str, ...] = tuple(dict.fromkeys(name for name in args.format.split(",") if name))
    for name in wanted:
        formats.find(name)
    if args.serial:
        names.serial(args.serial)
    names.word(args.config, "configuration")
    change = changed(args)
    kept = locked(args.lock) if args.lock else None
    if kept:
        # Packages come from signed archives; the sources that the image gets are the lock's own word.
        _refuse_sources(kept, args)
    with options.origin(args) as origin:
        resolution = origin.resolve(args.config, args.suite, change, kept)
        if not kept:
            # An image that was made once has had room.
            steps.check_size(resolution)
        return _planned(origin, resolution, args.serial, wanted, kept)


def again(kept: Lock, args: argparse.Namespace, wanted: tuple[str, ...] = ()) -> Planned:
    """The plan that makes the image of a lock from its closure; Error when it cannot be the same one.

    `wanted` are the formats, if not all that the lock names.
    """
    lines = [line.partition(" ")[::2] for line in kept.changes]
    add, remove, hostname, keep, size = (
        ",".join(value for word, value in lines if word == wanted)
        for wanted in ("add", "remove", "hostname", "keep", "size")
    )
    others = tuple(value for word, value in lines if word == "source")
    made = custom(add, remove, _text(args.seed) if args.seed else "", hostname, keep, size)
    change = replace(made, sources=others)
    if change.lines != kept.changes:
        raise Error(
            f"the image was made with another seed than {args.seed or 'none'}",
            "give the same with --seed: the .buildinfo has its SHA-256",
            USAGE,
        )
    with options.closure(args, kept) as origin:
        try:
            resolution = origin.resolve(kept.config, kept.suite, change, kept)
        except Error as error:
            # Who calls names no package: it is the closure that lacks what the lock has.
            hint = error.hint if error.status == FAILED else "the closure is not whole, or is another image's"
            raise Error(error.message, hint) from None
        return _planned(origin, resolution, kept.serial, wanted or kept.formats, kept)


def _planned(
    origin: options.Origin, resolution: Resolution, serial: str, wanted: tuple[str, ...], kept: Lock | None
) -> Planned:
    config = resolution.config
    day = time.strftime("%Y%m%d", time.gmtime(resolution.epoch))
    serial = serial or (kept.serial if kept else f"{day}.{resolution.custom.number}")
    wanted = wanted or config.formats
    of_image = kept.sources if kept else ()
    stem = names.stem(config.suite, names.config(config.name), config.architecture, serial)
    plan = steps.plan(resolution, serial, wanted, origin.debian, origin.archive, of_image, origin.others)
    published = ("image", "changes") if any(formats.find(name).PUBLISHED for name in wanted) else ()
    return Planned(plan, resolution, stem, tuple(f"{stem}.{e}" for e in (*wanted, "buildinfo", *published)))


def _text(path: str) -> str:
    try:
        # Byte for byte: the .buildinfo gives the file's own SHA-256.
        return files.read(Path(path), what="seed").decode("utf-8")
    except UnicodeDecodeError:
        raise Error(f"seed {path} is not UTF-8 text", "give a file of answers to debconf", USAGE) from None
