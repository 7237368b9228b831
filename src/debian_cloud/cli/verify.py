# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that all of an image came from signed packages.

IMAGE is a disk (raw or qcow2) or a root file system (tar), with its .buildinfo
beside it, which its builder or the archive signed. CLOSURE is the folder in
which its archive keeps what it was made of (closures/SUITE/CONFIG/ARCH/SERIAL).
Both are found in the folder STEM.proof beside the image, as `fetch --proof` leaves
it, or in the archive that the user has made known (FILES), if that is on this machine
and has published the image with this .buildinfo.
No network is needed, no root and no loop device, and nothing that the image
holds is executed.

The .buildinfo is verified first, by the SHA512SUMS beside it that the archive
signed, or by its own signature; one that nobody signed proves nothing, and is
taken by --unsigned alone. IMAGE must be the file that it gives the SHA-256 of,
whatever its name; if it has the name of another image, that is an error. Of a
raw disk or a tar that somebody unpacked from such a file, all bytes are
compared. The sources in the image must be Debian's, and of its suite.

What the archive says of the image (current, superseded, deprecated, withdrawn)
is told where its signed index is at hand: this machine's apt's, or with
--archive that of a copy of the archive. A withdrawn image makes the exit status
1, and so does one of which the given archive says nothing.

What decides are the bytes: the image must be, byte for byte, what its packages
make when it is made again, in the format that it has; of a raw disk or of a tar
that was unpacked from a published file, the disk or the tar is compared. Where
bytes differ, paths and places that were changed are listed for people, those
that matter most first, and the exit status is 1.

Each package must be listed, by SHA-256, in an index of a release file that was
signed by Debian, or by the archive for what Debian does not have. The release
files of each of Debian's suites that the image has (updates and security, too)
must be there. Each file,
link, folder and device node must be what such a package ships, with its owner,
mode and attributes; or it is of a closed list of files that are generated, and
equals what came out when the image was made again of the closure's packages.
What is copied out of a package, as to the EFI system partition, is known by its
content, and must be where the rebuild has it. What is unexplained is listed,
and makes the exit status 1, too.

Of an image with packages of other sources (--source), --source FILE.sources says
by whose keys they are trusted. Such a source vouches for what neither Debian nor
the archive has, and for nothing else.

With --signers M, that many keys of the archive's keyring must have signed each
release file of the archive; subkeys of one key are one (the keyring package's
debian-cloud-archive-cosigners.gpg has those who may).

With --rebuilders N, that many keys of --rebuilder-keys must have signed that
they made the same image again (`rebuild --statement`); each counts once.

    debian-cloud verify debian-13-ec2-amd64-20261121.0.qcow2 --closure closures/trixie/ec2/amd64/20261121.0
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.build import request, workspace
from debian_cloud.disk import layout
from debian_cloud.disk.opened import (
    DISKS,
    QCOW2,
    RAW,
    TAR,
    DiskImage,
    TreeImage,
    bytes_of,
    format_of,
    kind,
    opened,
    unpacked,
)
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, run, sign
from debian_cloud.image import closure
from debian_cloud.packages import evidence, manifest, options
from debian_cloud.projections import provenance
from debian_cloud.proof import bundle, verification
from debian_cloud.proof.verification import Explained, Unexplained
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from debian_cloud.image.entries import Entry
    from debian_cloud.image.lock import Lock
    from debian_cloud.image.resolution import Package
    from debian_cloud.packages.evidence import Proof, Word

_SERIAL = re.compile(r"(?<![0-9])[0-9]{8}\.[0-9]+")
"""What in the name of a file says which image it is."""
_SHOWN = 50
"""Unexplained paths and places that people are shown; --json has more, and says how many are left out."""
_STATEMENTS = 1000
"""Statements about one image that are read."""
_RELEASE = "etc/cloud-release"
"""Where an image says which one it is."""
_LONGEST = 200
"""Bytes of that which are read."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a disk or a root file system")
    parser.add_argument("--buildinfo", type=Path, metavar="FILE", help="its .buildinfo (default: beside it)")
    parser.add_argument(
        "--closure",
        type=_folder,
        metavar="CLOSURE",
        help="what it was made of, a folder (default: as `fetch --proof` left it)",
    )
    parser.add_argument(
        "--keyring", default="", metavar="FILE", help="keys of the archive (default: its keyring package's)"
    )
    parser.add_argument(
        "--debian-keyring", type=Path, default=Path(names.DEBIAN_KEYRING), metavar="FILE", help="keys of Debian"
    )
    parser.add_argument(
        "--signers", type=int, default=1, metavar="M", help="demand M keys of --keyring on the archive's indexes"
    )
    parser.add_argument(
        "--archive", type=_folder_of_archive, metavar="DIR", help="a copy of the archive: what it says of the image"
    )
    parser.add_argument(
        "--diagnose", action="store_true", help="tell what differs in a file that is not the one described"
    )
    parser.add_argument(
        *("--rebuilt",),
        type=Path,
        metavar="FILE",
        help="what `rebuild --output` made of it, in the same format: do not make it again",
    )
    parser.add_argument(
        "--rebuilders", type=int, default=0, metavar="N", help="demand N rebuilders' statements of the same bytes"
    )
    parser.add_argument("--rebuilder-keys", type=Path, metavar="FILE", help="the keys that may sign them")
    parser.add_argument("--statements", type=Path, metavar="DIR", help="where they are, each a file *.asc")
    parser.add_argument("--seed", default="", metavar="FILE", help="the seed of an image that was made with one")
    parser.add_argument("--json", action="store_true", help="print a verdict on each path as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options.add_source(parser)
    request.add_belief(parser)


@dataclass(frozen=True, slots=True)
class File:
    """The image's file as it was read: `described` is the name that the .buildinfo has for these bytes, if any.

    `converted`: it is of a format that the .buildinfo does not have, so that the disk counts.
    """

    sha256: str
    size: int
    described: str = ""
    converted: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts on one image; `seconds` it took by what was done, `signers` of its .buildinfo, fingerprints."""

    kept: Lock
    proofs: Mapping[Package, Proof]
    seconds: dict[str, float]
    signers: tuple[str, ...]
    rebuilders: tuple[str, ...] = ()
    explained: tuple[Explained, ...] = ()
    unexplained: tuple[Unexplained, ...] = ()
    more: int = 0
    """How many are unexplained besides."""
    file: File | None = None
    word: Word | None = None


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    report = _report(args)
    print(json.dumps(_as_json(report), indent=1) if args.json else _as_text(args.image.name, report))
    if report.unexplained:
        number = len(report.unexplained) + report.more
        raise Error(
            f"{args.image.name} is not made of signed packages alone: {number} unexplained",
            "do not start it; diffoscope(1) against what `debian-cloud rebuild --output` makes tells more",
        )
    if report.file:
        # Whatever its paths are, after --diagnose.
        _refuse_undescribed(args, report.kept, report.file)
    said = report.word.said if report.word else None
    if said and said.status == "withdrawn":
        raise Error(
            f"{report.kept.stem} was withdrawn by its archive: {printable(said.reason)}",
            "take a newer one; each byte of this one is what its .buildinfo says",
        )
    return 0


def _folder_of_archive(value: str) -> Path:
    """A copy of an archive that is here; Error when it is none, or elsewhere."""
    if not (Path(value) / "dists").is_dir():
        raise Error(
            f"--archive {value} is no copy of an archive",
            "give a folder that has dists in it, as a mirror has; nothing is verified over a network",
            USAGE,
        )
    return Path(value)


def _folder(value: str) -> Path:
    """A closure that is here; Error when it is elsewhere, or nowhere."""
    if "://" in value:
        raise Error(
            f"--closure {value} is a URL, and nothing is verified over a network",
            "mirror it first, and give the folder: rsync -a ARCHIVE/public/closures/SUITE/CONFIG/ARCH/SERIAL/ FOLDER",
            USAGE,
        )
    if not Path(value).is_dir():
        raise Error(f"--closure {value} is no folder", "give the one of the image's serial", USAGE)
    return Path(value)


def _report(args: argparse.Namespace) -> Report:
    began = time.monotonic()
    seconds: dict[str, float] = {}

    def done(what: str) -> None:
        nonlocal began
        seconds[what] = round(time.monotonic() - began, 1)
        began = time.monotonic()

    if args.signers < 1:
        raise Error(f"--signers {args.signers} demands nothing", "one signature is demanded without it", USAGE)
    if not args.rebuilt:
        # Before anything is read: it will be made again.
        run.check_namespace()
    buildinfo = _buildinfo(args)
    args.closure = args.closure or _closure(args, buildinfo)
    found = request.believed(args, buildinfo)
    kept, keyring = found.kept, Path(args.keyring)
    file = _identified(args, kept)
    rebuilders: tuple[str, ...] = ()
    if args.rebuilders > 0:
        # Of what was converted, the files that it was made of count: all of the disk is compared besides.
        files = [file.described] if file.described else [*kept.digests]
        rebuilders = _rebuilders(args, {name: kept.digests[name][0] for name in files})
    word = (
        evidence.of_archive(args.archive, kept, keyring, signers=args.signers)
        if args.archive
        else evidence.of_machine(kept)
    )
    done("image")
    proofs = evidence.proofs(
        *(args.closure / "evidence", kept, args.debian_keyring, keyring),
        signers=args.signers,
        others=options.others(args),
    )
    report = Report(kept, proofs, seconds, found.signers, rebuilders, file=file, word=word)
    done("signatures and indexes")
    # What is no image is told before a hundred packages are read, and nothing else of it until it is made again.
    form = _format(args.image, kept)
    wanted = {RAW: "raw", QCOW2: "qcow2"}.get(form, "tar.xz")
    shipped = manifest.by_path((p.name, entries) for p, entries in _manifests(args.closure, kept).items())
    done("packages")
    if args.rebuilt:
        return _compared(args.image, shipped, _of_format(args.rebuilt, wanted, form), report)
    planned = request.again(kept, args, (wanted,))
    with tempfile.TemporaryDirectory(prefix="debian-cloud.", dir=".") as name:
        folder = Path(name).resolve()
        workspace.make(planned, folder, quiet=args.quiet)
        done("made again")
        return _compared(args.image, shipped, folder / f"{kept.stem}.{wanted}", report)


def _format(image: Path, kept: Lock) -> str:
    """The format of an image; Error when its .buildinfo is not of such a one."""
    kind = format_of(image)
    if (kind in DISKS) != any(one in DISKS for one in kept.formats):
        raise Error(
            f"{image.name}: this is not the image of that .buildinfo: it is a {kind}, not a {kept.formats[0]}",
            "give the image's own .buildinfo with --buildinfo",
        )
    return kind


def _of_format(rebuilt: Path, wanted: str, kind: str) -> Path:
    """What was made again, in the format of the image: the file that was named, or the one beside it."""
    other = format_of(rebuilt)
    if other == kind or (other == wanted and kind == TAR) or (kind == RAW and other == QCOW2):
        return rebuilt
    beside = rebuilt.with_name(f"{rebuilt.name.removesuffix(f'.{other}')}.{wanted}")
    if not beside.is_file():
        raise Error(
            f"{rebuilt} is a {other}, and the image a {kind}",
            f"give the .{wanted} that `rebuild --output` makes: files are compared",
            USAGE,
        )
    return beside


def _buildinfo(args: argparse.Namespace) -> Path:
    """The image's .buildinfo: the one given, else the one beside it."""
    image: Path = args.image
    if args.buildinfo:
        given: Path = args.buildinfo
        return given
    folders = [folder for folder in (bundle.beside(image), image.parent) if folder]
    found = [path for path in folders[0].glob("*.buildinfo") if image.name.startswith(f"{path.stem}.")]
    if len(found) != 1:
        raise Error(f"{image} has no .buildinfo beside it", "give it with --buildinfo", USAGE)
    return found[0] if args.unsigned or args.signed_by or args.keyring else bundle.published(found[0])


def _closure(args: argparse.Namespace, buildinfo: Path) -> Path:
    """What the image was made of: beside it, or in the user's own archive here; Error when it is not there."""
    image: Path = args.image
    folder = bundle.beside(image)
    if folder and (folder / names.CLOSURE).is_dir():
        return folder / names.CLOSURE
    if not args.keyring and (found := bundle.own_closure(buildinfo)):
        return found
    raise Error(
        f"what {printable(image.name)} was made of is not beside it",
        "`debian-cloud fetch --proof` brings it; or give it with --closure",
        USAGE,
    )


def _identified(args: argparse.Namespace, kept: Lock) -> File:
    """The image's file, by its bytes; Error when it is not the image that is described, or has another's name."""
    image: Path = args.image
    if not image.is_file():
        raise Error(f"there is no file {image}", "give an image: a .raw, .qcow2 or .tar.xz", USAGE)
    serials = _SERIAL.findall(image.name)
    ours = image.name.startswith("debian-") and serials
    if {*serials} - {kept.serial} or (ours and kept.stem not in image.name):
        raise Error(
            f"{printable(image.name)} has the name of another image than its .buildinfo describes, {kept.stem}",
            "was an older image given a newer name? get both from the archive",
        )
    file = _file(image, kept)
    if not args.diagnose:
        _refuse_undescribed(args, kept, file)
    return file


def _file(image: Path, kept: Lock) -> File:
    """What an image's file is to a .buildinfo, by its bytes."""
    got = checksums.digest(image, ("sha256",))
    found = (got.hashes["sha256"], got.size)
    described = next((name for name, digest in kept.digests.items() if digest == found), "")
    return File(*found, described, converted=not described and kind(image) not in ("", *kept.formats))


def _refuse_undescribed(args: argparse.Namespace, kept: Lock, file: File) -> None:
    if not file.described and not file.converted:
        raise Error(
            f"{printable(args.image.name)} is not the file that the .buildinfo of {kept.stem} describes",
            "it was changed, or is another image: get it again; --diagnose tells what differs",
        )


def _rebuilders(args: argparse.Namespace, wanted: Mapping[str, str]) -> tuple[str, ...]:
    """Fingerprints of those who made the same image again; Error when they are fewer than demanded.

    `wanted` are its files, any of which counts: name and SHA-256.
    """
    keys, statements = args.rebuilder_keys, args.statements
    if not (keys and keys.is_file() and statements and statements.is_dir()):
        raise Error(
            "--rebuilders needs --rebuilder-keys FILE and --statements DIR",
            "whose word counts, and where it is",
            USAGE,
        )
    found: set[str] = set()
    unheard = []
    files = sorted(itertools.islice(statements.glob("*.asc"), _STATEMENTS + 1))
    if len(files) > _STATEMENTS:
        raise Error(
            f"{statements} has more than {_STATEMENTS} statements", "give a folder with those that count", USAGE
        )
    for file in files:
        try:
            signed = sign.verified(keys, file)
            statement = provenance.parse(signed.content.decode("utf-8", "replace"), file.name)
        except Error as error:
            unheard.append(error.message)
            continue
        same = (statement.subjects.get(name, {}).get("sha256") == sha256 for name, sha256 in wanted.items())
        if statement.kind == provenance.REBUILT and any(same):
            # Who signs with two keys is two only to those who trust both; who signs twice is one.
            found |= {*signed.signers}
        else:
            unheard.append(f"{file.name} is about other bytes")
    if len(found) < args.rebuilders:
        raise Error(
            f"{len(found)} of {args.rebuilders} rebuilders say that they got the same bytes",
            "; ".join(unheard) or f"{statements} has no other statement",
        )
    return tuple(sorted(found))


def _manifests(folder: Path, kept: Lock) -> dict[Package, tuple[Entry, ...]]:
    debs = {package: folder / closure.filename(package) for package in kept.packages}
    # None is unpacked before all are known to be the signed ones.
    for package, path in debs.items():
        if not path.is_file():
            raise Error(f"the closure has no {package.name} {package.version}", f"{path} is missing: get it again")
        _refuse_other(package, path, checksums.digest(path, ("sha256",)).hashes["sha256"])
    found = {}
    for package, (sha256, shipped) in manifest.read_all(debs).items():
        _refuse_other(package, debs[package], sha256)
        found[package] = shipped
    return found


def _refuse_other(package: Package, deb: Path, sha256: str) -> None:
    if sha256 != package.sha256:
        raise Error(
            f"the closure's {package.name} {package.version} is not the signed one",
            f"{deb} has the SHA-256 {sha256}",
        )


def _compared(image: Path, shipped: verification.Shipped, rebuilt: Path, report: Report) -> Report:
    """The report with a verdict on all that the image has."""
    began = time.monotonic()
    findings, explained = verification.Findings(), list[Explained]()
    kind = format_of(image)
    file = report.file
    described = bool(file and (file.described or file.converted))
    with opened(rebuilt) as again:
        with bytes_of(image) as given, bytes_of(rebuilt) as made:
            same = not any(verification.differing(given, made if kind == again.format else again.view))
        if same:
            # Nothing of the image is read again: its paths are those of what was made here.
            verdicts = _verdicts(again, shipped, again)
        else:
            verdicts = verification.readable(image.name, lambda: _diagnosis(image, shipped, again))
        if not same or not described:
            why = "this is not the image of that .buildinfo"
            if file and file.described:
                why = "this is the image of that .buildinfo, and not what the packages make that it names"
            findings.add(Unexplained(image.name, why, verification.IMAGE))
        for verdict in verdicts:
            if isinstance(verdict, Explained):
                explained.append(verdict)
            else:
                findings.add(verdict)
    report.seconds["image"] = round(report.seconds.get("image", 0) + time.monotonic() - began, 1)
    return replace(
        report,
        explained=tuple(explained),
        unexplained=findings.first,
        more=findings.total - len(findings.first),
    )


def _verdicts(
    image: DiskImage | TreeImage, shipped: verification.Shipped, again: DiskImage | TreeImage
) -> Iterator[Explained | Unexplained]:
    """A verdict on each path."""
    expected = tuple(again.entries())
    yield from verification.readable(
        "root file system",
        lambda: verification.verify(expected if image is again else image.entries(), shipped, expected),
    )
    if isinstance(image, DiskImage) and isinstance(again, DiskImage):
        esp = layout.ESP.rstrip(": ")
        yield from verification.readable(esp, partial(verification.verify_esp, image, shipped, again))


def _diagnosis(
    path: Path, shipped: verification.Shipped, again: DiskImage | TreeImage
) -> Iterator[Explained | Unexplained]:
    """What was changed in an image that is not what was made again, as far as it can be read."""
    # One with more in it is to be read, too, but not one without end.
    with unpacked(path, 2 * again.view.size) as (kind, view):
        image: DiskImage | TreeImage
        if isinstance(again, DiskImage):
            # That its partition table differs is told with the other bytes; what it led to is where it should be.
            image = DiskImage(path.name, kind, view)
            if not image.has_table:
                image = DiskImage(path.name, kind, view, again.table)
        else:
            image = TreeImage(path.name, kind, view)
        if (own := _release(image)) and own != (expected := _release(again)):
            yield Unexplained(path.name, f"it says that it is {own}, not {expected}", verification.IMAGE)
        told, places = set[str](), False
        for verdict in _verdicts(image, shipped, again):
            if isinstance(verdict, Unexplained):
                told.add(verdict.path)
            yield verdict
        for place in verification.beside(image, again, told):
            places = True
            yield place
        if not told and not places:
            yield Unexplained(path.name, f"what is in it is the rebuild's, and its bytes as a {kind} are not")


def _release(image: DiskImage | TreeImage) -> str:
    """Which image one says that it is."""
    try:
        said = b"".join(itertools.islice(image.pieces(_RELEASE), 1))[:_LONGEST]
    except Exception:
        # That it cannot be read is told when its paths are.
        return ""
    return " ".join(said.decode("utf-8", "replace").split())


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
    """Which image it is, and who says so."""
    kept, file = report.kept, report.file
    yield f"{printable(name)}: image {kept.config} of {kept.suite} for {kept.architecture}"
    yield f"  serial {kept.serial}, of {_day(kept)}, configuration version {kept.config_version}"
    yield f"  {', '.join(kept.changes)}: it is not official" if kept.changes else "  as its configuration says"
    yield f"  its .buildinfo is signed by {', '.join(report.signers) or 'nobody: it proves nothing of all this'}"
    if file:
        what = file.described or "none that its .buildinfo describes: what the disk holds was compared"
        yield f"  the file is {what}, SHA-256 {file.sha256}"
    yield f"  {_said(report.word)}"
    for source in kept.sources:
        late = ", also past their Valid-Until" if source.expired else ""
        yield f"  its apt asks {source.uri} for {' '.join(source.suites)}{late}"


def _said(word: Word | None) -> str:
    """The archive's word on an image, in words."""
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


def _day(kept: Lock) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(kept.epoch))


def _as_json(report: Report) -> dict[str, object]:
    kept, file, said = report.kept, report.file, report.word.said if report.word else None
    return {
        "image": kept.stem,
        "config": kept.config,
        "config-version": kept.config_version,
        "suite": kept.suite,
        "architecture": kept.architecture,
        "serial": kept.serial,
        "date": _day(kept),
        "changes": kept.changes,
        "file": {"described": file.described, "sha256": file.sha256, "size": file.size} if file else None,
        "problem": report.word.problem if report.word else "",
        "status": None
        if said is None
        else {"status": said.status, "date": said.date, "reason": said.reason, "cves": said.cves},
        "sources": [{"uri": s.uri, "suites": s.suites, "expired": s.expired} for s in kept.sources],
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
