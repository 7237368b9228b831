# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's rules for configurations of official images: one function for each rule.

A rule has the name of its function and demands what the docstring says. The function yields, for each violation, its
place in the package and a sentence.
"""

from __future__ import annotations

import fnmatch
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.configuration import scripts
from debian_cloud.errors import Error
from debian_cloud.image import config, generated, identities
from debian_cloud.image.binary import ENTRY, MAINTAINER_SCRIPTS, QUESTIONS, relations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from debian_cloud.image.binary import Binary

    Check = Callable[["Subject"], Iterator[tuple[str, str]]]

ERROR: Final = "error"
WARNING: Final = "warning"

DROP_INS: Final = {
    "/etc/*.d/*": "settings in addition to those of the package that reads them",
    "/usr/lib/*": "a vendor's settings, units and scripts",
    "/usr/share/*": "files that are the same on every architecture",
}
"""Where a configuration may install files, and what files belong there."""
NOT_DROP_INS: Final = {
    "/etc/init.d/*": "services must be systemd units",
    "/etc/rc?.d/*": "services must be systemd units",
}
SINGLE_FILES: Final = {
    "/etc/wsl.conf": "WSL reads only this file, and no package of Debian ships it",
}
"""Files in /etc that are read without drop-ins, and that no package of Debian ships."""

# No more of a changelog is unpacked than its first line can be.
_FIRST_LINE: Final = 1024
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Subject:
    """One configuration package, and what is known of its surroundings; what is empty is unknown.

    `images` are names of packages that are images; `components` has the component of each package of the image;
    `owners` has the other packages that ship a path; `unresolved` says why the image cannot be made; `crowded` says
    why its packages do not fit on its disk.
    """

    binary: Binary
    suite: str = ""
    images: frozenset[str] = frozenset()
    components: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unresolved: str = ""
    crowded: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation of a rule; `place` is package:path or package:script."""

    rule: str
    severity: str
    place: str
    sentence: str
    hint: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; with `of_images`, layers are not checked."""

    name: str
    severity: str
    demand: str
    hint: str
    check: Check
    of_images: bool


RULES: Final[list[Rule]] = []
_OF_ARCHIVE: Final = ("installable", "fits-on-its-disk")
"""Rules that only apt can check, for a configuration that an archive has."""


def findings(subject: Subject) -> tuple[Finding, ...]:
    """Return all violations, in the order of the rules."""
    is_image = config.is_image(subject.binary.fields)
    return tuple(
        Finding(rule.name, rule.severity, ":".join(filter(None, (subject.binary.name, where))), sentence, rule.hint)
        for rule in RULES
        if is_image or not rule.of_images
        for where, sentence in rule.check(subject)
    )


def unasked(subject: Subject) -> tuple[str, ...]:
    """Return the rules that could not be checked, since the image's dependencies were not resolved."""
    known = subject.components or subject.unresolved or not config.is_image(subject.binary.fields)
    return () if known else _OF_ARCHIVE


def suite(binary: Binary) -> str:
    """Return the suite that a package's own changelog is for; "" if it has none."""
    doc = f"/usr/share/doc/{binary.name}"
    for file in binary.files:
        if file.path in (f"{doc}/changelog.gz", f"{doc}/changelog.Debian.gz"):
            try:
                text = zlib.decompressobj(_GZIP).decompress(file.content, _FIRST_LINE)
            except zlib.error:
                return ""
            match = ENTRY.match(text.decode("utf-8", "replace"))
            return match["suite"] if match else ""
    return ""


def _rule(severity: str, hint: str, *, of_images: bool = False) -> Callable[[Check], Check]:
    def enter(check: Check) -> Check:
        name = getattr(check, "__name__", "")
        RULES.append(Rule(name.replace("_", "-"), severity, check.__doc__ or "", hint, check, of_images))
        return check

    return enter


# What the image is made of.


@_rule(
    ERROR,
    "official images use only main; a configuration that needs a board's firmware declares it in"
    " Image-Components, and is in contrib (Debian Policy 2.2.2)",
)
def only_main(subject: Subject) -> Iterator[tuple[str, str]]:
    """All packages are from main or from a component that Image-Components declares."""
    declared = {"main", *_words(subject, "Image-Components")}
    area, _, rest = subject.binary.fields.get("Section", "").rpartition("/")
    # What depends on a declared component is itself in contrib (Debian Policy 2.2.2).
    if area and area not in declared | ({"contrib"} if len(declared) > 1 else set()):
        yield "", f"its section is {area}/{rest}"
    elif rest and not area and len(declared) > 1:
        yield "", f"its section is {rest}, but it takes packages from {', '.join(sorted(declared - {'main'}))}"
    for package, component in subject.components.items():
        if component not in declared:
            yield "", f"{package} comes from {component}"


@_rule(WARNING, "Debian's vote of 2022 allows it for installers; the description should say why the image needs it")
def non_free_firmware(subject: Subject) -> Iterator[tuple[str, str]]:
    """An official image has packages of non-free-firmware only if its hardware needs them."""
    if "non-free-firmware" in _words(subject, "Image-Components"):
        brought = sorted(p for p, component in subject.components.items() if component == "non-free-firmware")
        yield "", f"it takes packages from non-free-firmware{': ' if brought else ''}{', '.join(brought)}"


@_rule(WARNING, "an unofficial image may have it: check each licence before you distribute the image")
def not_official(subject: Subject) -> Iterator[tuple[str, str]]:
    """Debian's official images have no packages of contrib and non-free."""
    for component in ("contrib", "non-free"):
        if component in _words(subject, "Image-Components"):
            brought = sorted(package for package, area in subject.components.items() if area == component)
            yield "", f"it takes packages from {component}{': ' if brought else ''}{', '.join(brought)}"


@_rule(ERROR, "apt-get --simulate install shows more, as does `debian-cloud plan`", of_images=True)
def installable(subject: Subject) -> Iterator[tuple[str, str]]:
    """The suite has all packages that the image depends on."""
    if subject.unresolved and not list(valid_fields(subject)):
        yield "", subject.unresolved


@_rule(ERROR, "set Image-Size to that; a machine can enlarge its disk, but not shrink it", of_images=True)
def fits_on_its_disk(subject: Subject) -> Iterator[tuple[str, str]]:
    """The packages of the image fit on its disk."""
    if subject.crowded:
        yield "", subject.crowded


@_rule(ERROR, "an image is one machine: depend on the layers that both share")
def no_other_image(subject: Subject) -> Iterator[tuple[str, str]]:
    """No configuration depends on another image."""
    for alternatives in _dependencies(subject):
        for name in alternatives:
            # The name does not tell: a user's own layers are also called debian-cloud-config-*.
            if name == names.VIRTUAL_PACKAGE or (name in subject.images and name != subject.binary.name):
                yield "", f"it depends on {name}, which is an image of its own"


@_rule(ERROR, f"Depends: {names.package('common')}", of_images=True)
def depends_on_common(subject: Subject) -> Iterator[tuple[str, str]]:
    """Every image depends on the layer that all images share."""
    if not any(names.package("common") in alternatives for alternatives in _dependencies(subject)):
        yield "", f"it does not depend on {names.package('common')}"


# What the stanza says.


@_rule(ERROR, "a machine has only one debian-cloud-config-* package: a new one replaces the old one", of_images=True)
def replaces_the_others(subject: Subject) -> Iterator[tuple[str, str]]:
    """An image provides, conflicts with and replaces debian-cloud-config."""
    for relation in ("Provides", "Conflicts", "Replaces"):
        if names.VIRTUAL_PACKAGE not in {_name(item) for item in relations(subject.binary.fields.get(relation, ""))}:
            yield "", f"{relation} has no {names.VIRTUAL_PACKAGE}"


@_rule(ERROR, "see the fields of another image: debian-cloud show ec2", of_images=True)
def valid_fields(subject: Subject) -> Iterator[tuple[str, str]]:
    """The builder accepts all Image-* fields."""
    try:
        _parsed(subject)
    except Error as error:
        yield "", f"{error.message}; {error.hint}" if error.hint else error.message


@_rule(ERROR, "clouds and hypervisors read from the fields which machine the image needs", of_images=True)
def complete_fields(subject: Subject) -> Iterator[tuple[str, str]]:
    """A disk image declares its memory, drivers, console and the program that sets up the machine."""
    fields = subject.binary.fields
    wanted: tuple[str, ...] = ()
    if fields.get("Image-Firmware"):
        wanted = ("Image-Drivers", "Image-Console", "Image-Memory", "Image-First-Boot")
    if fields.get("Image-First-Boot") == "cloud-init":
        wanted += ("Image-User", "Image-Datasource")
    for name in wanted:
        if not fields.get(name):
            yield "", f"it has no field {name}: {config.FIELDS[name].meaning}"


@_rule(ERROR, "write one line that names the image, then lines that say what it is for (Debian Policy 3.4)")
def has_a_description(subject: Subject) -> Iterator[tuple[str, str]]:
    """`apt show` describes the image."""
    synopsis, _, extended = subject.binary.fields.get("Description", "").partition("\n")
    if not synopsis.strip():
        yield "", "it has no description"
    elif not extended.strip():
        yield "", "its description has only one line"


@_rule(ERROR, "for example 1.0~deb13u1 in trixie, so that the next release's version sorts after it")
def version_carries_the_suite(subject: Subject) -> Iterator[tuple[str, str]]:
    """The version ends with the suite's mark, except in the newest suite."""
    mark, version = names.suite_mark(subject.suite), subject.binary.version
    if mark and version and not re.search(rf"[~+]{re.escape(mark[1:-1])}\d+$", version):
        yield "", f"version {version} of {subject.suite} does not end with {mark}"


@_rule(WARNING, f"name one of {', '.join(names.RELEASES)} in debian/changelog: dch --release --distribution trixie")
def for_a_known_suite(subject: Subject) -> Iterator[tuple[str, str]]:
    """The changelog's suite is a known release."""
    if subject.suite and subject.suite not in names.RELEASES:
        yield "", f"it is for {subject.suite}, whose mark for versions is unknown"


@_rule(
    ERROR,
    "Image-Drop-Secrets, if a service creates it on each machine; Image-Keep-Secrets, if it may be public",
    of_images=True,
)
def decided_secrets(subject: Subject) -> Iterator[tuple[str, str]]:
    """A field decides on each secret that packages create at installation and machines do not renew."""
    decided = [*_words(subject, "Image-Drop-Secrets"), *_words(subject, "Image-Keep-Secrets")]
    brought = {name for alternatives in _dependencies(subject) for name in alternatives[:1]} | {*subject.components}
    for known in identities.IDENTITIES:
        if known.package in brought and not known.renewed:
            for path in known.paths:
                if not any(generated.matches(words.lstrip("/"), path) for words in decided):
                    yield "", f"{known.package} creates /{path}, {known.what}, which all users could read"


@_rule(ERROR, "name files that a service creates on each machine in Image-Drop-Secrets", of_images=True)
def no_kept_secret(subject: Subject) -> Iterator[tuple[str, str]]:
    """An official image has no secret and no identity, because all its machines would share them."""
    for path in _words(subject, "Image-Keep-Secrets"):
        yield "", f"it keeps {path}"


# What it installs.


@_rule(ERROR, "use the drop-in directory of the program that reads it, such as /etc/NAME.d or /usr/lib/systemd")
def drop_ins_only(subject: Subject) -> Iterator[tuple[str, str]]:
    """Every file is a drop-in, or below /usr/lib or /usr/share."""
    for file in subject.binary.files:
        if file.path in SINGLE_FILES:
            continue
        no = next((why for pattern, why in NOT_DROP_INS.items() if fnmatch.fnmatchcase(file.path, pattern)), "")
        if no or not any(fnmatch.fnmatchcase(file.path, pattern) for pattern in DROP_INS):
            yield file.path, f"it is not a drop-in{': ' if no else ''}{no}"


@_rule(ERROR, "choose a name of your own in the same directory")
def no_foreign_file(subject: Subject) -> Iterator[tuple[str, str]]:
    """No other package ships one of its files."""
    for file in subject.binary.files:
        owners = [name for name in subject.owners.get(file.path, ()) if not name.startswith(names.PACKAGE_PREFIX)]
        if owners:
            yield file.path, f"it is also a file of {', '.join(owners)}"


@_rule(ERROR, "a service of systemd can do it, with the rights that it needs")
def no_setuid(subject: Subject) -> Iterator[tuple[str, str]]:
    """No file has a set-user-ID or set-group-ID bit."""
    for file in subject.binary.files:
        if file.mode & 0o6000:
            yield file.path, f"its mode is {file.mode:o}"


# What runs when it is installed.


@_rule(
    ERROR,
    "ship a drop-in or a systemd unit; put code that several images need into a layer: a configuration"
    " without Image-* fields",
    of_images=True,
)
def no_own_script(subject: Subject) -> Iterator[tuple[str, str]]:
    """An image's configuration is data: it has no maintainer scripts except what debhelper adds."""
    # The commands of a script are not examined: we have no complete parser of shell.
    for name in MAINTAINER_SCRIPTS:
        if scripts.is_own(subject.binary.control.get(name, "")):
            yield name, f"it has a {name} of its own"


@_rule(ERROR, "a build is not interactive: choose a value that suits all machines")
def no_question(subject: Subject) -> Iterator[tuple[str, str]]:
    """The package asks no questions at installation."""
    for name in QUESTIONS:
        if name in subject.binary.control:
            yield name, f"it has a {name} file for debconf"


# How rules look at a package.


def _words(subject: Subject, name: str) -> list[str]:
    return subject.binary.fields.get(name, "").split()


def _dependencies(subject: Subject) -> list[list[str]]:
    """Return the names of its dependencies, each with its alternatives."""
    fields = subject.binary.fields
    items = [item for name in ("Pre-Depends", "Depends") for item in relations(fields.get(name, ""))]
    return [[_name(alternative) for alternative in item.split("|")] for item in items]


def _name(relation: str) -> str:
    return re.split(r"[\s(:\[<]", relation.strip(), maxsplit=1)[0]


def _parsed(subject: Subject) -> config.ImageConfig:
    fields = subject.binary.fields
    return config.parse(
        fields,
        name=names.config(subject.binary.name),
        version=subject.binary.version,
        architecture=fields.get("Architecture", ""),
        suite=subject.suite,
        description=fields.get("Description", ""),
    )
