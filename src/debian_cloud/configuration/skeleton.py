# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian source package of a new configuration, as `debian-cloud new` writes it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import jinja2

from debian_cloud import names
from debian_cloud.configuration import scripts
from debian_cloud.image import config
from debian_cloud.image.binary import MAINTAINER_SCRIPTS, File, relations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from debian_cloud.image.binary import Binary

# What a package says about itself; the new package has its own.
_OF_THE_BASE_ITSELF: Final = ("/usr/share/doc/", "/usr/share/lintian/")
_OVERRIDES: Final = "/usr/share/lintian/overrides/"
_ONE_IMAGE: Final = ("Provides", "Conflicts", "Replaces")
_OTHER_RELATIONS: Final = ("Recommends", "Suggests", "Enhances", "Breaks")
_VERSION: Final = re.compile(r" \([^)]*\)")

# The package's own files that are written from jinja2 templates.
_TEMPLATES: Final = ("README", "debian/changelog", "debian/control", "debian/copyright", "debian/rules")
_PROGRAMS: Final = ("debian/rules",)


@dataclass(frozen=True, slots=True)
class Wish:
    """The new configuration that the user wants: another, under a new name, and packages added.

    `name` is the short one; `date` is written as in RFC 5322.
    """

    name: str
    base: Binary
    added: tuple[str, ...]
    suite: str
    maintainer: str
    date: str


def source(wish: Wish) -> tuple[File, ...]:
    """Return the files of the source package, each with its path in the package's directory."""
    files = tuple(_renamed(file, wish) for file in wish.base.files if not file.path.startswith(_OF_THE_BASE_ITSELF))
    return (
        *_written(wish, files),
        File("debian/source/format", b"3.0 (native)\n"),
        *_of_debian(wish),
        *(File(f"files{file.path}", file.content, _mode(file), file.link) for file in files),
    )


def _written(wish: Wish, files: Iterable[File]) -> Iterable[File]:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("debian_cloud.configuration"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - a source package is not HTML
    )
    environment.filters["wrapped"] = _wrapped
    facts = _facts(wish, files)
    for path in _TEMPLATES:
        text = environment.get_template(f"{path}.j2").render(facts)
        yield File(path, text.encode(), 0o755 if path in _PROGRAMS else 0o644)


def _facts(wish: Wish, files: Iterable[File]) -> dict[str, object]:
    """Return the variables of the templates."""
    fields = wish.base.fields
    return {
        "name": wish.name,
        "source": names.package(wish.name),
        "base": names.config(wish.base.name),
        "base_version": wish.base.version,
        "suite": wish.suite,
        "mark": names.suite_mark(wish.suite),
        "maintainer": wish.maintainer,
        "date": wish.date,
        # "Sat, 21 Nov 2026 12:00:00 +0000"
        "year": wish.date.split()[3],
        "added": wish.added,
        "and_added": f", and {', '.join(wish.added)}" if wish.added else "",
        "architecture": fields["Architecture"],
        "section": fields.get("Section", "admin"),
        "one_image": {relation: _one_image(relation, fields) for relation in _ONE_IMAGE},
        "relations": dict(_relations(wish)),
        "facts": {field: fields[field] for field in config.FIELDS if field in fields},
        # Files that must not have debhelper's modes.
        "modes": {
            file.path: f"{_mode(file):o}" for file in files if not file.link and _mode(file) not in (0o644, 0o755)
        },
    }


def _mode(file: File) -> int:
    """Return the mode of a file, which only root may write, and without set-id bits."""
    return file.mode & 0o755


def _renamed(file: File, wish: Wish) -> File:
    """Return a file with the base's name replaced by the new one in its path, symlink target and text."""
    try:
        content = _under_new_name(file.content.decode(), wish).encode()
    except UnicodeDecodeError:
        content = file.content
    return replace(
        file, path=_under_new_name(file.path, wish), content=content, link=_under_new_name(file.link, wish)
    )


def _under_new_name(text: str, wish: Wish) -> str:
    # debian-cloud-config-genericcloud and -generic-x are other packages.
    return re.sub(rf"{re.escape(wish.base.name)}(?![a-z0-9+]|-[a-z0-9])", names.package(wish.name), text)


def _one_image(relation: str, fields: Mapping[str, str]) -> list[str]:
    """Return what makes the configuration replace another, and what else the base has in the relation."""
    others = [item for item in relations(fields.get(relation, "")) if item.split()[0] != names.VIRTUAL_PACKAGE]
    return [names.VIRTUAL_PACKAGE, *others]


def _relations(wish: Wish) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Yield Pre-Depends, Depends and so on, each with its items by origin; leave out those that would be empty."""
    base = names.config(wish.base.name)
    for relation in ("Pre-Depends", "Depends", *_OTHER_RELATIONS):
        items = relations(wish.base.fields.get(relation, ""))
        if relation == "Depends":
            taken = [_later(item) for item in items]
            added = [name for name in wish.added if name not in taken]
            groups = [(f"as in {base} {wish.base.version}", taken), ("added", added)]
            yield relation, [(why, group) for why, group in groups if group]
        # An added package is a dependency, and in no other relation.
        elif kept := [_later(item) for item in items if item not in wish.added]:
            yield relation, [(f"as in {base}", kept)]


def _later(relation: str) -> str:
    """Return a relation that upgrades of a layer satisfy: without the version that the base was built with."""
    return _VERSION.sub("", relation) if relation.startswith(names.PACKAGE_PREFIX) else relation


def _of_debian(wish: Wish) -> Iterable[File]:
    """Yield files of the base's own debian/: lintian overrides, triggers and maintainer scripts."""
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
    # A package's name is never broken.
    return textwrap.fill(text, 78, initial_indent=first, subsequent_indent=then, break_on_hyphens=False) + "\n"
