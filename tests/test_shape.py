# SPDX-License-Identifier: GPL-3.0-or-later
"""The structure of the source tree, as ARCHITECTURE.md describes it."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from debian_cloud import cli, formats
from debian_cloud.archive.steps import STEPS
from debian_cloud.host import tools

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "debian_cloud"

# In the order of the data: a module imports from its own package and from those before it.
ORDER = (
    *("root", "formats", "text", "host", "image", "configuration", "disk", "projections", "packages", "build"),
    *("proof", "machines", "archive", "mirror", "cli", "__main__"),
)
ROOT_MODULES = {"__init__", "errors", "names", "packed", "plan", "view"}
"""Modules outside all packages; every package may import them."""
PURE = (
    *("root", "formats", "text", "image", "configuration", "projections"),
    *("disk.ext4.accounts", "disk.ext4.layout", "disk.ext4.reader", "disk.ext4.records"),
    *("disk.fat", "disk.gpt", "disk.initrd", "disk.layout", "disk.tar"),
    *("build.layers", "build.stages", "build.steps", "proof.difference", "proof.verification"),
    *("machines.domain", "machines.instance", "machines.seed", "machines.spec", "machines.qemu.command"),
    *(
        "machines.libvirt.kept",
        "machines.ec2.blocks",
        "machines.ec2.launch",
        "machines.ec2.registration",
        "machines.ec2.tags",
    ),
    *("archive.admission", "archive.keys", "archive.lifecycle", "archive.reserved", "archive.upload"),
)
"""Packages and modules that only compute: they use no process, file or clock."""
EFFECTS = {"subprocess", "os", "tempfile", "shutil", "time", "pathlib", "random", "socket"}


def name_of(path: Path) -> str:
    """A module's name below debian_cloud: `host.run`; that of a package is `host`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def package_of(name: str) -> str:
    first = name.partition(".")[0]
    return "root" if first in ROOT_MODULES else first


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def imports(text: str, *, running: bool = False) -> frozenset[str]:
    """What a module imports: ours by the name below debian_cloud, after a dot; others by the top-level name.

    Imports under TYPE_CHECKING are included, unless `running`: then only what is imported when the module runs.
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
            # A name that is not a module's is one that the module or the package defines.
            found |= {module(f"{node.module}.{alias.name}", f"{node.module}") for alias in node.names}
    return frozenset(found)


def module(name: str, otherwise: str = "") -> str:
    first, _, rest = name.partition(".")
    if first != "debian_cloud":
        return first
    if rest in MODULES:
        return f".{rest}"
    return module(otherwise) if otherwise else ".__init__"


def upwards(name: str, found: frozenset[str]) -> set[str]:
    """What a module imports from packages after its own in ORDER."""
    level = ORDER.index(package_of(name))
    return {other for other in found if other.startswith(".") and ORDER.index(package_of(other[1:])) > level}


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*ROOT_MODULES, "__main__"}
    assert {package_of(name) for name in MODULES} == {*ORDER}


@pytest.mark.parametrize("package", ORDER)
def test_imports_lead_down(package: str) -> None:
    found = {name: imports(path.read_text("utf-8")) for name, path in MODULES.items() if package_of(name) == package}
    assert {name: wrong for name in found if (wrong := upwards(name, found[name]))} == {}
    # Modules of one package may import each other, but not in a circle: CycleError names it.
    beside = {name: {other[1:] for other in of if other[1:] in found} for name, of in found.items()}
    graphlib.TopologicalSorter(beside).prepare()


ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def test_the_architecture_names_every_package() -> None:
    named = re.findall(r"^\| `?([a-z_]+)(?:/|\.py)?`? \| p? ?\| ", ARCHITECTURE, re.MULTILINE)
    assert named == ["package", *ORDER]
    assert {f"`{name}.py`" for name in ROOT_MODULES - {"__init__"}} - {
        *re.findall("`[a-z_]+.py`", ARCHITECTURE)
    } == set()


def test_the_architecture_names_every_directory() -> None:
    """ARCHITECTURE.md has a row for every directory in git except src/ and the hidden ones."""
    named = set(re.findall(r"^\| `([a-z]+)/` \| [^p|]", ARCHITECTURE, re.MULTILINE))
    done = subprocess.run([ROOT / "tests/sources"], capture_output=True, text=True, check=True)
    there = {path.partition("/")[0] for path in done.stdout.split("\0") if "/" in path}
    assert {name for name in there if not name.startswith(".")} - {"src"} == named


def missing(text: str) -> set[str]:
    """The paths in a text that do not exist, and the names that are not in the file named before them.

    A path is relative to the source tree or to the package. Those that begin with DIR or are under "Names" are in an
    archive and not checked.
    """
    text = re.sub(r"^```.*?^```|^## Names$.*?(?=^## )", "", text, flags=re.MULTILINE | re.DOTALL)
    paths = {path for path in re.findall("`([A-Za-z0-9_./-]+)`", text) if "/" in path or path.endswith(".py")}
    paths = {path for path in paths if not path.startswith(("DIR/", "/"))}
    absent = {path for path in paths if not any((place / path).exists() for place in (ROOT, PACKAGE))}
    for path, names in re.findall(r"`([a-z0-9_/-]+(?:\.[a-z]+)?)`:((?:[ \n,]*`[A-Za-z_]+`)+)", text):
        for name in re.findall("`([A-Za-z_]+)`", names):
            files = [found for place in (ROOT, PACKAGE) for found in ((place / path), *(place / path).glob("*.py"))]
            if not any(re.search(rf"\b{name}\b", file.read_text("utf-8")) for file in files if file.is_file()):
                absent.add(f"{path}: {name}")
    return absent


def test_what_the_architecture_names_is_there() -> None:
    assert missing(ARCHITECTURE) == set()


def test_the_architecture_is_read_in_fifteen_minutes() -> None:
    """Its words take at most 15 minutes at 250 words per minute."""
    assert len(ARCHITECTURE.split()) <= 15 * 250


def test_a_name_without_a_thing_is_found() -> None:
    text = "`host/run.py` `host/walk.py` (`plan.py`: `KEPT`, `LOST`) `DIR/conf` `build/` `archive/verbs/frob` `x.py`"
    assert missing(text) == {"host/walk.py", "plan.py: LOST", "archive/verbs/frob", "x.py"}


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
    """The package imports nothing of tools/ and tests/, which are not shipped."""
    assert {name for name, path in MODULES.items() if imports(path.read_text("utf-8")) & {"tools", "tests"}} == set()


def of_tests(text: str) -> set[str]:
    """The test modules that a module imports: `tests.cli.test_new`, or a name in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if re.match(r"tests\.(\w+\.)*test_", name)}


def test_no_test_module_imports_another() -> None:
    """Code that several tests need is in a module without tests."""
    modules = sorted((ROOT / "tests").rglob("*.py"))
    assert {f"{path}": found for path in modules if (found := of_tests(path.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from tests.cli.test_new import deb",
        "from tests.cli import clients, test_new",
        "from tests import test_shape",
        "import tests.archive.test_keys as keys",
        "def f():\n    from tests.cli.test_new import deb",
    ],
)
def test_an_import_of_a_test_module_is_found(text: str) -> None:
    assert of_tests(text)
    assert not of_tests(text.replace("test_", "of_"))


@pytest.mark.parametrize("pure", PURE)
def test_what_computes_does_nothing_else(pure: str) -> None:
    inside = [path for name, path in MODULES.items() if pure in (name, package_of(name))]
    assert inside
    for path in inside:
        text = path.read_text("utf-8")
        found = imports(text, running=True)
        assert not found & EFFECTS, path
        assert "host" not in {package_of(name[1:]) for name in found if name.startswith(".")}, path
        # Dates may be computed with, but the current one not asked for.
        assert not re.search(r"\b(now|today|utcnow)\(", text), path


WITH_APT = {"proof.fetch", "proof.rebuild", "proof.verify"}
"""The modules of `proof/` that call apt: to fetch an image, and to find the packages of one that is rebuilt."""
READERS = ("packages.described", "packages.evidence", "proof.trust", "proof.bundle", "proof.comparison")
"""Modules that read or trust a .buildinfo, besides `projections/` and the modules of `archive/` that are no steps."""


def reached(name: str) -> set[str]:
    """The modules that run when a module is imported, itself included; names are as `imports` gives them."""
    found, waiting = {f".{name}"}, [name]
    while waiting:
        path = MODULES.get(waiting.pop())
        more = imports(path.read_text("utf-8"), running=True) - found if path else set()
        found |= more
        waiting += [other[1:] for other in more if other.startswith(".")]
    return found


def test_who_reads_a_buildinfo_imports_no_apt() -> None:
    assert {name for name, path in MODULES.items() if "apt_pkg" in imports(path.read_text("utf-8"))} == {
        "packages.resolver"
    }
    graph = {name: reached(name) for name in MODULES}
    readers = {name for name, found in graph.items() if {".image.buildinfo", ".packages.described"} & found}
    assert {"packages.described", *WITH_APT, "proof.trust", "proof.comparison", "archive.images"} <= readers
    rooms = ("image", "projections", "proof", "archive")
    inside = {name for name in MODULES if package_of(name) in rooms and not name.startswith("archive.steps")}
    assert {name for name in inside | {*READERS} if "apt_pkg" in graph[name]} == WITH_APT


def test_a_buildinfo_is_read_where_there_is_no_apt() -> None:
    """The modules that read a .buildinfo can be imported by an interpreter in which the import of apt_pkg fails."""
    names = (*READERS, "archive.images", "archive.updates", "archive.closures", "cli.sbom", "cli.diff")
    lines = ["import sys", "sys.modules['apt_pkg'] = None", *(f"import debian_cloud.{name}" for name in names)]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # The import does fail for a module that needs apt.
    apt = [*lines[:2], "import debian_cloud.packages.resolver"]
    done = subprocess.run([sys.executable, "-c", "\n".join(apt)], capture_output=True, text=True, check=False)
    assert "apt_pkg" in done.stderr


INSTANCES = (
    *("console", "deregister", "domain", "extend", "instances", "reboot", "register"),
    *("run", "ssh", "start", "stop", "targets", "terminate"),
)
"""The verbs of the package debian-cloud-machines."""
PEOPLE = (
    *(
        "build",
        "cache",
        "diff",
        "fetch",
        "lint",
        "list",
        "new",
        "plan",
        "rebuild",
        "sbom",
        "show",
        "status",
        "verify",
    ),
)
"""Those of debian-cloud itself."""


def test_people_are_shown_what_is_for_people() -> None:
    assert cli.of_machines() == INSTANCES
    assert cli.names() == tuple(sorted((*PEOPLE, *INSTANCES)))
    assert re.findall("^  ([a-z]+) +[A-Z]", cli.usage(), re.M) == [*cli.names()]


def test_verbs_and_steps_alone_read_words() -> None:
    """Only verbs and steps read the command line; what they call takes plain values, as other programs pass them."""
    word = re.compile(r"(?<![.-])\b(argparse|Namespace|args)\b")
    found = {name for name, path in MODULES.items() if word.search(path.read_text("utf-8"))}
    verbs = {*(f"cli.{name}" for name in PEOPLE), *(f"cli.in_plans.{name}" for name in cli.of_plans())}
    verbs |= {"cli.machines.options", *(f"cli.machines.{name}" for name in INSTANCES)}
    steps = {f"archive.steps.{name.replace('-', '_')}" for name in STEPS.names()}
    # cli and host.command make the parsers, and the others declare options that several of them share.
    assert found == {*verbs, *steps, "host.command", "packages.words", "cli", "cli.options", "mirror.__main__"}


def test_a_verb_has_its_words() -> None:
    known = [(cli.verb(name), cli.parser(name), "debian-cloud ") for name in (*cli.names(), *cli.of_plans())]
    known += [(STEPS.verb(name), STEPS.parser(name), f"{STEPS.command} ") for name in STEPS.names()]
    for verb, parser, command in known:
        summary, _, rest = verb.__doc__.partition("\n")
        assert summary.endswith("."), parser.prog
        assert rest.strip(), parser.prog
        assert parser.prog.startswith(command)
        assert parser.format_help().startswith(f"usage: {command}")


def test_a_step_is_called_by_a_script() -> None:
    """Each step is called by a script, and each step that a script calls exists."""
    scripts = [path for name in ("lib", "steps", "verbs") for path in (ROOT / "archive" / name).iterdir()]
    code = re.sub("^ *#.*\\n", "", "".join(path.read_text("utf-8") for path in scripts), flags=re.M)
    called = {*re.findall(r"(?:^|[ (])step(?:_within \S+ [0-9]+)? ([a-z][a-z-]*)", code, re.M)}
    assert called == {*STEPS.names()}
    # No script calls debian-cloud, which is for people.
    assert re.findall(r"(?:^ *|\$\(|[|&;] )debian-cloud .*", code, re.M) == []


def test_a_format_is_one_file() -> None:
    assert formats.names() == ("qcow2", "raw", "raw.xz", "tar.gz", "tar.xz", "vhd")
    for name in formats.names():
        assert isinstance(formats.find(name).PUBLISHED, bool)
        assert formats.find(name).SOURCE in ("disk", "tree")


def control() -> dict[str, str]:
    """The stanzas of debian/control: binary package -> stanza; the source's is ""."""
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
    essential = {"coreutils", "diffutils", "findutils", "tar", "util-linux", "debian-cloud"}
    assert set(tools.PACKAGES.values()) <= {*depends, *essential}
    # README's commands come with the package, its Recommends, or the base system.
    there = {*depends, *dependencies(control()["debian-cloud"], "Recommends"), *essential, "apt", "dpkg"}
    there |= {"hostname", *dependencies(control()["debian-cloud-archive"], "Depends")}
    there |= {*dependencies(control()["debian-cloud-mirror"], "Depends", "Recommends")}
    assert set(tools.OTHERS.values()) <= there
    machines = dependencies(control()["debian-cloud-machines"], "Depends", "Recommends", "Suggests")
    assert set(tools.MACHINES.values()) <= {*machines, *essential}


def test_what_starts_instances_is_in_its_package_alone() -> None:
    """Without debian-cloud-machines, the other packages miss none of its modules."""
    outside = {name for name in MODULES if not name.startswith(("machines", "cli.machines"))}
    found = {name: imports(MODULES[name].read_text("utf-8")) for name in outside}
    assert {
        name for name, of in found.items() if any(other.startswith((".machines", ".cli.machines")) for other in of)
    } == set()


def test_each_dependency_says_why() -> None:
    for stanza in control().values():
        lines = stanza.splitlines()
        for number, line in enumerate(lines):
            # In Build-Depends, packages that are indented further share the reason above.
            if re.match(" {9}[a-z]", line):
                assert lines[number - 1].startswith("#"), line


def test_the_set_up_installs_what_the_packages_need() -> None:
    words = set(re.findall(r"[a-z0-9][a-z0-9+.-]+", (ROOT / "tests" / "setup").read_text("utf-8")))
    wanted = dependencies(control()[""], "Build-Depends")
    for package in ("debian-cloud", "debian-cloud-archive", "debian-cloud-machines", "debian-cloud-mirror"):
        wanted += dependencies(control()[package], "Depends")
    skipped = {"apt", "debhelper-compat", "dh-sequence-python3", "dh-sequence-bash-completion"}
    skipped |= {"debian-cloud", "debian-cloud-modules"}
    assert set(wanted) - skipped <= words


def test_no_mirror_is_written_anywhere() -> None:
    """No file names a mirror of Debian: the builder takes Debian's sources from the machine's apt."""
    for path in [
        *PACKAGE.rglob("*.py"),
        *(path for folder in ("archive", "configs", "tools") for path in (ROOT / folder).rglob("*")),
    ]:
        if path.is_file() and "__pycache__" not in path.parts:
            assert not re.search(r"https?://[a-z0-9.-]*debian\.org/debian", path.read_text("utf-8")), path


def test_no_document_waits_to_be_filled_in() -> None:
    for name in ("README.md", "ARCHITECTURE.md"):
        assert not re.search(r"@[A-Z_]+@|TODO|FIXME", (ROOT / name).read_text("utf-8")), name
