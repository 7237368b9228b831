# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch the newest image of a configuration from the archive or its mirror.

The image stands in the signed index of the archive that the user has made known
(FILES), or in that which `apt update` fetched; apt's own helper
downloads it by the way that the index came, and proves its SHA-512. An archive
whose index is not as it must be is named in a warning, and left out. Of an image
that was withdrawn, it is reported which archive withdrew it, when, and why.

With --proof, what proves it comes, too, into the folder STEM.proof beside it: its
record, its .buildinfo, the archive's signed sums, and in STEM.proof/closure what
it was made of, of the mirror or else of the archive itself. So `debian-cloud verify
IMAGE` needs nothing else. Whatever has its own name there is whole, however a run
ends: what it fetches is in a hidden folder beside it until then, which the next
run of the same image removes. Where nobody has a closure, a warning names the places; a
folder STEM.proof/closure that is copied there by other ways counts as well.

    debian-cloud fetch ec2 --output images
    debian-cloud fetch container --suite bookworm --serial 20261121.0
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import lifecycle
from debian_cloud.build import workspace
from debian_cloud.cli import warn
from debian_cloud.errors import FAILED, USAGE, Error, did_you_mean
from debian_cloud.host import checksums, run
from debian_cloud.packages import images, options
from debian_cloud.proof import bundle
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.staleness import ImageStatus


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("config", metavar="CONFIG", help="an image configuration, such as ec2")
    options.add_suite(parser)
    parser.add_argument("--format", default="", help="its format (default: qcow2, or what there is)")
    parser.add_argument("--serial", default="", help="YYYYMMDD.N (default: the current one)")
    parser.add_argument("--archive", default="", metavar="URL", help="the archive, where apt knows several")
    parser.add_argument(
        "--proof", action="store_true", help="fetch what `verify` needs, too, into a folder beside it"
    )
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where it goes (default: here)")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    image = _choose(args)
    output: Path = args.output.resolve()
    with run.ending_politely():
        path = _fetch(image, output)
        if args.proof:
            _prove(image, output)
    print(path)
    return 0


def _fetch(image: images.Image, output: Path) -> Path:
    path = output / image.record.name
    if os.path.lexists(path):
        if path.is_file() and checksums.digest(path).hashes["sha512"] == image.record.sha512:
            return path
        raise Error(f"{path} exists already and is another file", "remove it, or choose another --output", USAGE)
    workspace.make_output(output)
    # A folder of its own: apt-helper keeps a file that it refuses, under another name.
    with run.partial(path, f"the fetch of {path.name} to {output}") as folder:
        fetched = folder / path.name
        images.fetch(image, fetched)
        if fetched.is_symlink():
            raise Error(f"apt gave a link and no file for {path.name}", "report it: the archive's address is unusual")
        fetched.rename(path)
    return path


def _prove(image: images.Image, output: Path) -> None:
    found = bundle.fetch(image, output)
    if found.asked:
        warn(
            f"what {image.record.stem} was made of is not at {' nor at '.join(found.asked)}:"
            f" `verify` needs it as {found.folder / names.CLOSURE}, or with --closure"
        )


def _choose(args: argparse.Namespace) -> images.Image:
    config = names.config(names.word(args.config, "configuration"))
    arch = options.architecture(args)
    known, said = _offered(args, config, arch)
    for sentence in known.refused:
        warn(sentence)
    # It may be in the index that cannot be read.
    status = FAILED if known.refused else USAGE
    found = [image for image in known.images if image.record.config == config]
    gone = _gone(said, config, args.suite, arch)
    if not found:
        raise _refusal(
            gone, args.serial, "no other image of it is published; `debian-cloud list --images` has all"
        ) or Error(
            f"no image of {config} in {args.suite}",
            did_you_mean(config, {i.record.config for i in known.images})
            if known.images
            else f"no image is published for {args.suite} and {arch}",
            status,
        )
    there = {image.record.format for image in found}
    format_ = args.format or ("qcow2" if "qcow2" in there else min(there))
    found = [
        image
        for image in found
        if image.record.format == format_
        and args.serial in ("", image.record.serial)
        and args.archive.rstrip("/") in ("", image.archive.rstrip("/"))
    ]
    if not found:
        wanted = printable(f"{format_} {args.serial}".strip())
        if args.serial and (refusal := _refusal(gone, args.serial, "`debian-cloud list --images` has the others")):
            raise refusal
        raise Error(f"no image of {config} in {args.suite} as {wanted}", "see `debian-cloud list --images`", status)
    archives = sorted({image.archive for image in found})
    if len(archives) > 1:
        raise Error(
            f"several archives have images of {config}: {', '.join(map(printable, archives))}",
            "choose: --archive URL",
            USAGE,
        )
    # The newest may be deprecated, or not official.
    current = [image for image in found if image.record.status == "current"]
    chosen = (current or found)[-1]
    newest = names.serial_key(gone[-1][0].serial) if gone else (0, 0)
    if not args.serial and newest > names.serial_key(chosen.record.serial):
        warn(_words(*gone[-1]))
    return chosen


def _offered(args: argparse.Namespace, config: str, arch: str) -> tuple[images.Known, images.Said]:
    """Images, and what became of others: of the user's own archive where it has such, else of this machine's."""
    mine = options.offered(args.suite, arch)
    if mine and args.archive.rstrip("/") not in ("", mine.uri.rstrip("/")):
        mine = None
    if mine and any(image.record.config == config for image in mine.known.images):
        return mine.known, mine.said
    try:
        known = images.known(args.suite, arch)
    except Error:
        if mine:
            return mine.known, mine.said
        raise
    refused = mine.known.refused if mine else ()
    try:
        said = images.statuses(lambda _: False)
    except Error:
        # An archive need not say what became of its images.
        said = images.Said(())
    return images.Known(known.images, (*refused, *known.refused)), said


def _gone(said: images.Said, config: str, suite: str, arch: str) -> list[tuple[ImageStatus, str]]:
    """The images of a configuration that are offered no more, oldest first, each with the archive that says so."""
    found = [
        (status, archive)
        for status, archive in zip(said.statuses, said.archives, strict=True)
        if (status.config, status.suite, status.architecture) == (config, suite, arch)
        and status.status in lifecycle.GONE
    ]
    return sorted(found, key=lambda one: names.serial_key(one[0].serial))


def _refusal(gone: list[tuple[ImageStatus, str]], serial: str, hint: str) -> Error | None:
    """What is reported of the newest of these, or of that with the serial; None when there is none."""
    wanted = [one for one in gone if serial in ("", one[0].serial)]
    return Error(_words(*wanted[-1]), hint) if wanted else None


def _words(status: ImageStatus, archive: str) -> str:
    image = f"{status.config} {status.serial} of {status.suite} for {status.architecture}"
    became = f"was withdrawn by {archive}" if status.status == "withdrawn" else f"has expired at {archive}"
    day = f" on {status.date}" if status.date else ""
    reason = f": {printable(status.reason, lifecycle.REASON)}" if status.reason else ""
    cves = f" ({printable(' '.join(status.cves), lifecycle.REASON)})" if status.cves else ""
    return f"{image} {became}{day}{reason}{cves}"
