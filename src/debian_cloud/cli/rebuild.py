# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a published image again, years later, and compare.

FILE is an image's .buildinfo, or its .image record with the .buildinfo beside
it. The packages come from the image's closure, which its archive keeps (and
which is beside FILE, where `fetch --proof` brought both, or in the archive that the
user has made known), and from nowhere else:
each must be the one that the .buildinfo names, by version and SHA-256, and no
other is taken. Every file that the .buildinfo names is made and compared with
the hash that it gives. The exit status is 0 when all are the same, and 1 when
one is not.

The .buildinfo must be signed, as for `verify`, and the sources in the image be
Debian's: else the same bytes would say nothing about who wants them.

With --statement, whoever got the same bytes says so: a signed in-toto statement
that `verify --rebuilders` counts.

    debian-cloud rebuild debian-13-ec2-amd64-20261121.0.buildinfo --output again
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import projections
from debian_cloud.build import request, workspace
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, files, run, sign
from debian_cloud.image import index
from debian_cloud.packages import options
from debian_cloud.projections import provenance
from debian_cloud.proof import bundle

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.lock import Lock
    from debian_cloud.packages.evidence import Described


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the image's .buildinfo or .image")
    options.add_closure(parser)
    request.add_belief(parser)
    parser.add_argument("--seed", default="", metavar="FILE", help="the seed of an image that was made with one")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep what was made in DIR (default: remove it)")
    parser.add_argument("--statement", type=Path, metavar="FILE", help="write a signed statement of the same bytes")
    parser.add_argument("--homedir", type=Path, metavar="DIR", help="GnuPG's home with the key that signs it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    found = _described(args)
    kept = found.kept
    args.closure = args.closure or bundle.closure_of(args.file)
    if args.statement and args.statement.exists():
        raise Error(f"{args.statement} exists already", "choose another name with --statement", USAGE)
    # Before anything is fetched.
    run.check_namespace()
    workspace.make_output((args.output or Path()).resolve())
    planned = request.again(kept, args)
    if args.output:
        workspace.make(planned, args.output.resolve(), quiet=args.quiet)
        same = _compared(kept, args.output)
    else:
        with tempfile.TemporaryDirectory(prefix="debian-cloud.", dir=".") as folder:
            workspace.make(planned, Path(folder).resolve(), quiet=args.quiet)
            same = _compared(kept, Path(folder))
    if args.json:
        print(
            json.dumps(
                {"stem": kept.stem, "plan": planned.id, "same": same, "buildinfo-signers": found.signers}, indent=2
            )
        )
    else:
        for name, equal in same.items():
            print(f"{name}: {'the same bytes' if equal else 'DIFFERS'}")
        print(f"{found.name} is signed by {', '.join(found.signers) or 'nobody'}")
    if not all(same.values()):
        different = ", ".join(name for name, equal in same.items() if not equal)
        hint = f"it was built by {kept.builder}; "
        hint += "compare the files with diffoscope(1)" if args.output else "--output DIR keeps the files to compare"
        raise Error(f"{different} is not what the .buildinfo describes", hint)
    if args.statement:
        _state(found, args)
    return 0


def _state(found: Described, args: argparse.Namespace) -> None:
    subjects = {name: {"sha256": sha256} for name, (sha256, _) in found.kept.digests.items()}
    hashes = {name: hashlib.new(name, found.data).hexdigest() for name in checksums.PUBLISHED}
    document = provenance.rebuilt(found.kept, subjects, {found.name: hashes})
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as folder:
        unsigned = Path(folder) / "statement"
        unsigned.write_text(projections.text(document), "utf-8")
        sign.clearly(unsigned, Path(folder) / "signed", args.homedir)
        args.statement.write_bytes((Path(folder) / "signed").read_bytes())


def _described(args: argparse.Namespace) -> Described:
    file: Path = args.file
    buildinfo = file.with_suffix(".buildinfo") if file.suffix == ".image" else file
    if not (args.unsigned or args.signed_by or args.keyring):
        buildinfo = bundle.published(buildinfo)
    if file.suffix != ".image":
        return request.believed(args, buildinfo)
    records = index.parse(files.text(file), strict=True)
    found = request.believed(args, buildinfo)
    for record in records:
        if found.kept.digests.get(record.name) != (record.sha256, record.size):
            raise Error(
                f"{file.name} and {file.stem}.buildinfo do not agree on {record.name}",
                "take both from the same folder of the archive",
            )
    if not records:
        raise Error(f"{file} has no record in it", "give the .image or the .buildinfo of an image", USAGE)
    return found


def _compared(kept: Lock, folder: Path) -> dict[str, bool]:
    """File name -> whether it came out the same."""
    found = {}
    for name, (sha256, size) in kept.digests.items():
        got = checksums.digest(folder / name, ("sha256",))
        found[name] = (got.hashes["sha256"], got.size) == (sha256, size)
    return found
