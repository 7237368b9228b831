# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that all of an image comes from signed packages.

IMAGE is a disk or a root file system in any format that `build` makes, or a tar,
with its .buildinfo beside it, which its builder or the archive signed. CLOSURE is the directory in
which the archive keeps the image's closure (closures/SUITE/CONFIG/ARCH/SERIAL).
Both are found in the directory STEM.proof beside the image, as `fetch --proof`
writes it, or in the archive that the user configured (FILES), if that is on this
machine and has published the image with this .buildinfo.
No network, root or loop device is needed, and nothing in the image is executed.

The .buildinfo is verified first, by the SHA512SUMS beside it that the archive
signed, or by its own signature; an unsigned .buildinfo proves nothing, and is
accepted only with --unsigned. IMAGE must have the digest that is in it, whatever
its name; the name of another image is an error. For a raw disk or a tar that was
unpacked from such a file, all bytes are compared. The sources in the image must be
Debian's, for the image's suite.

The image's status in the archive (current, superseded, deprecated, withdrawn) is
reported if its signed index is available: from this machine's apt, or with --archive
from a copy of the archive. The exit status is 1 for a withdrawn image, and for an
image that the given archive does not know.

The bytes decide: the image must be equal, byte for byte, to a rebuild from its
packages in the same format; for a raw disk or a tar that was unpacked from a
published file, the disk or the tar is compared. The rebuild continues from layers that
this user's builds have left in the cache (see build), if there are any; with
--cache-size 0, every package is installed again, as `rebuild` does. If bytes differ, the changed paths
and places are listed, the most important first, and the exit status is 1.

Each package must be listed, by SHA-256, in an index of a release file that Debian
signed, or, for packages that Debian does not have, that the archive signed. The
release files of each of Debian's suites that the image uses, with updates and
security, must be present. Each file, link, directory and device node must be shipped
by such a package with its owner, mode and attributes; or it must be in a closed list
of generated files, and equal to the rebuild from the closure's packages. A copy of a
package's file, for example on the EFI system partition, is identified by its content,
and must be at the same place in the rebuild. Other paths are listed as unexplained,
and the exit status is then 1.

For an image with packages of other sources, --source FILE.sources gives the keys by
which they are trusted. Such a source vouches only for packages that neither Debian
nor the archive has.

With --signers M, at least M keys of the archive's keyring must have signed each
release file of the archive; subkeys of one key count once (the keyring package's
debian-cloud-archive-cosigners.gpg has the keys that may sign).

With --rebuilders N, at least N keys of --rebuilder-keys must have signed statements
that they rebuilt the same image (`rebuild --statement`); each counts once.

    debian-cloud verify debian-13-ec2-amd64-20261121.0.qcow2 --closure closures/trixie/ec2/amd64/20261121.0
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import formats, names
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

_ALGORITHMS: Final = {formats.SHA256: "SHA-256", formats.BLOCKS: "SHA-256 of its blocks"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a disk or a root file system")
    parser.add_argument("--buildinfo", type=Path, metavar="FILE", help="its .buildinfo (default: beside it)")
    parser.add_argument(
        "--closure",
        type=_folder,
        metavar="CLOSURE",
        help="directory of its closure (default: as `fetch --proof` writes it)",
    )
    parser.add_argument(
        "--keyring", default="", metavar="FILE", help="keys of the archive (default: those of its keyring package)"
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
        "--archive", type=_folder_of_archive, metavar="DIR", help="a copy of the archive, for the image's status"
    )
    parser.add_argument(
        "--diagnose", action="store_true", help="show what differs if the .buildinfo does not describe the file"
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
    parser.add_argument("--rebuilder-keys", type=Path, metavar="FILE", help="keys of the rebuilders")
    parser.add_argument("--statements", type=Path, metavar="DIR", help="directory with the statements, files *.asc")
    parser.add_argument("--seed", default="", metavar="FILE", help="the seed that the image was made with")
    options.add_cache_size(parser)
    parser.add_argument("--json", action="store_true", help="print a verdict on each path as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    words.add_source(parser, "trust packages that Debian does not have by the keys of this source")
    options.add_trust(parser)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    image: Path = args.image
    seed = Path(args.seed) if args.seed else None
    given = Given(args.buildinfo, args.closure, args.archive, args.rebuilt, seed=seed, bound=options.cache_size(args))
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
            "give a directory with dists in it, such as a mirror's; nothing is verified over a network",
            USAGE,
        )
    return Path(value)


def _folder(value: str) -> Path:
    """The path of a closure on this machine; Error if it is elsewhere, or does not exist."""
    if "://" in value:
        raise Error(
            f"--closure {value} is a URL, but nothing is verified over a network",
            "mirror it first, and give the directory: rsync -a ARCHIVE/public/closures/SUITE/CONFIG/ARCH/SERIAL/ DIR",
            USAGE,
        )
    if not Path(value).is_dir():
        raise Error(f"--closure {value} is not a directory", "give the directory of the image's closure", USAGE)
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
    lines += [f"    {sum(bool(it.shipped) for it in by_package)} of them are copies under another name"]
    lines += [f"  {generators.total()} are generated, and equal the rebuild"]
    if esp := [it for it in report.explained if it.path.startswith(layout.ESP)]:
        copied = sum(bool(it.package) for it in esp)
        lines += [f"  of all these, {copied} from packages and {len(esp) - copied} generated are on the ESP"]
    lines += [f"  rebuilt with the same bytes by {key}" for key in report.rebuilders]
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
    yield f"  serial {buildinfo.id.serial}, date {_day(buildinfo)}, configuration version {buildinfo.config_version}"
    yield (
        f"  it is not official: {', '.join(buildinfo.changes)}"
        if buildinfo.changes
        else "  it is as its configuration says"
    )
    signers = ", ".join(report.signers)
    yield f"  its .buildinfo is {f'signed by {signers}' if signers else 'not signed, so this proves nothing'}"
    if file:
        what = file.described or "not described by its .buildinfo, so the content of the disk was compared"
        yield f"  the file is {what}, {_ALGORITHMS[file.algorithm]} {file.digest}"
    yield f"  {_said(report.word)}"
    for source in buildinfo.sources:
        late = ", even after their Valid-Until" if source.expired else ""
        yield f"  its apt uses {source.uri} for {' '.join(source.suites)}{late}"


def _said(word: Word | None) -> str:
    """The status of an image in its archive, as a sentence."""
    if word is None:
        return "its status is unknown: there is no signed index of its archive here (--archive)"
    if word.said is None and word.problem:
        return f"its status is unknown: an index of {word.where} cannot be read: {printable(word.problem)}"
    if word.said is None:
        return f"{word.where} knows no archive that published it"
    said = word.said
    since = f" since {said.date}" if said.date else ""
    why = f": {printable(said.reason)}" if said.reason else ""
    others = f"; another index cannot be read, and may differ: {printable(word.problem)}" if word.problem else ""
    return f"it is {said.status}{since} according to {printable(word.where)}{why}{' '.join(('', *said.cves))}{others}"


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
        "file": {"described": file.described, file.algorithm: file.digest, "size": file.size} if file else None,
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
