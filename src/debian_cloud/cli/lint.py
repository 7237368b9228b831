# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a configuration against Debian's rules for official images.

What is checked is a .deb, those that a .changes lists, a source tree (the
configurations of its debian/control, and the trees that they install), or by
its name a configuration of the archive with the layers that it is built on.
Only there is it known from which component each package of the image comes,
whether all of them can be installed, and whether they fit on its disk: of a file,
the last line but one names the rules that were not asked. `show` and `build` of a
configuration that an archive has compare sizes, too.

A finding is an error or a warning; it has the rule's name, a place, a sentence
and a hint. The exit status is 1 when there is an error. --rules tells all rules.

--contents also asks whether another package of Debian has the same file. The
suite's signed lists of files are fetched for that: some 50 MB, once for every
point release, and half a minute to read.

    debian-cloud lint ../debian-cloud-config-my-hpc_1.0~deb13u1_amd64.changes
    debian-cloud lint ec2 --suite trixie
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.build import steps
from debian_cloud.configuration import lint
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import sign
from debian_cloud.image import config
from debian_cloud.packages import debs, options
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from debian_cloud.image.binary import Binary
    from debian_cloud.image.resolution import Resolution
    from debian_cloud.packages.resolver import Apt


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "what", nargs="?", default="", metavar="PATH|CONFIG", help="a .deb, a .changes, a source tree or a name"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--rules", action="store_true", help="print the rules, and check nothing")
    parser.add_argument("--contents", action="store_true", help="look for files that another package has, too")
    options.add_sources(parser)


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    if args.rules:
        for rule in lint.RULES:
            print(f"{rule.severity:<8} {rule.name}: {rule.demand}")
        return 0
    if not args.what:
        raise Error("nothing to check", "give a .deb, a .changes, a source tree, or a configuration's name", USAGE)
    subjects = _of_path(Path(args.what)) if _is_path(args.what) else _of_archive(args)
    if args.contents:
        subjects = _with_owners(args, subjects)
    # The two architectures of one stanza often say the same.
    found = tuple(dict.fromkeys(finding for subject in subjects for finding in lint.findings(subject)))
    errors = sum(finding.severity == lint.ERROR for finding in found)
    unasked = tuple(dict.fromkeys(rule for subject in subjects for rule in lint.unasked(subject)))
    checked = tuple(dict.fromkeys(subject.binary.name for subject in subjects))
    if args.json:
        print(
            json.dumps(
                {"checked": checked, "unasked": unasked, "findings": [asdict(finding) for finding in found]}, indent=2
            )
        )
    else:
        for finding in found:
            place, sentence, hint = map(printable, (finding.place, finding.sentence, finding.hint))
            print(f"{finding.severity}: {finding.rule}: {place}: {sentence}\n  hint: {hint}")
        if unasked:
            print(f"not asked of a file: {', '.join(unasked)}; `debian-cloud lint NAME` asks the archive that has it")
        counts = (errors, "error"), (len(found) - errors, "warning")
        print(f"{_number(len(checked), 'package')}: {', '.join(_number(*count) for count in counts)}")
    return 1 if errors else 0


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _is_path(what: str) -> bool:
    return "/" in what or what.endswith((".deb", ".changes")) or os.path.lexists(what)


def _of_path(path: Path) -> tuple[lint.Subject, ...]:
    """What a file or a source tree has to be checked."""
    if (path / "debian" / "control").is_file():
        suite, binaries = debs.source(path.resolve())
        images = frozenset(binary.name for binary in binaries if config.is_image(binary.fields))
        subjects = [lint.Subject(binary, suite, images) for binary in binaries]
    elif path.suffix == ".changes" and path.is_file():
        subjects = _of_changes(path)
    elif path.suffix == ".deb":
        binary = debs.read(path)
        subjects = [lint.Subject(binary, lint.suite(binary))] if _is_one(binary) else []
    else:
        raise Error(
            f"{path} is nothing that can be checked", "a .deb, a .changes, or a folder that has debian/control", USAGE
        )
    if not subjects:
        raise Error(
            f"{path} has no image configuration", "a package with Image-* fields, or debian-cloud-config-*", USAGE
        )
    return tuple(subjects)


def _is_one(binary: Binary) -> bool:
    return debs.is_configuration(binary.name, binary.fields)


def _of_changes(path: Path) -> list[lint.Subject]:
    (changes, *_) = deb822.parse(sign.text(path)) or ({},)
    listed = [line.split()[-1] for line in changes.get("Files", "").splitlines() if line.endswith(".deb")]
    # A name that leads elsewhere is none of this upload.
    binaries = [debs.read(path.parent / Path(name).name) for name in listed]
    suite = changes.get("Distribution", "")
    there = [binary for binary in binaries if _is_one(binary)]
    images = frozenset(binary.name for binary in there if config.is_image(binary.fields))
    return [lint.Subject(binary, suite, images) for binary in there]


def _of_archive(args: argparse.Namespace) -> tuple[lint.Subject, ...]:
    """A configuration of the archive, with the layers that it brings and the packages of its image."""
    wanted = names.package(names.word(args.what, "configuration"))
    with options.origin(args) as origin:
        known = sorted(name for name in origin.apt.known() if name.startswith(names.PACKAGE_PREFIX))
        if wanted not in known:
            origin.apt.configuration(args.what, args.suite)  # its error says what there is
        images = frozenset(name for name in known if config.is_image(origin.apt.fields(name)))
        components: dict[str, str] = {}
        unresolved = crowded = ""
        if wanted in images:
            try:
                resolution = origin.resolve(args.what, args.suite)
                components = origin.apt.components(package.name for package in resolution.packages)
                crowded = _crowded(resolution)
            except Error as error:
                unresolved = error.message.partition("\n")[0]
        brought = [name for name in known if name in components and name != wanted]
        binaries = debs.fetched(origin, _versions(origin.apt, [wanted, *brought]))
    return tuple(
        lint.Subject(binary, args.suite, images, components, unresolved=unresolved, crowded=crowded)
        if binary.name == wanted
        else lint.Subject(binary, args.suite, images)
        for binary in binaries
    )


def _crowded(resolution: Resolution) -> str:
    try:
        steps.check_size(resolution)
    except Error as error:
        return error.message
    return ""


def _versions(apt: Apt, packages: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, apt.fields(name)["Version"]) for name in packages]


def _with_owners(args: argparse.Namespace, subjects: tuple[lint.Subject, ...]) -> tuple[lint.Subject, ...]:
    """The same, and who else has their files: in the release that a package is for, else in the one asked for."""
    # UNRELEASED, say, is no suite that a mirror has.
    args.suite = next((subject.suite for subject in subjects if subject.suite in names.RELEASES), args.suite)
    wanted = {file.path for subject in subjects for file in subject.binary.files}
    with options.contents(args) as contents:
        owners = debs.owners(contents, wanted)
    return tuple(replace(subject, owners=owners) for subject in subjects)
