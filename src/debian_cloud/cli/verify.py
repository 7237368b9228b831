# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that all of an image came from signed packages.

IMAGE is a disk (raw or qcow2) or a root file system (tar), with its .buildinfo
beside it, which its builder or the archive signed. CLOSURE is the directory in
which its archive keeps what it was made of (closures/SUITE/CONFIG/ARCH/SERIAL).
Both are found in the directory STEM.proof beside the image, as `fetch --proof` leaves
it, or in the archive that the user has made known (FILES), if that is on this machine
and has published the image with this .buildinfo.
No network, root or loop device is needed, and nothing in the image is executed.

The .buildinfo is verified first, by the SHA512SUMS beside it that the archive
signed, or by its own signature; an unsigned one proves nothing, and is accepted
only with --unsigned. IMAGE must have the SHA-256 that is in it, whatever its name;
if it has the name of another image, that is an error. For a raw disk or a tar that
was unpacked from such a file, all bytes are compared. The sources in the image must
be Debian's, and of its suite.

The image's status in the archive (current, superseded, deprecated, withdrawn) is
reported if its signed index is available: from this machine's apt, or with --archive
from a copy of the archive. The exit status is 1 for a withdrawn image, and for one
that the given archive does not know.

The bytes decide: the image must be, byte for byte, what its packages make when it is
made again, in the format that it has; for a raw disk or a tar that was unpacked from
a published file, the disk or the tar is compared. If bytes differ, paths and places
that were changed are listed for people, those that matter most first, and the exit
status is 1.

Each package must be listed, by SHA-256, in an index of a release file that was
signed by Debian, or by the archive for what Debian does not have. The release
files of each of Debian's suites that the image has (updates and security, too)
must be there. Each file, link, directory and device node must be what such a package
ships, with its owner, mode and attributes; or it is in a closed list of generated
files, and equal to the result when the image was made again of the closure's packages.
What is copied out of a package, for example to the EFI system partition, is identified
by its content, and must be where the rebuild has it. What is unexplained is listed, and
the exit status is then 1, too.

For an image with packages of other sources (--source), --source FILE.sources gives
the keys by which they are trusted. Such a source vouches for what neither Debian nor
the archive has, and for nothing else.

With --signers M, that many keys of the archive's keyring must have signed each
release file of the archive; subkeys of one key are one (the keyring package's
debian-cloud-archive-cosigners.gpg has those who may).

With --rebuilders N, that many keys of --rebuilder-keys must have signed that
they made the same image again (`rebuild --statement`); each counts once.

    debian-cloud verify debian-13-ec2-amd64-20261121.0.qcow2 --closure closures/trixie/ec2/amd64/20261121.0
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.cli import options
from debian_cloud.disk import layout
from debian_cloud.errors import USAGE, Error
from debian_cloud.packages import words
from debian_cloud.proof import verify
from debian_cloud.proof.trust import Rebuilders
from debian_cloud.proof.verify import Given
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.packages.evidence import Word
    from debian_cloud.proof.trust import Trust
    from debian_cloud.proof.verify import Report

_SHOWN = 50
"""Maximum unexplained paths and places in the text; --json has more, and the number that is left out."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a disk or a root file system")
    parser.add_argument("--buildinfo", type=Path, metavar="FILE", help="its .buildinfo (default: beside it)")
    parser.add_argument(
        "--closure",
        type=_folder,
        metavar="CLOSURE",
        help="directory with what it was made of (default: as `fetch --proof` left it)",
    )
    parser.add_argument(
        "--keyring", default="", metavar="FILE", help="keys of the archive (default: its keyring package's)"
    )
    parser.add_argument(
        "--debian-keyring", type=Path, default=Path(names.DEBIAN_KEYRING), metavar="FILE", help="keys of Debian"
    )
    parser.add_argument(
        "--signers",
        type=int,
        default=1,
        metavar="M",
        help="require signatures by M keys of --keyring on the archive's indexes",
    )
    parser.add_argument(
        "--archive", type=_folder_of_archive, metavar="DIR", help="a copy of the archive: what it says of the image"
    )
    parser.add_argument(
        "--diagnose", action="store_true", help="show what differs if the file is not the one described"
    )
    parser.add_argument(
        *("--rebuilt",),
        type=Path,
        metavar="FILE",
        help="the result of `rebuild --output`, in the same format: do not build again",
    )
    parser.add_argument(
        "--rebuilders", type=int, default=0, metavar="N", help="require statements of the same bytes by N rebuilders"
    )
    parser.add_argument("--rebuilder-keys", type=Path, metavar="FILE", help="the keys that may sign them")
    parser.add_argument("--statements", type=Path, metavar="DIR", help="directory with the statements, files *.asc")
    parser.add_argument("--seed", default="", metavar="FILE", help="the seed of an image that was made with one")
    parser.add_argument("--json", action="store_true", help="print a verdict on each path as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    words.add_source(parser)
    options.add_trust(parser)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    image: Path = args.image
    given = Given(args.buildinfo, args.closure, args.archive, args.rebuilt, Path(args.seed) if args.seed else None)
    report = verify.verify(image, _trust(args), given, diagnose=args.diagnose, quiet=args.quiet)
    print(json.dumps(_as_json(report), indent=1) if args.json else _as_text(image.name, report))
    verify.refuse(image, report)
    return 0


def _trust(args: argparse.Namespace) -> Trust:
    demanded = Rebuilders(args.rebuilders, args.rebuilder_keys, args.statements) if args.rebuilders > 0 else None
    return replace(options.trust(args), debian=args.debian_keyring, signers=args.signers, rebuilders=demanded)


def _folder_of_archive(value: str) -> Path:
    """The path of a copy of an archive on this machine; Error if it is not one."""
    if not (Path(value) / "dists").is_dir():
        raise Error(
            f"--archive {value} is not a copy of an archive",
            "give a directory that has dists in it, as a mirror has; nothing is verified over a network",
            USAGE,
        )
    return Path(value)


def _folder(value: str) -> Path:
    """The path of a closure on this machine; Error if it is elsewhere, or does not exist."""
    if "://" in value:
        raise Error(
            f"--closure {value} is a URL, and nothing is verified over a network",
            "mirror it first, and give the directory: rsync -a ARCHIVE/public/closures/SUITE/CONFIG/ARCH/SERIAL/ DIR",
            USAGE,
        )
    if not Path(value).is_dir():
        raise Error(f"--closure {value} is not a directory", "give the one of the image's serial", USAGE)
    return Path(value)


def _as_text(name: str, report: Report) -> str:
    by_package = [verdict for verdict in report.explained if verdict.package]
    generators = Counter(verdict.generator for verdict in report.explained if verdict.generator)
    releases = Counter((p.origin, p.suite, ", ".join(p.signers)) for p in report.proofs.values())
    lines = [*_identity(name, report), f"{len(by_package) + generators.total()} paths are explained"]
    lines += [f"  {len(by_package)} are from {len(report.proofs)} packages:"]
    lines += [
        f"    {count} listed by {printable(origin) or 'the archive'}, {printable(suite)}, signed by {keys}"
        for (origin, suite, keys), count in sorted(releases.items())
    ]
    lines += [f"    {sum(bool(it.shipped) for it in by_package)} of them are copies, under another name"]
    lines += [f"  {generators.total()} are generated, and came out the same again"]
    if esp := [it for it in report.explained if it.path.startswith(layout.ESP)]:
        copied = sum(bool(it.package) for it in esp)
        lines += [f"  of all these, {copied} from packages and {len(esp) - copied} generated are on the ESP"]
    lines += [f"  made again, with the same bytes, by {key}" for key in report.rebuilders]
    lines += [f"  {word}: {seconds} s" for word, seconds in report.seconds.items()]
    number = len(report.unexplained) + report.more
    lines += [f"{number} are unexplained"]
    lines += [f"  {printable(it.path)}: {printable(it.why)}" for it in report.unexplained[:_SHOWN]]
    if number > _SHOWN:
        lines += [f"  and {number - _SHOWN} more"]
    return "\n".join(lines)


def _identity(name: str, report: Report) -> Iterator[str]:
    """Lines that identify the image and its signers."""
    buildinfo, file = report.buildinfo, report.file
    yield f"{printable(name)}: image {buildinfo.id.config} of {buildinfo.id.suite} for {buildinfo.id.architecture}"
    yield f"  serial {buildinfo.id.serial}, of {_day(buildinfo)}, configuration version {buildinfo.config_version}"
    yield (
        f"  {', '.join(buildinfo.changes)}: it is not official"
        if buildinfo.changes
        else "  as its configuration says"
    )
    yield f"  its .buildinfo is signed by {', '.join(report.signers) or 'nobody: it proves nothing of all this'}"
    if file:
        what = file.described or "none that its .buildinfo describes: what the disk holds was compared"
        yield f"  the file is {what}, SHA-256 {file.sha256}"
    yield f"  {_said(report.word)}"
    for source in buildinfo.sources:
        late = ", also past their Valid-Until" if source.expired else ""
        yield f"  its apt asks {source.uri} for {' '.join(source.suites)}{late}"


def _said(word: Word | None) -> str:
    """The status of an image in its archive, as a sentence."""
    if word is None:
        return "whether it is current is not known: no signed index of its archive is at hand (--archive)"
    if word.said is None and word.problem:
        return f"whether it is current is not known: an index of {word.where} is no good: {printable(word.problem)}"
    if word.said is None:
        return f"{word.where} knows no archive that published it"
    said = word.said
    since = f" since {said.date}" if said.date else ""
    why = f": {printable(said.reason)}" if said.reason else ""
    others = f"; another index is no good, and may say otherwise: {printable(word.problem)}" if word.problem else ""
    return f"it is {said.status}{since}, says {printable(word.where)}{why}{' '.join(('', *said.cves))}{others}"


def _day(buildinfo: Buildinfo) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(buildinfo.epoch))


def _as_json(report: Report) -> dict[str, object]:
    buildinfo, file, said = report.buildinfo, report.file, report.word.said if report.word else None
    return {
        "image": buildinfo.stem,
        "config": buildinfo.id.config,
        "config-version": buildinfo.config_version,
        "suite": buildinfo.id.suite,
        "architecture": buildinfo.id.architecture,
        "serial": buildinfo.id.serial,
        "date": _day(buildinfo),
        "changes": buildinfo.changes,
        "file": {"described": file.described, "sha256": file.sha256, "size": file.size} if file else None,
        "problem": report.word.problem if report.word else "",
        "status": None
        if said is None
        else {"status": said.status, "date": said.date, "reason": said.reason, "cves": said.cves},
        "sources": [{"uri": s.uri, "suites": s.suites, "expired": s.expired} for s in buildinfo.sources],
        "buildinfo-signers": report.signers,
        "packages": [
            {
                "name": p.name,
                "version": p.version,
                "architecture": p.architecture,
                "sha256": p.sha256,
                "suite": proof.suite,
                "origin": proof.origin,
                "release-sha256": proof.release,
                "signers": proof.signers,
            }
            for p, proof in report.proofs.items()
        ],
        "paths": [
            {"path": printable(it.path), "kind": it.kind}
            | ({"package": it.package} if it.package else {"generator": it.generator})
            | ({"shipped": printable(it.shipped)} if it.shipped else {})
            for it in report.explained
        ],
        "unexplained": [{"path": printable(it.path), "why": printable(it.why)} for it in report.unexplained],
        "more": report.more,
        "rebuilders": report.rebuilders,
        "seconds": report.seconds,
    }
