# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a configuration against Debian's rules for official images.

It checks a .deb, the .debs that a .changes lists, a source tree (the configurations
of its debian/control, and the trees that they install), or a configuration of the
archive by its name, with the layers that it is built on. Only for the last, it is
known from which component each package of the image comes, whether all of them can
be installed, and whether they fit on the disk: for a file, the last line but one
names the rules that were not checked. `show` and `build` also compare sizes.

A finding is an error or a warning; it has the rule's name, a place, a sentence
and a hint. The exit status is 1 if there is an error. --rules lists all rules.

--contents also checks whether another package of Debian has the same file. It
fetches the suite's signed lists of files, about 50 MB once for every point release,
which take half a minute to read.

    debian-cloud lint ../debian-cloud-config-my-hpc_1.0~deb13u1_amd64.changes
    debian-cloud lint ec2 --suite trixie
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.build import subjects
from debian_cloud.cli import options
from debian_cloud.configuration import lint
from debian_cloud.errors import USAGE, Error
from debian_cloud.packages import words
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "what", nargs="?", default="", metavar="PATH|CONFIG", help="a .deb, a .changes, a source tree or a name"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--rules", action="store_true", help="print only the rules")
    parser.add_argument("--contents", action="store_true", help="look for files that another package also has")
    options.add_sources(parser)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    if args.rules:
        for rule in lint.RULES:
            print(f"{rule.severity:<8} {rule.name}: {rule.demand}")
        return 0
    if not args.what:
        raise Error("nothing to check", "give a .deb, a .changes, a source tree or a configuration's name", USAGE)
    checked = subjects.check(_subjects(args))
    if args.json:
        findings = [asdict(finding) for finding in checked.findings]
        print(json.dumps({"checked": checked.packages, "unasked": checked.unasked, "findings": findings}, indent=2))
    else:
        for finding in checked.findings:
            place, sentence, hint = map(printable, (finding.place, finding.sentence, finding.hint))
            print(f"{finding.severity}: {finding.rule}: {place}: {sentence}\n  hint: {hint}")
        if checked.unasked:
            rules = ", ".join(checked.unasked)
            print(f"not checked for a file: {rules}; `debian-cloud lint NAME` checks them in an archive")
        counts = (checked.errors, "error"), (len(checked.findings) - checked.errors, "warning")
        print(f"{_number(len(checked.packages), 'package')}: {', '.join(_number(*count) for count in counts)}")
    return 1 if checked.errors else 0


def _subjects(args: argparse.Namespace) -> tuple[lint.Subject, ...]:
    what, asked = args.what, (words.places(args), args.suite, args.arch)
    found = subjects.of_path(Path(what)) if _is_path(what) else subjects.of_archive(what, *asked)
    return subjects.with_owners(found, *asked) if args.contents else found


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _is_path(what: str) -> bool:
    return "/" in what or what.endswith((".deb", ".changes")) or os.path.lexists(what)
