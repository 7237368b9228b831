# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that all of an image came from signed packages.

IMAGE is a disk (raw or qcow2) or a root file system (tar), with its .buildinfo
beside it. CLOSURE is the folder in which its archive keeps what it was made of
(closures/SUITE/CONFIG/ARCH/SERIAL). No network is needed, no root and no loop
device, and nothing that the image holds is executed.

Each package must be listed, by SHA-256, in an index of a release file that was
signed by Debian, or by the archive for what Debian does not have. Each file,
link, folder and device node must be what such a package ships, with its owner,
mode and attributes; or it is of a closed list of files that are generated, and
equals what came out when the image was made again of the closure's packages.
What is copied out of a package, as to the EFI system partition, is known by its
content, and must be where the rebuild has it. Boot sector, boot loader,
partition table and every other byte must be the rebuild's, too: nothing can
hide. What is unexplained is listed, and makes the exit status 1.

With --signers M, that many keys of the archive's keyring must have signed each
release file of the archive; subkeys of one key are one (the keyring package's
debian-cloud-archive-cosigners.gpg has those who may).

With --rebuilders N, that many keys of --rebuilder-keys must have signed that
they made the same image again (`rebuild --statement`); each counts once.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import (
    checksums,
    closure,
    evidence,
    manifest,
    names,
    options,
    planning,
    sign,
    verification,
    workspace,
)
from debian_cloud.errors import USAGE, Error
from debian_cloud.opened import DiskImage, TreeImage, opened
from debian_cloud.printable import printable
from debian_cloud.projections import provenance
from debian_cloud.verification import Explained, Unexplained

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from debian_cloud.entries import Entry
    from debian_cloud.evidence import Proof
    from debian_cloud.lock import Lock
    from debian_cloud.resolution import Package

_SHOWN = 50
"""Unexplained places that people are shown; --json has them all."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a disk or a root file system")
    parser.add_argument("--buildinfo", type=Path, metavar="FILE", help="its .buildinfo (default: beside it)")
    parser.add_argument(
        "--closure", type=_folder, required=True, metavar="CLOSURE", help="what it was made of, a folder"
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
        "--signed-by", type=Path, metavar="FILE", help="keys, one of which must have signed the .buildinfo"
    )
    parser.add_argument(
        "--rebuilt", type=Path, metavar="FILE", help="what `rebuild --output` made of it: do not make it again"
    )
    parser.add_argument(
        "--rebuilders", type=int, default=0, metavar="N", help="demand N rebuilders' statements of the same bytes"
    )
    parser.add_argument("--rebuilder-keys", type=Path, metavar="FILE", help="the keys that may sign them")
    parser.add_argument("--statements", type=Path, metavar="DIR", help="where they are, each a file *.asc")
    parser.add_argument("--seed", default="", metavar="FILE", help="the seed of an image that was made with one")
    parser.add_argument("--json", action="store_true", help="print a verdict on each path as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


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


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    report = _report(args)
    print(json.dumps(_as_json(report), indent=1) if args.json else _as_text(args.image.name, report))
    if report.unexplained:
        number = len(report.unexplained)
        raise Error(
            f"{args.image.name} is not made of signed packages alone: {number} unexplained",
            "do not start it; diffoscope(1) against what `debian-cloud rebuild --output` makes tells more",
        )
    return 0


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
    keyring = options.keyring(args)
    kept, signers = _described(args, keyring)
    rebuilders = _rebuilders(args) if args.rebuilders > 0 else ()
    proofs = evidence.proofs(args.closure / "evidence", kept, args.debian_keyring, keyring, signers=args.signers)
    report = Report(kept, proofs, seconds, signers, rebuilders)
    done("signatures and indexes")
    # What is no image is told before a hundred packages are read.
    with opened(args.image) as image:
        done("image")
        shipped = manifest.by_path((p.name, entries) for p, entries in _manifests(args.closure, kept).items())
        done("packages")
        if args.rebuilt:
            return _compared(args, image, shipped, args.rebuilt, report)
        wanted = "tar.xz" if "tar.xz" in kept.formats else "raw"
        planned = planning.again(kept, args, (wanted,))
        with tempfile.TemporaryDirectory(prefix="debian-cloud.", dir=".") as name:
            folder = Path(name).resolve()
            workspace.make(planned, folder, quiet=args.quiet)
            done("made again")
            return _compared(args, image, shipped, folder / f"{kept.stem}.{wanted}", report)


def _described(args: argparse.Namespace, keyring: Path) -> tuple[Lock, tuple[str, ...]]:
    """The image's .buildinfo, and who signed it, or for the archive the sums that it is in; () when nobody did."""
    image: Path = args.image
    if args.buildinfo:
        file: Path = args.buildinfo
    else:
        found = [path for path in image.parent.glob("*.buildinfo") if image.name.startswith(f"{path.stem}.")]
        if len(found) != 1:
            raise Error(f"{image} has no .buildinfo beside it", "give it with --buildinfo", USAGE)
        (file,) = found
    kept = planning.locked(file)
    sums = file.parent / "SHA512SUMS"
    signers: tuple[str, ...] = ()
    if args.signed_by:
        signers = sign.verified(args.signed_by, file).signers
    elif sums.exists():
        # The archive's own word on what it published.
        signers = sign.verified(keyring, sums, sums.with_name("SHA512SUMS.gpg")).signers
        got = checksums.digest(file, ("sha512",)).hashes["sha512"]
        if got != checksums.find(sums.read_text("ascii"), file.name):
            raise Error(f"{file} is not the one that the archive signed", "it was edited: get it again")
    elif b"-----BEGIN PGP SIGN" in file.read_bytes():
        try:
            signers = sign.verified(keyring, file).signers
        except Error:
            raise Error(
                f"{file} is signed, but not by a key that is known",
                "--signed-by FILE: its builder's keys; or put the archive's SHA512SUMS and SHA512SUMS.gpg beside it",
            ) from None
    return kept, signers


def _rebuilders(args: argparse.Namespace) -> tuple[str, ...]:
    """Fingerprints of those who made the same image again; Error when they are fewer than demanded."""
    keys, statements = args.rebuilder_keys, args.statements
    if not (keys and keys.is_file() and statements and statements.is_dir()):
        raise Error(
            "--rebuilders needs --rebuilder-keys FILE and --statements DIR",
            "whose word counts, and where it is",
            USAGE,
        )
    image: Path = args.image
    sha256 = checksums.digest(image, ("sha256",)).hashes["sha256"]
    found: set[str] = set()
    unheard = []
    for file in sorted(statements.glob("*.asc")):
        try:
            signed = sign.verified(keys, file)
            statement = provenance.parse(signed.content.decode("utf-8", "replace"), file.name)
        except Error as error:
            unheard.append(error.message)
            continue
        if statement.kind == provenance.REBUILT and statement.subjects.get(image.name, {}).get("sha256") == sha256:
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


def _compared(
    args: argparse.Namespace,
    image: DiskImage | TreeImage,
    shipped: verification.Shipped,
    rebuilt: Path,
    report: Report,
) -> Report:
    """The report with a verdict on all that the image has."""
    began = time.monotonic()
    unexplained: list[Unexplained] = []
    with opened(rebuilt) as again:
        if isinstance(image, DiskImage) and isinstance(again, DiskImage):
            anywhere = tuple(verification.anywhere(image.view, again.view))
            there = tuple(image.entries())
            verdicts = (
                # Of two equal disks one is read.
                *verification.verify(there, shipped, again.entries() if anywhere else there),
                *verification.verify_esp(image, shipped, again),
            )
            unexplained += verification.beside(image, again)
            if not unexplained and not any(isinstance(verdict, Unexplained) for verdict in verdicts):
                unexplained += anywhere
        elif isinstance(image, TreeImage) and isinstance(again, TreeImage):
            verdicts = tuple(verification.verify(image.entries(), shipped, again.entries()))
            unexplained += verification.left(image)
        else:
            raise Error(
                f"{args.image} and {rebuilt} are not of the same kind", "a disk and a disk, or a tar and a tar"
            )
    explained = tuple(verdict for verdict in verdicts if isinstance(verdict, Explained))
    unexplained += [verdict for verdict in verdicts if isinstance(verdict, Unexplained)]
    digest = report.kept.digests.get(args.image.name)
    if digest and not unexplained:
        got = checksums.digest(args.image, ("sha256",))
        if (got.hashes["sha256"], got.size) != digest:
            unexplained.append(Unexplained(args.image.name, "it is not the file that its .buildinfo describes"))
    report.seconds["image"] = round(report.seconds["image"] + time.monotonic() - began, 1)
    return replace(report, explained=explained, unexplained=tuple(unexplained))


def _as_text(name: str, report: Report) -> str:
    by_package = [verdict for verdict in report.explained if verdict.package]
    generators = Counter(verdict.generator for verdict in report.explained if verdict.generator)
    releases = Counter((p.origin, p.suite, ", ".join(p.signers)) for p in report.proofs.values())
    lines = [f"{name}: {len(by_package) + generators.total()} paths are explained"]
    lines += [f"  {len(by_package)} are from {len(report.proofs)} packages:"]
    lines += [
        f"    {count} listed by {origin or 'the archive'}, {suite}, signed by {keys}"
        for (origin, suite, keys), count in sorted(releases.items())
    ]
    lines += [f"    {sum(bool(it.shipped) for it in by_package)} of them are copies, under another name"]
    lines += [f"  {generators.total()} are generated, and came out the same again"]
    if esp := [it for it in report.explained if it.path.startswith(verification.ESP)]:
        copied = sum(bool(it.package) for it in esp)
        lines += [f"  of all these, {copied} from packages and {len(esp) - copied} generated are on the ESP"]
    lines += [f"  its .buildinfo is signed by {', '.join(report.signers) or 'nobody'}"]
    lines += [f"  made again, with the same bytes, by {key}" for key in report.rebuilders]
    lines += [f"  {word}: {seconds} s" for word, seconds in report.seconds.items()]
    lines += [f"{len(report.unexplained)} are unexplained"]
    lines += [f"  {printable(it.path)}: {it.why}" for it in report.unexplained[:_SHOWN]]
    if len(report.unexplained) > _SHOWN:
        lines += [f"  and {len(report.unexplained) - _SHOWN} more"]
    return "\n".join(lines)


def _as_json(report: Report) -> dict[str, object]:
    return {
        "image": report.kept.stem,
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
        "unexplained": [{"path": printable(it.path), "why": it.why} for it in report.unexplained],
        "rebuilders": report.rebuilders,
        "seconds": report.seconds,
    }
