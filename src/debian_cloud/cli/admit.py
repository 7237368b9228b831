# SPDX-License-Identifier: GPL-3.0-or-later
"""Check an uploaded image against its record, before the archive takes it.

FOLDER holds the files of one upload, whose signature and hashes the archive has
verified: the record STEM.image, the .buildinfo, the .changes, and each file
that the record names, with the size and the hashes that it gives, and nothing
else. The suite must be SUITE. An image that a person changed by options of the
builder (`Official: no`) is for suites that take such images. SHA256SUMS and
SHA512SUMS are written beside them, and the path at which the archive publishes
the folder is printed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import checksums, deb822, index
from debian_cloud.errors import USAGE, Error

if TYPE_CHECKING:
    import argparse

PLUMBING = True

_SLACK = 86400
"""Seconds by which a builder's clock may be ahead."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the files of one upload")
    parser.add_argument("suite", metavar="SUITE", help="the suite that the upload is for")
    parser.add_argument("--unofficial", action="store_true", help="the suite takes images that are not official, too")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    folder: Path = args.folder
    if not folder.is_dir():
        raise Error(f"{folder} is no folder", "FOLDER holds the files of one upload", USAGE)
    present = {path.name for path in folder.iterdir()}
    found = sorted(name for name in present if name.endswith(".image"))
    if len(found) != 1:
        raise Error(f"an image upload has exactly one .image record, this one has {len(found)}")
    try:
        records = index.parse((folder / found[0]).read_text("utf-8"), strict=True)
    except UnicodeDecodeError:
        raise Error(f"{found[0]} is not UTF-8 text") from None
    if not records:
        raise Error(f"{found[0]} has no record in it")
    if len({record.directory for record in records}) != 1 or len({r.name for r in records}) != len(records):
        raise Error(f"{found[0]} has records of more than one image, or one twice", "upload each image on its own")
    first = records[0]
    if first.suite != args.suite:
        raise Error(f"the image is for {first.suite}, the upload for {args.suite}", "upload it to its own suite")

    if first.serial > time.strftime("%Y%m%d.9999", time.gmtime(time.time() + _SLACK)):
        raise Error(f"the serial {first.serial} lies in the future", "no later image could ever be newer")
    expected = {f"{first.stem}.{extension}" for extension in ("image", "buildinfo", "changes")}
    expected |= {*(record.name for record in records)}
    for name in sorted(expected - present):
        raise Error(f"the upload has no file {name}, which its record names")
    for name in sorted(present - expected):
        raise Error(f"the upload has a file {name} that its record does not name")
    for name in sorted(expected):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise Error(f"{name} is not a regular file")
    _refuse_unofficial(folder / f"{first.stem}.buildinfo", records, args.suite, too=args.unofficial)

    digests = {name: checksums.digest(folder / name) for name in expected}
    for record in records:
        got = digests[record.name]
        if (got.size, got.hashes["sha256"], got.hashes["sha512"]) != (record.size, record.sha256, record.sha512):
            raise Error(f"{record.name} is not the file that its record describes", "build and sign it again")
    for name, text in checksums.sums(digests).items():
        (folder / name).write_text(text, "utf-8")
    print(first.directory)
    return 0


def _refuse_unofficial(buildinfo: Path, records: tuple[index.ImageRecord, ...], suite: str, *, too: bool) -> None:
    """Error when the suite does not take what a person changed, or when the record does not own up to it."""
    try:
        (stanza,) = deb822.parse(buildinfo.read_text("utf-8"))
    except ValueError:
        raise Error(f"{buildinfo.name} is not one stanza of text", "build it again") from None
    changes = [line.strip() for line in stanza.get("Image-Changes", "").splitlines() if line.strip()]
    if {record.official for record in records} != {not changes}:
        raise Error(
            f"the record and {buildinfo.name} do not agree on whether the image is official",
            "upload them as the builder wrote them",
        )
    if changes and not too:
        raise Error(
            f"the image is not official ({', '.join(changes)}), and {suite} takes official images alone",
            "make the changes a configuration (debian-cloud new), or upload to a suite that takes such images",
        )
