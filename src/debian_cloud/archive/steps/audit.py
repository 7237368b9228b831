# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the images of an archive with what its state knows of them.

For each image of STATE whose files are still kept, the folder below PUBLIC must
hold the files that the archive signed when it took the image, and the record
must describe them. Findings are printed, one a line: a word, the path, and a
sentence, with tabs between them. The word is `damaged` for what is not as it was
signed, `unknown` for a folder of which no record tells. With --fast, disks are
compared by size alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import lifecycle
from debian_cloud.archive import state as entered
from debian_cloud.errors import Error
from debian_cloud.host import checksums, sign

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from debian_cloud.image.index import ImageRecord


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the archive's state")
    parser.add_argument("public", type=Path, metavar="PUBLIC", help="the archive's public folder")
    parser.add_argument("--keyring", type=Path, required=True, metavar="FILE", help="the archive's own keys")
    parser.add_argument("--fast", action="store_true", help="compare disks by size alone")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    found = [*_findings(args.state, args.public, args.keyring, fast=args.fast)]
    for word, path, sentence in found:
        print(word, path, sentence, sep="\t")
    return 1 if found else 0


def _findings(state: Path, public: Path, keyring: Path, *, fast: bool) -> Iterator[tuple[str, str, str]]:
    images: dict[str, list[ImageRecord]] = {}
    for suite in entered.suites(state):
        for record in entered.records(state, suite):
            images.setdefault(record.directory, []).append(record)
    for directory, records in images.items():
        # What left the indexes loses its files some day.
        if records[0].status not in lifecycle.GONE or (public / directory).exists():
            yield from (("damaged", path, why) for path, why in _damaged(public, records, keyring, fast=fast))
    # Below each of them an image has the same place.
    for kept in ("images", "closures", "rebuilds"):
        for folder in sorted(public.glob(f"{kept}/*/*/*/*/")):
            path = str(folder.relative_to(public))
            if not folder.is_symlink() and "images" + path.removeprefix(kept) not in images:
                yield "unknown", path, "no record tells of it"


def _damaged(public: Path, records: list[ImageRecord], keyring: Path, *, fast: bool) -> Iterator[tuple[str, str]]:
    folder = public / records[0].directory
    disks = {record.name: record for record in records}
    try:
        sums = sign.verified(keyring, folder / "SHA512SUMS", folder / "SHA512SUMS.gpg").content.decode("ascii")
    except (Error, OSError):
        yield f"{records[0].directory}/SHA512SUMS", "it is not as the archive signed it"
        return
    wanted = {name: sha512 for sha512, _, name in (line.partition("  ") for line in sums.splitlines())}
    there = {path.name for path in folder.iterdir() if not path.name.startswith("SHA")}
    for name in sorted(there | {*wanted} | {*disks}):
        path, at = folder / name, f"{records[0].directory}/{name}"
        record = disks.get(name)
        if name not in there:
            yield at, "it is missing"
        elif name not in wanted:
            yield at, "the archive never signed it"
        elif path.is_symlink() or not path.is_file():
            yield at, "it is not a regular file"
        elif record and path.stat().st_size != record.size:
            yield at, f"it has {path.stat().st_size} bytes, and the index says {record.size}"
        elif not (fast and record) and checksums.digest(path, ("sha512",)).hashes["sha512"] != wanted[name]:
            yield at, "it is not the file that the archive signed"
        elif record and record.sha512 != wanted[name]:
            yield at, "the index has another hash of it than the archive signed"
    listed = {f"{records[0].stem}.{a.suffix}": a.sha256 for a in records[0].attestations}
    listed |= {f"{records[0].stem}.buildinfo": records[0].buildinfo_sha256}
    for name, sha256 in listed.items():
        path = folder / name
        if name in there & {*wanted} and checksums.digest(path, ("sha256",)).hashes["sha256"] != sha256:
            yield f"{records[0].directory}/{name}", "it is not the file that the index lists"
