# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of the house, as ARCHITECTURE.md draws it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from debian_cloud import cli, formats
from debian_cloud.host import tools

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "debian_cloud"

# Rooms in the order of the data; a module imports from those before its own, and from those beside it.
ORDER = (
    ("__init__", "errors", "printable"),
    ("names", "reserved", "deb822", "files", "openpgp", "plan", "progress", "tools", "scripts"),
    ("entries", "filesystems", "qcow2"),
    ("config", "custom", "disk", "checksums", "formats"),
    ("resolution", "index", "sources", "network", "gpt"),
    ("binary", "shell", "skeleton", "lint", "generated", "identities", "initrd"),
    ("verification", "lifecycle", "staleness", "upload"),
    ("packages", "metadata", "lock", "admission", "closure", "projections", "difference", "manifest", "render"),
    ("build",),
    ("run",),
    ("opened", "cache", "debfile", "scrub"),
    ("sign", "uploaders", "own"),
    ("options", "images", "evidence", "served", "state"),
    ("planning", "debs", "incoming", "proof"),
    ("workspace",),
    ("cli",),
    ("manual", "__main__"),
)
PLANNING = (
    *(
        "errors",
        "printable",
        "names",
        "deb822",
        "openpgp",
        "plan",
        "config",
        "custom",
        "disk",
        "formats",
        "resolution",
        "index",
    ),
    *("sources", "network", "metadata", "build"),
    *("binary", "shell", "skeleton", "lint", "lock", "projections", "difference", "closure", "entries"),
    *("filesystems", "gpt", "generated", "identities", "initrd", "verification", "lifecycle", "staleness"),
    *("admission", "reserved", "upload"),
)
"""Rooms that only think: no process, no file system, no clock."""
EFFECTS = {"subprocess", "os", "tempfile", "shutil", "time", "pathlib", "random", "socket"}


def modules(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def imports(path: Path) -> set[str]:
    """What a module imports at run time: ours as `debian_cloud.x`, others by their first name."""
    found: set[str] = set()
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    hidden = {id(child) for node in typing_only for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = f"debian_cloud.{module}".rstrip(".")
            if module == "debian_cloud":
                found |= {f"debian_cloud.{alias.name}" for alias in node.names}
            elif module.startswith("debian_cloud."):
                found.add(".".join(module.split(".")[:2]))
            else:
                found.add(module.partition(".")[0])
    return found


def test_every_module_has_its_place() -> None:
    placed = {room for rooms in ORDER for room in rooms}
    there = {path.stem for path in PACKAGE.glob("*.py")}
    there |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there == placed


@pytest.mark.parametrize("room", [room for rooms in ORDER for room in rooms])
def test_an_arrow_never_goes_back_up(room: str) -> None:
    level = next(n for n, rooms in enumerate(ORDER) if room in rooms)
    allowed = {r for rooms in ORDER[: level + 1] for r in rooms}
    for path in modules(room):
        ours = {name.partition(".")[2] for name in imports(path) if name.startswith("debian_cloud.")}
        # What is not a module is a name of the package itself.
        assert {name for name in ours if name.islower()} <= allowed, path


@pytest.mark.parametrize("room", PLANNING)
def test_planning_rooms_do_nothing(room: str) -> None:
    for path in modules(room):
        assert not imports(path) & EFFECTS, path
        # Dates may be computed with, not asked for.
        assert not re.search(r"\b(now|today|utcnow)\(", path.read_text("utf-8")), path


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
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "archive").rglob("*"), *(ROOT / "configs").rglob("*")]:
        if path.is_file() and "__pycache__" not in path.parts:
            assert not re.search(r"https?://[a-z0-9.-]*debian\.org/debian", path.read_text("utf-8")), path


def test_no_document_waits_to_be_filled_in() -> None:
    for name in ("README.md", "ARCHITECTURE.md"):
        assert not re.search(r"@[A-Z_]+@|TODO|FIXME", (ROOT / name).read_text("utf-8")), name
