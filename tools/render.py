# SPDX-License-Identifier: GPL-3.0-or-later
"""Render debian/control of one suite from the configurations.

`python3 -m tools.render` rewrites debian/control of the source tree in the current directory, for
the suite of debian/changelog, and the list of its packages that no other source may upload to an
archive; with `--check` it prints what would change, and fails if anything would. With `--suite` it
first makes the tree one of that suite: it adds a changelog entry whose version has the mark of the
suite (`~deb13u1`).

A difference is marked beside the word that differs: `{forky}` for suites, resolved here; `[amd64]`
for architectures, resolved by dpkg in relations and by debian/rules in `Image-*` fields. One pool
has all suites, so a machine that is upgraded to the next release gets the next configuration from
the same source.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import traceback
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jinja2

from debian_cloud import names
from debian_cloud.errors import FAILED, USAGE, Error, did_you_mean
from debian_cloud.image import config
from debian_cloud.image.binary import ENTRY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONTROL: Final = "debian/control"
CHANGELOG: Final = "debian/changelog"
RESERVED: Final = "src/debian_cloud/archive/reserved.py"
_STANZA: Final = "stanza.j2"

_SUITES = re.compile(r"(?P<package>.*?)(?:\s*\{(?P<suites>[^}]*)\})?")
"""A package's name and, if it is not for every suite, its suites."""
_WORD = re.compile(r"(?P<word>\S+(?: \[[^]]*\])?)(?: \{(?P<suites>[^}]*)\})?")
"""A word of a fact with its architectures and, if it is not for every suite, its suites."""

_RESERVED_TEXT: Final = '''\
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of debian/control of all suites, which no other source may bring (`make control` writes it)."""

from __future__ import annotations

from typing import Final

SOURCE: Final = "{source}"
NAMES: Final = frozenset(
    {{
{names}    }}
)
'''

_ARCHITECTURE = re.compile(r"\[(?P<only>[^]]*)\]")
"""The architecture that a package or a word is for."""


def configurations(root: Path) -> tuple[str, ...]:
    """Names of the configurations in a source tree: the directories of configs/ that have a stanza, sorted."""
    return tuple(sorted(path.parent.name for path in root.glob(f"configs/*/{_STANZA}")))


def suite(root: Path) -> str:
    """The suite that a source tree is for: the one its newest changelog entry names."""
    return _entry(root)["suite"]


def render(root: Path, suite_: str = "") -> str:
    """The text of debian/control for a suite, by default the tree's own; Error names template and line."""
    suite_ = suite_ or suite(root)
    if suite_ not in names.RELEASES:
        raise Error(f"no configurations for suite {suite_}", did_you_mean(suite_, names.RELEASES), USAGE)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is a control file, not HTML
    )
    environment.filters["of_architecture"] = _of_architecture
    environment.filters["of_suite"] = lambda packages: _of_suite(packages, suite_)
    environment.filters["fact"] = _fact
    environment.filters["words"] = lambda words, architectures: _words(words, suite_, architectures)
    try:
        stanzas = [
            environment.get_template(f"configs/{name}/{_STANZA}").render(name=name).strip() + "\n"
            for name in configurations(root)
        ]
        return environment.get_template(f"{CONTROL}.j2").render(stanzas=stanzas)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        # A macro's wrong argument is a TypeError; a template that is not found has its name as the message.
        what = f"no template {error}" if isinstance(error, jinja2.TemplateNotFound) else str(error)
        raise Error(f"{_place(error, root)}: {what}", "see configs/image.j2 for what a stanza may set") from error


def reserved(root: Path) -> str:
    """The text of the module that has the names of all packages of the source, for all suites."""
    texts = [render(root, suite_) for suite_ in names.RELEASES]
    packages = sorted({name for text in texts for name in re.findall("^Package: (.*)$", text, re.MULTILINE)})
    return _RESERVED_TEXT.format(
        source=re.findall("^Source: (.*)$", texts[0], re.MULTILINE)[0],
        names="".join(f'        "{name}",\n' for name in packages),
    )


def _of_suite(packages: Mapping[str, str], suite_: str) -> dict[str, str]:
    """The packages that a suite gets, without their marks of suites."""
    found = {}
    for marked, why in packages.items():
        match = _SUITES.fullmatch(marked)
        assert match is not None, marked  # any text matches
        if _is_for(match["suites"], suite_, marked):
            found[match["package"]] = why
    return found


def _of_architecture(packages: Mapping[str, str], architectures: str) -> dict[str, str]:
    """The packages of which an alternative is for one of these architectures."""
    return {
        package: why
        for package, why in packages.items()
        # All of them are evaluated, so that each mark is checked.
        if True in {_is_of(alternative, architectures) for alternative in package.split("|")}
    }


def _words(words: str, suite_: str, architectures: str) -> str:
    """The words of a fact for a suite and for these architectures, without their marks of suites."""
    return " ".join(
        match["word"]
        for match in _WORD.finditer(words)
        if _is_for(match["suites"], suite_, match[0]) and _is_of(match["word"], architectures)
    )


def _is_of(marked: str, architectures: str) -> bool:
    """Whether a word with a mark such as [amd64] is for one of the architectures; without a mark it is for all."""
    match = _ARCHITECTURE.search(marked)
    if match and match["only"] not in names.ARCHITECTURES:
        raise ValueError(
            f"{marked.strip()!r}: a mark is for one architecture; {did_you_mean(match['only'], names.ARCHITECTURES)}"
        )
    return match is None or architectures == "all" or match["only"] in architectures.split()


def _is_for(suites: str | None, suite_: str, marked: str) -> bool:
    """Whether a word with a mark of suites is for a suite; without a mark it is for all."""
    for name in (suites or "").split():
        if name not in names.RELEASES:
            raise ValueError(f"{marked!r} is for the unknown suite {name}; {did_you_mean(name, names.RELEASES)}")
    return suites is None or suite_ in suites.split()


def _fact(name: str) -> str:
    """The complete name of a field."""
    field = config.PREFIX + name
    if field not in config.FIELDS:
        raise ValueError(f"unknown fact {name}; {did_you_mean(field, config.FIELDS)}")
    return field


def _entry(root: Path) -> dict[str, str]:
    first = (root / CHANGELOG).read_text("utf-8").partition("\n")[0]
    match = ENTRY.match(first)
    if match is None:
        raise Error(f"{CHANGELOG} begins with {first!r}", "see deb-changelog(5)")
    return match.groupdict()


def adopt(root: Path, suite_: str) -> None:
    """Make a source tree one of a suite: it gets a changelog entry, and its debian/control.

    The suite for which the tree is written keeps the plain version; the versions of the other
    suites sort before it, those of older suites first, so that a machine that is upgraded to the
    next release also upgrades its configuration. Error if the tree is already that of an older
    suite.
    """
    entry = _entry(root)
    if suite_ != entry["suite"]:
        if suite_ not in names.RELEASES:
            raise Error(f"no configurations for suite {suite_}", did_you_mean(suite_, names.RELEASES), USAGE)
        newest = (*names.RELEASES,)[-1]
        if entry["suite"] != newest:
            raise Error(
                f"this tree is {entry['suite']}'s already, {entry['version']}",
                f"begin with the tree of {newest}",
                USAGE,
            )
        text = (root / CHANGELOG).read_text("utf-8")
        version = entry["version"] + names.suite_mark(suite_)
        signature, date = next(line for line in text.splitlines() if line.startswith(" -- ")).rsplit("  ", 1)
        later = format_datetime(parsedate_to_datetime(date) + timedelta(seconds=1))
        (root / CHANGELOG).write_text(
            f"{entry['source']} ({version}) {suite_}; urgency=medium\n\n"
            f"  * Configurations of {suite_}.\n\n{signature}  {later}\n\n{text}",
            "utf-8",
        )
    (root / CONTROL).write_text(render(root), "utf-8")
    (root / RESERVED).write_text(reserved(root), "utf-8")


def _place(error: Exception, root: Path) -> str:
    """Template and line of an error; jinja2 names them in syntax errors, otherwise only in the traceback."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.name}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    return f"{Path(frames[-1].filename).relative_to(root)}:{frames[-1].lineno}" if frames else f"{CONTROL}.j2"


def difference(root: Path) -> str:
    """What rendering would change in the committed files, as a unified diff; empty if nothing."""
    found: list[str] = []
    for name, text in ((CONTROL, render(root)), (RESERVED, reserved(root))):
        path = root / name
        committed = path.read_text("utf-8") if path.exists() else ""
        lines = committed.splitlines(keepends=True), text.splitlines(keepends=True)
        found += difflib.unified_diff(*lines, f"{name} (committed)", f"{name} (rendered)")
    return "".join(found)


def main(argv: Sequence[str]) -> int:
    """Rewrite debian/control, or with --check compare it, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if debian/control is stale")
    parser.add_argument("--suite", default="", help="make the source tree this suite's (default: keep it as it is)")
    args = parser.parse_args(argv)
    root = Path.cwd()
    try:
        if args.check:
            stale = difference(root)
            sys.stdout.write(stale)
            return FAILED if stale else 0
        adopt(root, args.suite or suite(root))
    except Error as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
