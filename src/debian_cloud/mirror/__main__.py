# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirror an archive of Debian cloud images, and show only what is verified; `check` looks at a mirror from outside.

SOURCE is rsync://HOST/MODULE/PATH or http://HOST/PATH (or https), the directory that has dists/; of several, the
first is taken that can be reached and verified. DEST is the directory that servers serve. See debian-cloud-mirror(1).
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import VERSION
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import command, files, signals
from debian_cloud.mirror import follow, outside, request
from debian_cloud.mirror.selection import Selection
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

PROGRAM = "debian-cloud-mirror"
CHECK = "check"
"""The verb that looks at a mirror; as a directory it would be ./check, and no source has this name."""
_LONGEST = 9
"""Maximum digits of a number."""


def _carried(made: argparse.ArgumentParser) -> None:
    """Declare which archive it is, and what a mirror carries of it."""
    made.add_argument(
        "--keyring", metavar="FILE", required=True, help="the archive's public keys; no other is trusted"
    )
    made.add_argument("--suite", metavar="SUITE", required=True, action="append", help="a suite of it; repeatable")
    made.add_argument(
        "--config", metavar="NAME", action="append", default=[], help="only images of this configuration"
    )
    made.add_argument("--architecture", metavar="ARCH", action="append", default=[], help="only images for this one")
    made.add_argument(
        "--format", metavar="FORMAT", action="append", default=[], help="only image files of this format"
    )
    made.add_argument("--newest", metavar="NUMBER", help="only so many of the newest serials of each image")


def checker() -> argparse.ArgumentParser:
    """The parser of the command line of `check`."""
    made = command.parser(f"{PROGRAM} {CHECK}", outside.__doc__)
    _carried(made)
    made.add_argument("--against", metavar="SOURCE", help="the archive that the mirror should show")
    made.add_argument("--files", metavar="NUMBER", default=str(outside.MOST), help="ask for so many files (1000)")
    made.add_argument(
        "--timeout", metavar="SECONDS", default=str(request.TIMEOUT), help="how long to wait for an answer (60)"
    )
    made.add_argument("--json", action="store_true", help="print the findings as JSON")
    made.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    made.add_argument("mirror", metavar="URL", help="the address of the mirror, http or https")
    return made


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = command.parser(PROGRAM, __doc__)
    _carried(made)
    made.add_argument("--signers", metavar="NUMBER", default="1", help="require signatures by so many keys (1)")
    made.add_argument("--closures", action="store_true", help="also mirror what each image was made of")
    made.add_argument("--dry-run", action="store_true", help="only print what would be fetched")
    made.add_argument("--wait", action="store_true", help="wait until another run has ended")
    made.add_argument("--verify-all", action="store_true", help="hash all files, and fetch damaged ones again")
    made.add_argument("--max-delete", metavar="NUMBER", help="remove nothing if it would be more files than that")
    made.add_argument("--bwlimit", metavar="KIB", help="fetch at most so many KiB per second")
    made.add_argument(
        "--timeout", metavar="SECONDS", default=str(request.TIMEOUT), help="give up a source that sends nothing (60)"
    )
    made.add_argument("--quiet", action="store_true", help="print only errors")
    made.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")
    made.add_argument("sources", metavar="SOURCE", nargs="+", help="the address of the archive or of another mirror")
    made.add_argument("dest", metavar="DEST", help="the directory of the mirror")
    return made


def run(argv: list[str]) -> int:
    """Run one command line, and return its exit status."""
    if argv[:1] == [CHECK]:
        return _check(checker().parse_args(argv[1:]))
    args = parser().parse_args(argv)
    keyring = _keyring(args)
    if not args.dest or "://" in args.dest:
        raise Error(
            f"{printable(repr(args.dest))} is not a directory for a mirror", "give DEST after the sources", USAGE
        )
    wanted = request.Request(
        tuple(map(request.source, args.sources)),
        Path(args.dest).absolute(),
        keyring,
        _suites(args),
        signers=_number(args.signers, "signers"),
        selection=_selection(args),
        closures=args.closures,
        dry_run=args.dry_run,
        wait=args.wait,
        verify_all=args.verify_all,
        timeout=_number(args.timeout, "seconds"),
        bandwidth=0 if args.bwlimit is None else _number(args.bwlimit, "KiB per second"),
        removals=-1 if args.max_delete is None else _number(args.max_delete, "files", least=0),
    )

    def say(sentence: str) -> None:
        if not args.quiet:
            print(printable(sentence, longest=1000), flush=True)

    def warn(sentence: str) -> None:
        print(f"{PROGRAM}: warning: {printable(sentence, longest=1000)}", file=sys.stderr, flush=True)

    # Servers read what is shown.
    os.umask(0o022)
    with signals.ending_politely():
        follow.follow(wanted, follow.Told(say, warn, args.quiet))
    return 0


def _check(args: argparse.Namespace) -> int:
    """Look at a mirror, print what was found, and return the exit status."""
    wanted = outside.Look(
        request.source(args.mirror),
        _keyring(args),
        _suites(args),
        _selection(args),
        _number(args.timeout, "seconds"),
        None if args.against is None else request.source(args.against),
        _number(args.files, "files"),
    )
    if wanted.source.scheme == "rsync":
        raise Error("a mirror is looked at by http or https", "give the address that its clients use", USAGE)

    def say(sentence: str) -> None:
        if not args.quiet and not args.json:
            print(printable(sentence, longest=1000), flush=True)

    with signals.ending_politely():
        found = outside.look(wanted, say)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    for finding in found if not args.json else ():
        if not args.quiet or finding.level != outside.OK:
            print(printable(f"{finding.level}: {finding.what}: {finding.sentence}", longest=1000))
    return int(any(finding.level == outside.ERROR for finding in found))


def _keyring(args: argparse.Namespace) -> Path:
    keyring = Path(args.keyring).absolute()
    with files.opened(keyring, "keyring"):
        pass
    return keyring


def _suites(args: argparse.Namespace) -> tuple[str, ...]:
    suites = tuple(map(request.suite, args.suite))
    if len(set(suites)) != len(suites):
        raise Error("a suite is given twice", "give each suite once", USAGE)
    return suites


def _selection(args: argparse.Namespace) -> Selection:
    return Selection(
        request.words("--config", args.config),
        request.words("--architecture", args.architecture),
        request.words("--format", args.format),
        0 if args.newest is None else _number(args.newest, "serials"),
    )


def _number(text: str, what: str, least: int = 1) -> int:
    if not re.fullmatch("0|[1-9][0-9]*", text) or len(text) > _LONGEST or int(text) < least:
        raise Error(f"{printable(repr(text))} is not a number of {what}", f"give a number from {least} on", USAGE)
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Run `debian-cloud-mirror …`; the exit status is 0 done, 1 verification or policy failed, 2 wrong use."""
    return command.main(run, argv, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
