# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the next upload from the queue of an archive.

Of what is in DIR/incoming, the first upload that an uploader has signed and that
is whole comes into DIR/tmp/checked, as copies that nobody else can change: from
the list in the signed text, each file with its size and hash, and each package
read as strictly as no tool does. Whatever comes before it and is none is set
aside in DIR/rejected, with a reason. A line a decision is printed. When nothing
is left, DIR/tmp/checked is empty.

With --refused, the upload that was taken is set aside before that, for the
reason in the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.archive import upload, uploaders
from debian_cloud.archive.incoming import Queue, Rules

if TYPE_CHECKING:
    import argparse

_KEY: Final = re.compile("^[ \t]*([0-9A-Fa-f]{40})(?=[ \t])", re.MULTILINE)
"""What a line of conf/uploaders begins with."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive, whose lock is held")
    parser.add_argument(
        "--keys",
        type=Path,
        required=True,
        metavar="FILE",
        help="the keys that sign, as the step `signing` lists them",
    )
    parser.add_argument(
        "--keyring", type=Path, required=True, metavar="FILE", help="the same keys, as gpg --export writes them"
    )
    parser.add_argument(
        "--owners", type=Path, required=True, metavar="FILE", help="packages of all suites, each with its source"
    )
    parser.add_argument("--refused", type=Path, metavar="FILE", help="why the one that was taken is refused")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    archive: Path = args.archive
    overrides = archive / "conf/overrides"
    rules = Rules(
        archive / "uploaders",
        args.keyring,
        uploaders.keys(args.keys.read_text("utf-8", "replace")),
        frozenset(key.upper() for key in _KEY.findall((archive / "conf/uploaders").read_text("utf-8", "replace"))),
        upload.Owners(
            upload.holders(args.owners.read_text("utf-8")),
            upload.pairs(overrides.read_text("utf-8") if overrides.exists() else "", "conf/overrides"),
        ),
    )
    queue = Queue(archive)
    limits = queue.limits()
    if args.refused:
        print(queue.refuse(args.refused.read_text("utf-8", "replace")))
    for line in queue.take(rules):
        print(line)
    for line in queue.prune(limits):
        print(line)
    return 0
