# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration of one's own: the Debian source package that `debian-cloud new` writes."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.configuration import scripts
from debian_cloud.image import config
from debian_cloud.image.binary import MAINTAINER_SCRIPTS, File, relations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from debian_cloud.image.binary import Binary

# What a package says of itself; the new one says it for itself.
_OF_THE_BASE_ITSELF: Final = ("/usr/share/doc/", "/usr/share/lintian/")
_OVERRIDES: Final = "/usr/share/lintian/overrides/"
_ONE_IMAGE: Final = ("Provides", "Conflicts", "Replaces")
_OTHER_RELATIONS: Final = ("Recommends", "Suggests", "Enhances", "Breaks")
_VERSION: Final = re.compile(r" \([^)]*\)")

_CONTROL: Final = """\
Source: {source}
Section: {section}
Priority: optional
Maintainer: {maintainer}
Rules-Requires-Root: no
Standards-Version: 4.6.2
Build-Depends: debhelper-compat (= 13)

Package: {source}
Architecture: {architecture}
# One image is one machine: this configuration takes the place of another's.
{one_image}{pre_depends}Depends: ${{misc:Depends}},
{depends}{others}{facts}Description: Debian image configuration: {name}
{description} .
 This package is the whole configuration of the image: its dependencies are the
 image's packages, its files are the image's settings, its Image-* fields say
 what disk is made.
"""

_CHANGELOG: Final = """\
{source} ({version}) {suite}; urgency=medium

{change}
 -- {maintainer}  {date}
"""

_COPYRIGHT: Final = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {source}

Files: *
Copyright: {year} {author}
           2026 The authors of debian-cloud
License: GPL-3+
 This program is free software: you can redistribute it and/or modify it under
 the terms of the GNU General Public License as published by the Free Software
 Foundation, either version 3 of the License, or (at your option) any later
 version.
 .
 This program is distributed in the hope that it will be useful, but WITHOUT ANY
 WARRANTY; without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
 PARTICULAR PURPOSE. See the GNU General Public License for more details.
 .
 On Debian systems, the full text of the GNU General Public License version 3
 is in /usr/share/common-licenses/GPL-3.
"""

_RULES: Final = """\
#!/usr/bin/make -f

%:
	dh $@

# files/ is a tree as installed.
execute_after_dh_auto_install:
	mkdir -p debian/{source}
	cp -rP files/. debian/{source}
"""

_README: Final = """\
The image configuration {name} of {suite}: {base}{and_added}.
debian/control says what is in the image; files/ is a tree as installed.
Later versions: dch(1){kept}.
tools    apt install debhelper devscripts dput-ng lintian debian-cloud
build    dpkg-buildpackage -us -uc
check    debian-cloud lint ../{source}_*.changes && lintian ../{source}_*.changes
publish  debian-cloud-archive add ARCHIVE ../{source}_*.changes (in an archive of your own)
sign     debsign ../{source}_*.changes (for another's)
upload   dput -c ARCHIVE/dput/dput.cf debian-cloud ../{source}_*.changes
image    debian-cloud build {name} --suite {suite} --arch {architecture} [--archive URL --keyring FILE]
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one's own configuration shall be: another, under a new name, and packages added.

    `name` is the short one; `date` is written as in RFC 5322.
    """

    name: str
    base: Binary
    added: tuple[str, ...]
    suite: str
    maintainer: str
    date: str


def source(wish: Wish) -> tuple[File, ...]:
    """The files of the source package, each under its path in the package's folder."""
    files = tuple(_renamed(file, wish) for file in wish.base.files if not file.path.startswith(_OF_THE_BASE_ITSELF))
    return (
        File("README", _readme(wish).encode()),
        File("debian/changelog", _changelog(wish).encode()),
        File("debian/control", _control(wish).encode()),
        File("debian/copyright", _copyright(wish).encode()),
        File("debian/rules", _rules(wish, files).encode(), 0o755),
        File("debian/source/format", b"3.0 (native)\n"),
        *_of_debian(wish),
        *(File(f"files{file.path}", file.content, _mode(file), file.link) for file in files),
    )


def _mode(file: File) -> int:
    """Nobody but root writes what a package installs, and nothing runs as another than its caller."""
    return file.mode & 0o755


def _renamed(file: File, wish: Wish) -> File:
    """A file under the new configuration's name, wherever its path, its link or its text has the base's."""
    try:
        content = _under_new_name(file.content.decode(), wish).encode()
    except UnicodeDecodeError:
        content = file.content
    return replace(
        file, path=_under_new_name(file.path, wish), content=content, link=_under_new_name(file.link, wish)
    )


def _under_new_name(text: str, wish: Wish) -> str:
    # debian-cloud-config-genericcloud and -generic-x are others.
    return re.sub(rf"{re.escape(wish.base.name)}(?![a-z0-9+]|-[a-z0-9])", names.package(wish.name), text)


def _control(wish: Wish) -> str:
    fields = wish.base.fields
    base = names.config(wish.base.name)
    taken = [_later(item) for item in relations(fields.get("Depends", ""))]
    depends = _relations(taken, f"as in {base} {wish.base.version}")
    depends += _relations([name for name in wish.added if name not in taken], "added")
    about = [f"The image of {base}", *([f"with {', '.join(wish.added)} besides"] if wish.added else [])]
    return _CONTROL.format(
        source=names.package(wish.name),
        name=wish.name,
        maintainer=wish.maintainer,
        architecture=fields["Architecture"],
        section=fields.get("Section", "admin"),
        one_image="".join(_one_image(relation, fields) for relation in _ONE_IMAGE),
        pre_depends=_taken("Pre-Depends", wish),
        depends=depends,
        others="".join(_taken(relation, wish) for relation in _OTHER_RELATIONS),
        facts="".join(f"XB-{field}: {fields[field]}\n" for field in config.FIELDS if field in fields),
        description=_wrapped(f"{', '.join(about)}.", " "),
    )


def _one_image(relation: str, fields: Mapping[str, str]) -> str:
    """What makes the configuration take another's place, and whatever else the base has so."""
    others = [item for item in relations(fields.get(relation, "")) if item.split()[0] != names.VIRTUAL_PACKAGE]
    return f"{relation}: {', '.join((names.VIRTUAL_PACKAGE, *others))}\n"


def _taken(relation: str, wish: Wish) -> str:
    """A relation of the base, without what is added as a dependency; "" where nothing is left."""
    items = [_later(item) for item in relations(wish.base.fields.get(relation, "")) if item not in wish.added]
    return f"{relation}:\n{_relations(items, f'as in {names.config(wish.base.name)}')}" if items else ""


def _later(relation: str) -> str:
    """A relation that upgrades of a layer reach: without the version that the base was built with."""
    return _VERSION.sub("", relation) if relation.startswith(names.PACKAGE_PREFIX) else relation


def _relations(items: Iterable[str], why: str) -> str:
    lines = [f"         {item},\n" for item in items]
    return "".join([f"# {why}\n", *lines]) if lines else ""


def _version(wish: Wish) -> str:
    return f"1.0{names.suite_mark(wish.suite)}"


def _changelog(wish: Wish) -> str:
    change = f"First version: {names.config(wish.base.name)} {wish.base.version}{_and_added(wish)}."
    return _CHANGELOG.format(
        source=names.package(wish.name),
        version=_version(wish),
        suite=wish.suite,
        change=_wrapped(change, "  * ", "    "),
        maintainer=wish.maintainer,
        date=wish.date,
    )


def _copyright(wish: Wish) -> str:
    # "Sat, 21 Nov 2026 12:00:00 +0000"
    return _COPYRIGHT.format(source=names.package(wish.name), year=wish.date.split()[3], author=wish.maintainer)


def _rules(wish: Wish, files: Iterable[File]) -> str:
    """debian/rules; what shall not have debhelper's modes is said there."""
    text = _RULES.format(source=names.package(wish.name))
    special = [file for file in files if not file.link and _mode(file) not in (0o644, 0o755)]
    if special:
        text += "\nexecute_after_dh_fixperms:\n"
        text += "".join(f"\tchmod {_mode(file):o} debian/{names.package(wish.name)}{file.path}\n" for file in special)
    return text


def _readme(wish: Wish) -> str:
    mark = names.suite_mark(wish.suite)
    return _README.format(
        name=wish.name,
        suite=wish.suite,
        base=names.config(wish.base.name),
        and_added=_and_added(wish),
        kept=f"; {mark} stays at the version's end" if mark else "",
        source=names.package(wish.name),
        architecture=wish.base.fields["Architecture"],
    )


def _and_added(wish: Wish) -> str:
    return f", and {', '.join(wish.added)}" if wish.added else ""


def _of_debian(wish: Wish) -> Iterable[File]:
    """Of the base's own debian/: what lintian was told, its triggers and maintainer scripts."""
    overrides = next((file for file in wish.base.files if file.path == _OVERRIDES + wish.base.name), None)
    if overrides:
        yield File("debian/lintian-overrides", _renamed(overrides, wish).content)
    triggers = "".join(
        f"{line}\n"
        for line in wish.base.control.get("triggers", "").splitlines()
        if line != "activate-noawait ldconfig" and not line.startswith("# Triggers added by dh_")
    )
    if triggers:
        yield File("debian/triggers", _under_new_name(triggers, wish).encode())
    for name in MAINTAINER_SCRIPTS:
        script = scripts.own_part(wish.base.control.get(name, ""))
        if script:
            yield File(f"debian/{name}", _under_new_name(script, wish).encode(), 0o755)


def _wrapped(text: str, first: str, then: str = " ") -> str:
    # A package's name is broken nowhere.
    return textwrap.fill(text, 78, initial_indent=first, subsequent_indent=then, break_on_hyphens=False) + "\n"
