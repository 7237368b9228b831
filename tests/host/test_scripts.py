# SPDX-License-Identifier: GPL-3.0-or-later
"""Every tool that a script of `archive/` calls is in the table tool -> package; numbers are in one place.

The scripts are parsed by shfmt(1), which others maintain.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from debian_cloud import names
from debian_cloud.archive import lifecycle
from debian_cloud.host import tools
from debian_cloud.packages import origin
from debian_cloud.text import deb822

ROOT: Final = Path(__file__).resolve().parents[2]
SCRIPTS: Final = tuple(
    path
    for path in sorted((ROOT / "archive").rglob("*"))
    if path.is_file() and re.match("#!/bin/sh\\n|# shellcheck shell=sh\\n", path.read_text("utf-8"))
)
ESSENTIAL: Final = {
    *("coreutils", "diffutils", "dpkg", "findutils", "grep", "gzip", "hostname", "libc-bin", "sed", "util-linux"),
    # base-files is essential, and depends on awk.
    "mawk",
}
BUILTINS: Final = {*subprocess.run(["bash", "-c", "compgen -b"], capture_output=True, text=True).stdout.split()}
WRAPPERS: Final = {"command": 0, "exec": 0, "timeout": 1, "xargs": 0}
"""Command that runs another one -> the number of words before that, options not counted."""


def nodes(tree: object) -> Iterator[dict[str, Any]]:
    """All nodes of the tree that shfmt(1) prints."""
    if isinstance(tree, dict):
        yield tree
        tree = [*tree.values()]
    for below in tree if isinstance(tree, list) else ():
        yield from nodes(below)


def word(node: dict[str, Any]) -> str:
    """A word without its quotes; "$" stands for a variable or the like."""
    parts: list[dict[str, Any]] = []
    for part in node.get("Parts", []):
        parts += part.get("Parts", []) if part["Type"] == "DblQuoted" else [part]
    return "".join(
        part.get("Value", "").replace("\\", "") if part["Type"] in ("Lit", "SglQuoted") else "$" for part in parts
    )


def commands(text: str) -> Iterator[tuple[str, ...]]:
    """A script's commands, also in substitutions, and its functions as ("()", NAME)."""
    done = subprocess.run(
        ["shfmt", "-ln", "posix", "--to-json"], input=text, capture_output=True, text=True, check=True
    )
    for node in nodes(json.loads(done.stdout)):
        if node.get("Type") == "FuncDecl":
            yield "()", node["Name"]["Value"]
        elif node.get("Type") == "CallExpr" and node.get("Args"):
            words = tuple(word(argument) for argument in node["Args"])
            yield words
            yield from within(words)


def within(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The commands that a command is given to run."""
    if words[0] in WRAPPERS and words[1:2] != ("-v",):
        rest = words[1:]
        while rest and rest[0].startswith("-"):
            rest = rest[1:]
        if rest := rest[WRAPPERS[words[0]] :]:
            yield rest
            yield from within(rest)
    elif words[0] == "find":
        for number, option in enumerate(words):
            if option in ("-exec", "-execdir", "-ok", "-okdir"):
                yield words[number + 1 :]


@functools.cache
def of(script: Path) -> tuple[tuple[str, ...], ...]:
    return tuple(commands(script.read_text("utf-8")))


FUNCTIONS: Final = {found[1] for script in SCRIPTS for found in of(script) if found[0] == "()"}


def called(found: tuple[tuple[str, ...], ...]) -> set[str]:
    """The tools: not builtins, functions, or names in variables (the archive's scripts)."""
    first = {words[0] for words in found if "$" not in words[0]} - BUILTINS - FUNCTIONS - {"()"}
    # A function with the name of a tool calls that by `command`.
    return first | {words[1] for words in found if words[0] == "command" and words[1:2] != ("-v",)}


def test_a_call_of_another_tool_is_found() -> None:
    for text in (
        "frob -x",
        'x=$(frob "$y")',
        "if ! a=b frob; then :; fi",
        "true | while read -r x; do frob; done",
        'echo "$(echo `frob`)"',
        "timeout 5 frob",
        'timeout --foreground "$x" frob',
        "exec frob <x",
        "xargs -0 frob",
        "find . -exec frob {} +",
        "case $x in y) frob ;; esac",
        "cat <<E\n$(frob)\nE",
        "command frob",
    ):
        assert "frob" in called(tuple(commands(text))), text
    for text in ("echo frob", "# frob", "cat <<'E'\nfrob\nE", "awk 'frob'", "command -v frob", "x=frob"):
        assert "frob" not in called(tuple(commands(text))), text


def test_there_are_scripts() -> None:
    known = {path.relative_to(ROOT).as_posix() for path in SCRIPTS}
    assert {
        "archive/debian-cloud-archive",
        "archive/lib/common.sh",
        "archive/verbs/accept",
        "archive/steps/keys",
    } <= known
    assert {path.name for path in (ROOT / "archive" / "verbs").iterdir()} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.relative_to(ROOT).as_posix() for path in SCRIPTS])
def test_every_tool_that_a_script_calls_has_its_package(script: Path) -> None:
    assert called(of(script)) - {*tools.PACKAGES, *tools.OTHERS, *tools.SCRIPTS} == set()


def test_every_tool_of_the_table_is_called() -> None:
    assert {*tools.SCRIPTS} - set().union(*(called(of(script)) for script in SCRIPTS)) == set()


def dependencies(package: str, *fields: str) -> set[str]:
    stanzas = deb822.parse((ROOT / "debian" / "control").read_text("utf-8"))
    (stanza,) = (stanza for stanza in stanzas if stanza.get("Package") == package)
    return {item.split()[0] for field in fields for item in stanza.get(field, "").split(",") if item.split()}


def test_each_tool_comes_with_the_package_of_its_script() -> None:
    others = {tool for script in SCRIPTS for tool in called(of(script))}
    there = dependencies("debian-cloud-archive", "Depends") | dependencies("debian-cloud", "Depends")
    assert {tools.package(tool) for tool in others} - ESSENTIAL <= there


def test_what_a_verb_needs_is_named_by_its_package() -> None:
    """`package_of` of archive/lib/common.sh names the package to install."""
    needed = sorted({tool for script in SCRIPTS for words in of(script) if words[0] == "need" for tool in words[1:]})
    assert set(needed) <= {*tools.PACKAGES, *tools.OTHERS, *tools.SCRIPTS}
    script = '. "$0"; for tool; do package_of "$tool"; done'
    done = subprocess.run(
        ["sh", "-c", script, ROOT / "archive/lib/common.sh", *needed], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [*map(tools.package, needed)]
    assert "gnupg" in done.stdout.split()


# Numbers.

CODENAMES: Final = re.compile(rf"\b({'|'.join(names.RELEASES)})\b")


def code(script: Path) -> str:
    """A script without its comments."""
    return re.sub(r"(^|\s)#.*", "", script.read_text("utf-8"))


def test_releases_are_written_in_one_place() -> None:
    found = {script.name: CODENAMES.findall(code(script)) for script in SCRIPTS}
    assert {name: words for name, words in found.items() if words} == {
        # The default suite of a new archive, and an example in a hint.
        "init": [origin.DEFAULT_SUITE],
    }


def test_how_long_a_signature_is_good_is_written_in_one_place() -> None:
    days = lifecycle.VALID_FOR // 86400
    written = re.compile(rf"\b({days}d?|{lifecycle.VALID_FOR})\b")
    assert written.search("ValidFor: 14d")
    assert [script.name for script in SCRIPTS if written.search(code(script))] == []


@pytest.mark.parametrize(
    "page",
    ["README.md", "debian/debian-cloud-mirror.1", *(f"archive/verbs/{name}" for name in ("snapshot", "withdraw"))],
)
def test_people_read_how_long_a_signature_is_good(page: str) -> None:
    """The documentation has the same number."""
    assert f"{lifecycle.VALID_FOR // 86400} days" in (ROOT / page).read_text("utf-8")
