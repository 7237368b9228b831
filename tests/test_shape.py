# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of the house, as ARCHITECTURE.md draws it."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

from debian_cloud import cli, formats
from debian_cloud.host import tools

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "debian_cloud"

# In the order of the data: a module imports from the packages before its own, and from its own.
ORDER = (
    *("root", "formats", "text", "host", "image", "configuration", "disk", "projections", "packages", "build"),
    *("proof", "archive", "cli", "__main__"),
)
ROOT_MODULES = {"__init__", "errors", "names", "plan", "view"}
"""What lies in no package: every package may import it."""
PURE = (
    *("root", "formats", "text", "image", "configuration", "projections"),
    *("disk.ext4", "disk.fat", "disk.gpt", "disk.initrd", "disk.layout", "disk.tar"),
    *("packages.network", "build.steps", "proof.difference", "proof.verification"),
    *("archive.admission", "archive.lifecycle", "archive.reserved", "archive.upload"),
)
"""Packages and modules that compute: no process, no file, no clock."""
EFFECTS = {"subprocess", "os", "tempfile", "shutil", "time", "pathlib", "random", "socket"}


def name_of(path: Path) -> str:
    """A module's name below debian_cloud: `host.run`; a package's own is `host`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def package_of(name: str) -> str:
    first = name.partition(".")[0]
    return "root" if first in ROOT_MODULES else first


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(text: str, *, running: bool = False) -> set[str]:
    """What a module imports: ours by their names below debian_cloud, after a dot; others by their first name.

    Imports for types alone are among them, unless it is asked what is imported when it runs.
    """
    found: set[str] = set()
    tree = ast.parse(text)
    typing_only = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    hidden = {id(child) for node in typing_only for child in ast.walk(node)} if running else set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {module(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a module names what it imports in full"
            # What is no module is a name that the module or the package itself has.
            found |= {module(f"{node.module}.{alias.name}", f"{node.module}") for alias in node.names}
    return found


def module(name: str, otherwise: str = "") -> str:
    first, _, rest = name.partition(".")
    if first != "debian_cloud":
        return first
    if rest in MODULES:
        return f".{rest}"
    return module(otherwise) if otherwise else ".__init__"


def upwards(name: str, found: set[str]) -> set[str]:
    """What a module imports of packages behind its own."""
    level = ORDER.index(package_of(name))
    return {other for other in found if other.startswith(".") and ORDER.index(package_of(other[1:])) > level}


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*ROOT_MODULES, "__main__"}
    assert {package_of(name) for name in MODULES} == {*ORDER}


@pytest.mark.parametrize("package", ORDER)
def test_imports_lead_down(package: str) -> None:
    found = {name: imports(path.read_text("utf-8")) for name, path in MODULES.items() if package_of(name) == package}
    assert {name: wrong for name in found if (wrong := upwards(name, found[name]))} == {}
    # Within a package in any order, but in no circle: CycleError names it.
    beside = {name: {other[1:] for other in of if other[1:] in found} for name, of in found.items()}
    graphlib.TopologicalSorter(beside).prepare()


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"^\| `([a-z0-9_/]+)(?:\.py|/)` \|", text, re.MULTILINE))
    there = {name.replace(".", "/") for name in MODULES} - {"__init__", "__main__"}
    assert {name for name in there if not name.startswith("cli/")} - named == set()
    for name in named:
        places = [place / f"{name}{end}" for place in (PACKAGE, ROOT) for end in ("", ".py")]
        assert any(place.exists() for place in places), name


def test_an_import_that_leads_up_is_found() -> None:
    for text in (
        "from debian_cloud.archive import state",
        "from debian_cloud.archive.state import records",
        "import debian_cloud.archive.state",
        "def f():\n    from debian_cloud import cli",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from debian_cloud.cli.plan import main",
    ):
        assert upwards("host.run", imports(text)), text
    for text in ("from debian_cloud import VERSION, names", "from debian_cloud.host import files", "import os"):
        assert not upwards("host.run", imports(text)), text


def test_the_package_does_without_the_source_tree() -> None:
    """tools/ and tests/ are not shipped."""
    assert {name for name, path in MODULES.items() if imports(path.read_text("utf-8")) & {"tools", "tests"}} == set()


@pytest.mark.parametrize("pure", PURE)
def test_what_computes_does_nothing_else(pure: str) -> None:
    inside = [path for name, path in MODULES.items() if pure in (name, package_of(name))]
    assert inside
    for path in inside:
        text = path.read_text("utf-8")
        found = imports(text, running=True)
        assert not found & EFFECTS, path
        assert "host" not in {package_of(name[1:]) for name in found if name.startswith(".")}, path
        # Dates may be computed with, not asked for.
        assert not re.search(r"\b(now|today|utcnow)\(", text), path


def test_verbs_alone_read_words() -> None:
    """What they call takes plain values, as a program without a command line has them."""
    texts = {name: path.read_text("utf-8") for name, path in MODULES.items()}
    below = {name: text for name, text in texts.items() if package_of(name) not in ("cli", "__main__")}
    assert {name for name, text in below.items() if re.search(r"\b(argparse|Namespace)\b", text)} == set()
    assert {name for name in cli.names() if "argparse" not in imports(texts[f"cli.{name}"])} == set()
    assert "options" not in cli.names()


def test_a_verb_has_its_words() -> None:
    for name in cli.names():
        verb = cli.verb(name)
        summary, _, rest = verb.__doc__.partition("\n")
        assert summary.endswith("."), name
        assert rest.strip(), name
        assert cli.parser(name).format_help().startswith("usage: debian-cloud")


def test_a_format_is_one_file() -> None:
    assert formats.names() == ("qcow2", "raw", "tar.xz")
    for name in formats.names():
        assert isinstance(formats.find(name).PUBLISHED, bool)
        assert formats.find(name).SOURCE in ("disk", "tree")


def control() -> dict[str, str]:
    """Binary package -> its stanza; "" is the source's."""
    text = (ROOT / "debian" / "control").read_text("utf-8")
    stanzas = re.split(r"\n(?=Package: |Source: )", text)
    return {(re.search(r"^Package: (\S+)", stanza, re.M) or [None, ""])[1] or "": stanza for stanza in stanzas}


def dependencies(stanza: str, *fields: str) -> list[str]:
    names = []
    for field in fields:
        match = re.search(rf"^{field}:((?:.*\n)(?:[ #].*\n?)*)", stanza, re.M)
        for line in match[1].splitlines() if match else []:
            if not line.startswith("#"):
                names += [re.split(r"[ (|]", item.strip())[0] for item in line.split(",") if item.strip()]
    return [name for name in names if not name.startswith("$")]


def test_each_tool_comes_with_the_package() -> None:
    depends = dependencies(control()["debian-cloud"], "Depends", "Pre-Depends")
    essential = {"coreutils", "diffutils", "findutils", "util-linux", "debian-cloud"}
    assert set(tools.PACKAGES.values()) <= {*depends, *essential}
    # What an ordinary installation brings besides: README's lines call nothing else.
    there = {*depends, *dependencies(control()["debian-cloud"], "Recommends"), *essential, "apt", "dpkg"}
    assert set(tools.OTHERS.values()) <= {*there, *dependencies(control()["debian-cloud-archive"], "Depends")}


def test_each_dependency_says_why() -> None:
    for stanza in control().values():
        lines = stanza.splitlines()
        for number, line in enumerate(lines):
            # Build-Depends, indented further, names one reason for several.
            if re.match(" {9}[a-z]", line):
                assert lines[number - 1].startswith("#"), line


def test_the_set_up_installs_what_the_packages_need() -> None:
    words = set(re.findall(r"[a-z0-9][a-z0-9+.-]+", (ROOT / "tests" / "setup").read_text("utf-8")))
    wanted = dependencies(control()[""], "Build-Depends")
    for package in ("debian-cloud", "debian-cloud-archive", "debian-cloud-mirror"):
        wanted += dependencies(control()[package], "Depends")
    skipped = {"apt", "debhelper-compat", "dh-sequence-python3", "dh-sequence-bash-completion", "debian-cloud"}
    assert set(wanted) - skipped <= words


def test_no_mirror_is_written_anywhere() -> None:
    """The builder takes Debian's sources from the machine's apt."""
    for path in [
        *PACKAGE.rglob("*.py"),
        *(path for folder in ("archive", "configs", "tools") for path in (ROOT / folder).rglob("*")),
    ]:
        if path.is_file() and "__pycache__" not in path.parts:
            assert not re.search(r"https?://[a-z0-9.-]*debian\.org/debian", path.read_text("utf-8")), path


def test_no_document_waits_to_be_filled_in() -> None:
    for name in ("README.md", "ARCHITECTURE.md"):
        assert not re.search(r"@[A-Z_]+@|TODO|FIXME", (ROOT / name).read_text("utf-8")), name
