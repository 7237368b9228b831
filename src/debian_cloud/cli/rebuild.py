# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebuild a published image, even years later, and compare.

FILE is an image's .buildinfo, or its .image record with the .buildinfo beside
it. The packages come only from the image's closure, which its archive keeps (and
which is beside FILE, if `fetch --proof` fetched both, or in the archive that the
user configured): each must be the one that the .buildinfo lists, by version and
SHA-256, and no other is used. No layer of a former build is used. Every file that the .buildinfo lists is built and
compared with its hash. The exit status is 0 if all are equal, and 1 if one is not.

The .buildinfo must be signed, as for `verify`, and the sources in the image must be
Debian's: otherwise equal bytes would prove nothing about their origin.

With --statement, a rebuilder who got the same bytes can publish that: it writes a
signed in-toto statement that `verify --rebuilders` counts.

    debian-cloud rebuild debian-13-ec2-amd64-20261121.0.buildinfo --output again
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.cli import options
from debian_cloud.proof import rebuild

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the image's .buildinfo or .image")
    options.add_closure(parser)
    options.add_trust(parser)
    parser.add_argument("--seed", default="", metavar="FILE", help="the seed that the image was made with")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the files in DIR (default: remove them)")
    parser.add_argument("--statement", type=Path, metavar="FILE", help="write a signed statement of the same bytes")
    parser.add_argument("--homedir", type=Path, metavar="DIR", help="GnuPG home with the key that signs it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    made = rebuild.rebuild(
        args.file,
        options.trust(args),
        closure=args.closure,
        archive=args.archive,
        seed=Path(args.seed) if args.seed else None,
        output=args.output,
        statement=args.statement,
        quiet=args.quiet,
    )
    stem, signers = made.described.buildinfo.stem, made.described.signers
    if args.json:
        print(
            json.dumps({"stem": stem, "plan": made.plan, "same": made.same, "buildinfo-signers": signers}, indent=2)
        )
    else:
        for name, equal in made.same.items():
            print(f"{name}: {'the same bytes' if equal else 'DIFFERS'}")
        by = f"signed by {', '.join(signers)}" if signers else "not signed"
        print(f"{made.described.name} is {by}")
    rebuild.refuse(made, args.output)
    if args.statement:
        rebuild.state(made, args.statement, args.homedir)
    return 0
