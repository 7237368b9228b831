# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect what `configuration.lint` checks by Debian's rules: the configurations of a path, or one of the archive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.build import steps
from debian_cloud.configuration import lint
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import sign
from debian_cloud.image import config
from debian_cloud.packages import debs, origin
from debian_cloud.text import deb822

if TYPE_CHECKING:
    from collections.abc import Iterable

    from debian_cloud.configuration.lint import Finding
    from debian_cloud.image.binary import Binary
    from debian_cloud.image.resolution import Resolution
    from debian_cloud.packages.origin import Places
    from debian_cloud.packages.resolver import Apt


@dataclass(frozen=True, slots=True)
class Checked:
    """The packages that were checked, the rules that could not be checked, and the findings."""

    packages: tuple[str, ...]
    unasked: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many of the findings are errors; the others are warnings."""
        return sum(finding.severity == lint.ERROR for finding in self.findings)


def check(subjects: Iterable[lint.Subject]) -> Checked:
    """Check subjects; return each finding once, since the two architectures of one stanza often have the same."""
    subjects = tuple(subjects)
    return Checked(
        tuple(dict.fromkeys(subject.binary.name for subject in subjects)),
        tuple(dict.fromkeys(rule for subject in subjects for rule in lint.unasked(subject))),
        tuple(dict.fromkeys(finding for subject in subjects for finding in lint.findings(subject))),
    )


def of_path(path: Path) -> tuple[lint.Subject, ...]:
    """Return what is to be checked in a file or a source tree."""
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
            f"{path} cannot be checked", "give a .deb, a .changes, or a directory that has debian/control", USAGE
        )
    if not subjects:
        raise Error(
            f"{path} has no image configuration",
            "give a package with Image-* fields, or debian-cloud-config-*",
            USAGE,
        )
    return tuple(subjects)


def _is_one(binary: Binary) -> bool:
    return debs.is_configuration(binary.name, binary.fields)


def _of_changes(path: Path) -> list[lint.Subject]:
    (changes, *_) = deb822.parse(sign.text(path)) or ({},)
    listed = [line.split()[-1] for line in changes.get("Files", "").splitlines() if line.endswith(".deb")]
    # A path to another directory is not part of this upload.
    binaries = [debs.read(path.parent / Path(name).name) for name in listed]
    suite = changes.get("Distribution", "")
    there = [binary for binary in binaries if _is_one(binary)]
    images = frozenset(binary.name for binary in there if config.is_image(binary.fields))
    return [lint.Subject(binary, suite, images) for binary in there]


def of_archive(
    name: str, places: Places, suite: str = origin.DEFAULT_SUITE, arch: str = ""
) -> tuple[lint.Subject, ...]:
    """Return a configuration of the archive, with the layers that it installs and the packages of its image."""
    wanted = names.package(names.word(name, "configuration"))
    with origin.of(places, suite, arch) as read:
        known = sorted(package for package in read.apt.known() if package.startswith(names.PACKAGE_PREFIX))
        if wanted not in known:
            read.apt.configuration(name, suite)  # its error says what there is
        images = frozenset(package for package in known if config.is_image(read.apt.fields(package)))
        components: dict[str, str] = {}
        unresolved = crowded = ""
        if wanted in images:
            try:
                resolution = read.resolve(name, suite)
                components = read.apt.components(package.name for package in resolution.packages)
                crowded = _crowded(resolution)
            except Error as error:
                unresolved = error.message.partition("\n")[0]
        brought = [package for package in known if package in components and package != wanted]
        binaries = debs.fetched(read, _versions(read.apt, [wanted, *brought]))
    return tuple(
        lint.Subject(binary, suite, images, components, unresolved=unresolved, crowded=crowded)
        if binary.name == wanted
        else lint.Subject(binary, suite, images)
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


def with_owners(
    subjects: tuple[lint.Subject, ...], places: Places, suite: str = origin.DEFAULT_SUITE, arch: str = ""
) -> tuple[lint.Subject, ...]:
    """Return the subjects with the owners of their files, in the release that a package is for, else in `suite`."""
    # For example, UNRELEASED is not a suite of a mirror.
    suite = next((subject.suite for subject in subjects if subject.suite in names.RELEASES), suite)
    wanted = {file.path for subject in subjects for file in subject.binary.files}
    with origin.contents(places, suite, arch) as contents:
        owners = debs.owners(contents, wanted)
    return tuple(replace(subject, owners=owners) for subject in subjects)
