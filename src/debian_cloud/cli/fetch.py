# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch the newest image of a configuration from the archive or its mirror.

The image stands in the signed index that `apt update` fetched; apt's own helper
downloads it by the way that the index came, and proves its SHA-512. An archive
whose index is not as it must be is named in a warning, and left out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import checksums, images, names, options, run, workspace
from debian_cloud.cli import warn
from debian_cloud.errors import FAILED, USAGE, Error, did_you_mean
from debian_cloud.printable import printable

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("config", metavar="CONFIG", help="an image configuration, such as ec2")
    options.add_suite(parser)
    parser.add_argument("--format", default="", help="its format (default: qcow2, or what there is)")
    parser.add_argument("--serial", default="", help="YYYYMMDD.N (default: the current one)")
    parser.add_argument("--archive", default="", metavar="URL", help="the archive, where apt knows several")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where it goes (default: here)")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    image = _choose(args)
    output: Path = args.output.resolve()
    path = output / image.record.name
    if path.exists():
        if checksums.digest(path).hashes["sha512"] == image.record.sha512:
            print(path)
            return 0
        raise Error(f"{path} exists already and is another file", "remove it, or choose another --output", USAGE)
    workspace.make_output(output)
    # A folder of its own: apt-helper keeps a file that it refuses, under another name.
    with run.ending_politely(), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=output) as partial:
        fetched = Path(partial) / path.name
        images.fetch(image, str(fetched))
        if fetched.is_symlink():
            raise Error(f"apt gave a link and no file for {path.name}", "report it: the archive's address is unusual")
        fetched.rename(path)
    print(path)
    return 0


def _choose(args: argparse.Namespace) -> images.Image:
    config = names.config(names.word(args.config, "configuration"))
    known = images.known(args.suite, options.architecture(args))
    for sentence in known.refused:
        warn(sentence)
    # It may be in the index that cannot be read.
    status = FAILED if known.refused else USAGE
    found = [image for image in known.images if image.record.config == config]
    if not found:
        raise Error(
            f"no image of {config} in {args.suite}",
            did_you_mean(config, {i.record.config for i in known.images}),
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
    return (current or found)[-1]
