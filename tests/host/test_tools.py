# SPDX-License-Identifier: GPL-3.0-or-later
"""Every tool that is called is in the table tool -> package."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_cloud import VERSION
from debian_cloud.host import tools
from debian_cloud.machines import ssh
from debian_cloud.machines.instance import Login
from debian_cloud.machines.qemu import command

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "debian_cloud"
CALLS = re.compile(
    r"(run\.)?(output|printing|answer|words|status|through|detached|become|foreground|in_namespace|need|bounded|_done)|(plans?\.)?Run|Converted|subprocess\.(run|Popen)"
)
"""The functions that call a tool: those of the module `host.run`, and the steps of a plan."""
UNKNOWN = {
    "host/run.py": "the arguments of others",
    "plan.py": "as in_tree: a tool of the image's own suite",
    "disk/opened.py": "what a format names as Converted",
    "machines/expiry.py": "the command of machines/ssh.py",
    "machines/drivers/qemu.py": "the commands of machines/qemu/command.py and machines/ssh.py",
    "machines/qemu/acceleration.py": "a command of machines/qemu/command.py",
    "cli/machines/ssh.py": "the command of machines/ssh.py",
    "cli/machines/console.py": "the command of a driver",
}
"""Modules in which the first word comes from a caller."""


def first_words(node: ast.AST, known: dict[str, ast.AST]) -> Iterator[str]:
    """The first word of an argument list, through names, stars and attributes; "?" if it cannot be found."""
    if isinstance(node, ast.Tuple | ast.List) and node.elts:
        yield from first_words(node.elts[0], known)
    elif isinstance(node, ast.Starred):
        yield from first_words(node.value, known)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value.rpartition("/")[2]
    elif isinstance(node, ast.IfExp):
        yield from first_words(node.body, known)
        yield from first_words(node.orelse, known)
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        found = known.get(node.value.id)
        for value in found.values if isinstance(found, ast.Dict) else ():
            yield from first_words(value, known)
    elif isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in known:
            yield from first_words(known[name], {key: value for key, value in known.items() if key != name})
        else:
            yield "?"
    else:
        yield "?"


def assigned(tree: ast.AST) -> dict[str, ast.AST]:
    found: dict[str, ast.AST] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
                if isinstance(target, ast.Name):
                    found[target.id] = node.value
    return found


def called(text: str, elsewhere: dict[str, ast.AST]) -> set[str]:
    """The tools that a module calls."""
    tree = ast.parse(text)
    known = {**elsewhere, **assigned(tree)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and CALLS.fullmatch(ast.unparse(node.func)):
            is_step = ast.unparse(node.func).endswith("Run")
            for argument in node.args[1:2] if is_step else node.args[:1]:
                found |= set(first_words(argument, known))
    return found


def test_each_machine_s_program_has_its_package() -> None:
    assert {board.program for board in command.BOARDS.values()} <= {*tools.MACHINES}
    assert ssh.argv(Login("debian", "127.0.0.1", 22, "alias", "ssh-ed25519 AAAA", "key"))[0] in tools.MACHINES


def constants() -> dict[str, ast.AST]:
    """The names that modules define for other modules."""
    found: dict[str, ast.AST] = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        tree.body = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        found |= assigned(tree)
    return found


def test_every_tool_that_is_called_has_its_package() -> None:
    elsewhere = constants()
    found = {
        path.relative_to(PACKAGE).as_posix(): words
        for path in PACKAGE.rglob("*.py")
        if (words := called(path.read_text("utf-8"), elsewhere))
    }
    assert {name for name, words in found.items() if "?" in words} <= {*UNKNOWN}
    everything = set().union(*found.values()) - {"?"}
    # A script that the plan itself writes is not a tool of a package.
    scripts = {path.stem for path in (PACKAGE / "build" / "scripts").iterdir()}
    assert everything - scripts <= {*tools.PACKAGES, *tools.OTHERS, *tools.MACHINES}
    assert {"qemu-img", "apt-helper", "dpkg-deb", "gpg", "gpgv", "reprepro"} <= everything


def test_a_call_of_another_tool_is_found() -> None:
    for text in (
        'run.output(("frob", "-x"))',
        'A = "/usr/bin/frob"\nrun.foreground((*["prlimit"], A))\nrun.answer([A])',
        'x = ("frob",)\nrun.printing((*x, "y"))',
        'Run("title", ("frob",))',
        'subprocess.run(["frob"], check=True)',
    ):
        assert "frob" in called(text, {}), text


def test_a_tool_stands_in_one_table() -> None:
    tables = tools.PACKAGES, tools.OTHERS, tools.SCRIPTS
    assert len({*tools.PACKAGES, *tools.OTHERS, *tools.SCRIPTS}) == sum(map(len, tables))


def test_the_hint_names_the_package() -> None:
    assert tools.package("qemu-img") == "qemu-utils"
    assert tools.package("gpgv") == "gpgv"


@pytest.mark.parametrize("command", ["debian-cloud", "debian-cloud-archive", "debian-cloud-mirror"])
def test_each_command_has_its_version(command: str) -> None:
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{command} {VERSION}\n", "")
    newest = (PACKAGE.parents[1] / "debian/changelog").read_text("utf-8").partition("\n")[0]
    assert f"({VERSION}" in newest
