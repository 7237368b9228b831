# SPDX-License-Identifier: GPL-3.0-or-later
"""The source package builds the expected binary packages, without complaints of lintian."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from debian.deb822 import Changes, Deb822, PkgRelation
from debian.debfile import DebFile

from debian_cloud import cli, formats, names
from debian_cloud.host import tools
from debian_cloud.image.config import FIELDS
from tests.configs.expected import LAYERS, ON
from tests.packaging.build import ROOT, build, built_packages, clean, copy
from tools import manual

if TYPE_CHECKING:
    from pathlib import Path

# Packages for the architecture that the tests run on, or for all.
CONFIGS = (*LAYERS, *ON["amd64"])
COMPLETE = """
. /usr/share/bash-completion/bash_completion
. "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
_debian_cloud
printf '%s\n' "${COMPREPLY[@]}"
"""
COMMANDS = ("debian-cloud", "debian-cloud-archive", "debian-cloud-mirror")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_packages(tmp_path_factory.mktemp("packages"))


def changes(built: Path) -> Changes:
    (path,) = built.glob("*.changes")
    return Changes(path.read_text("utf-8"))


def debs(built: Path) -> dict[str, DebFile]:
    """The built packages by name."""
    return {path.name.partition("_")[0]: DebFile(str(path)) for path in sorted(built.glob("*.deb"))}


def members(deb: DebFile) -> dict[str, str]:
    """Path -> mode and owner of a package's files and links, without directories."""
    return {
        member.name.removeprefix("./"): f"{'l' if member.issym() else ''}{member.mode:o} {member.uname}"
        for member in deb.data.tgz().getmembers()
        if not member.isdir()
    }


def content(deb: DebFile, path: str) -> str:
    found = deb.data.get_content(path, encoding="utf-8")
    assert isinstance(found, str)
    return found


def test_binary_packages_are_those_promised(built: Path) -> None:
    expected = {
        *COMMANDS,
        "debian-cloud-machines",
        "debian-cloud-modules",
        *(f"debian-cloud-config-{name}" for name in CONFIGS),
    }
    assert set(debs(built)) == expected


def test_the_keyring_is_left_to_each_archive(built: Path) -> None:
    assert "debian-cloud-archive-keyring" not in debs(built)
    # No configuration depends on it, because Debian's own archive does not have it.
    for name in CONFIGS:
        depends = debs(built)[f"debian-cloud-config-{name}"].debcontrol()["Depends"]
        assert "debian-cloud-archive-keyring" not in {r[0]["name"] for r in PkgRelation.parse_relations(depends)}


def test_the_upload_is_for_the_archives_suite(built: Path) -> None:
    assert changes(built)["Distribution"] == "trixie"


def test_versions_agree(built: Path) -> None:
    version = changes(built)["Version"]
    # The version has the suite's mark, except for the newest suite.
    assert version.endswith("~deb13u1")
    assert f'version = "{version.removesuffix("~deb13u1")}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert {deb.debcontrol()["Version"] for deb in debs(built).values()} == {version}


def test_lintian_has_nothing_to_say(built: Path) -> None:
    (path,) = built.glob("*.changes")
    done = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--allow-root", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_lintian_overrides_state_their_reason() -> None:
    for path in (ROOT / "debian").glob("**/*lintian-overrides"):
        for block in path.read_text("utf-8").strip().split("\n\n"):
            assert block.startswith("# "), f"{path}: the reason comes first"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_page_and_a_completion(built: Path, tmp_path: Path, command: str) -> None:
    deb = debs(built)[command]
    files = members(deb)
    assert f"usr/bin/{command}" in files
    assert f"usr/share/bash-completion/completions/{command}" in files
    page = tmp_path / f"{command}.1.gz"
    data = deb.data.get_content(f"usr/share/man/man1/{command}.1.gz")
    assert isinstance(data, bytes)
    page.write_bytes(data)
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    # apropos(1) indexes "name - description".
    assert re.search(rf"NAME {command} \S \w", " ".join(done.stdout.split()))


def test_the_page_has_every_verb(built: Path) -> None:
    verbs = [
        line.split()[0] for line in content(debs(built)["debian-cloud"], "usr/share/debian-cloud/verbs").splitlines()
    ]
    # The verbs of plans are not completed.
    assert verbs == [*cli.names()]


@pytest.mark.parametrize("command", COMMANDS)
def test_completions_are_bash(built: Path, tmp_path: Path, command: str) -> None:
    script = tmp_path / "completion"
    script.write_text(content(debs(built)[command], f"usr/share/bash-completion/completions/{command}"), "utf-8")
    subprocess.run(["bash", "-n", script], check=True)
    subprocess.run(["shellcheck", "-s", "bash", script], check=True)


def test_completion_knows_verbs_and_options(built: Path, tmp_path: Path) -> None:
    deb = debs(built)["debian-cloud"]
    (tmp_path / "verbs").write_text(content(deb, "usr/share/debian-cloud/verbs"), "utf-8")
    script = content(deb, "usr/share/bash-completion/completions/debian-cloud")
    script = script.replace("/usr/share/debian-cloud/verbs", str(tmp_path / "verbs"))
    (tmp_path / "completion").write_text(script, "utf-8")

    def complete(*words: str) -> list[str]:
        """The completions by bash of the last word."""
        done = subprocess.run(
            [
                "bash", "-c",
                COMPLETE,
                str(tmp_path / "completion"), *words,
            ],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.split()

    assert complete("debian-cloud", "bui") == ["build"]
    assert "--output" in complete("debian-cloud", "build", "--")
    assert complete("debian-cloud", "build", "--outp") == ["--output"]


COMPLETED: tuple[tuple[tuple[str, ...], set[str]], ...] = (
    (("bui",), {"build"}),
    (("adm",), set()),
    (("build", "--outp"), {"--output"}),
    (("build", "ec2", "--suite", ""), set(names.RELEASES)),
    (("show", "--arch", "a"), {"amd64", "arm64"}),
    (("build", "ec2", "--format", ""), set(formats.names())),
    (("sbom", "--format", "cy"), {"cyclonedx"}),
    (("cache", ""), {"list", "verify", "prune"}),
    (("cache", "prune", "--s"), {"--size"}),
    (("build", ""), {"fine", "other"}),
    (("new", "my-hpc", "--from", "o"), {"other"}),
    (("fetch", "ec2", "--serial", ""), {"20261120.0", "20261121.0"}),
    (("fetch", "ec2", "--suite", "bookworm", "--serial", ""), {"20261101.0"}),
    (("lint", "fi"), {"fine", "file"}),
    (("verify", "--closure", "fi"), {"file"}),
    (("sbom", "fi"), {"file"}),
)
LIST = """#!/bin/sh
case "$*" in
*bookworm*) echo "ec2 bookworm amd64 20261101.0 qcow2" ;;
*) printf "%s trixie amd64 %s qcow2 1 MiB current\\n" ec2 20261120.0 ec2 20261121.0 gce 20261122.0 ;;
esac
"""
"""What `debian-cloud list --images` prints."""


def test_completion_of_what_there_is(tmp_path: Path) -> None:
    """Configurations that real apt knows, and all fixed words, are completed."""
    (tmp_path / "verbs").write_text(manual.completion(), "utf-8")
    script = (ROOT / "debian/debian-cloud.bash-completion").read_text("utf-8")
    (tmp_path / "completion").write_text(script.replace("/usr/share/debian-cloud", str(tmp_path)), "utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/debian-cloud").write_text(LIST)
    (tmp_path / "bin/debian-cloud").chmod(0o755)
    (tmp_path / "file").touch()
    for folder in ("lists/partial", "cache"):
        (tmp_path / folder).mkdir(parents=True)
    stanza = "Package: debian-cloud-config-{}\nVersion: 1\nArchitecture: all\nMaintainer: x\n{}Description: x\n"
    provides = "Provides: debian-cloud-config\nStatus: install ok installed\n"
    there = [stanza.format("fine", provides), stanza.format("other", provides), stanza.format("common", "")]
    (tmp_path / "status").write_text("\n".join(there))
    (tmp_path / "apt.conf").write_text(
        f'Dir::State::status "{tmp_path}/status";\nDir::State::lists "{tmp_path}/lists";\n'
        f'Dir::Cache "{tmp_path}/cache";\nDir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "/dev/null";\n'
    )
    environment = {**os.environ, "APT_CONFIG": f"{tmp_path}/apt.conf", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    for words, offered in COMPLETED:
        command = ["bash", "-c", COMPLETE, str(tmp_path / "completion"), "debian-cloud", *words]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        )
        assert (words, {*done.stdout.split()}, done.stderr) == (words, offered, "")


def test_completion_of_the_archive_knows_verbs_and_options(tmp_path: Path) -> None:
    text = (ROOT / "debian/debian-cloud-archive.bash-completion").read_text("utf-8")
    completion = tmp_path / "completion"
    completion.write_text(text.replace("/usr/share/debian-cloud-archive", f"{ROOT}/archive"), "utf-8")

    def complete(*words: str) -> list[str]:
        script = COMPLETE.replace("_debian_cloud\n", "_debian_cloud_archive\n")
        command = ["bash", "-c", script, str(completion), "debian-cloud-archive", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert complete("snap") == ["snapshot"]
    assert set(complete("snapshot", "-")) == {"--list", "--json", "--remove", "--help"}
    assert complete("init", "--up") == ["--uploader"]
    assert complete("no-verb", "-") == ["--help"]
    (tmp_path / "public/images/trixie/ec2/amd64/20261121.0").mkdir(parents=True)
    (tmp_path / "public/dists/trixie-proposed").mkdir(parents=True)
    assert complete("withdraw", str(tmp_path), "trixie/e") == ["trixie/ec2"]
    assert complete("withdraw", str(tmp_path), "trixie/ec2/amd64/") == ["trixie/ec2/amd64/20261121.0"]
    assert complete("promote", str(tmp_path), "tri") == ["trixie-proposed"]


def test_every_tool_comes_with_a_dependency(built: Path) -> None:
    """The package depends on the packages of all tools in `tools`, except those that every system has."""
    relations = PkgRelation.parse_relations(debs(built)["debian-cloud"].debcontrol()["Depends"])
    essential = subprocess.run(
        ["dpkg-query", "-Wf", "${Package} ${Essential}\n"], capture_output=True, text=True, check=True
    ).stdout
    there = {line.split()[0] for line in essential.splitlines() if line.endswith(" yes")}
    there |= {name["name"] for relation in relations for name in relation} | {"debian-cloud"}
    assert set(tools.PACKAGES.values()) <= there


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_installs_its_trees_as_they_are(built: Path, name: str) -> None:
    deb = debs(built)[f"debian-cloud-config-{name}"]
    trees = [ROOT / "configs" / name / tree for tree in ("files", "files-amd64")]
    wanted = {
        str(path.relative_to(tree)): path.lstat().st_mode & 0o111
        for tree in trees
        for path in tree.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    files = members(deb)
    # These paths are debhelper's: documentation, overrides, and the installed debian/NAME.tmpfiles.
    ours = re.compile(r"usr/share/(doc|lintian)/|usr/lib/tmpfiles\.d/debian-cloud-config-[a-z-]+\.conf")
    assert {path for path in files if not ours.match(path)} == set(wanted)
    conffiles = deb.control.get_content("conffiles", encoding="utf-8") if deb.control.has_file("conffiles") else ""
    assert {path.lstrip("/") for path in str(conffiles).split()} == {p for p in wanted if p.startswith("etc/")}
    assert {owner.split()[1] for owner in files.values()} == {"root"}
    for path, executable in wanted.items():
        if path.startswith("usr/lib/netplan/"):
            assert files[path] == "600 root"
        elif not files[path].startswith("l"):
            assert files[path] == ("755 root" if executable else "644 root")


def test_fields_reach_the_package(built: Path) -> None:
    fields = debs(built)["debian-cloud-config-ec2"].debcontrol()
    of_image = {key: value for key, value in fields.items() if key.startswith("Image-")}
    # Words for another architecture are left out.
    assert of_image["Image-Firmware"] == "bios uefi"
    assert of_image["Image-Boot-Mode"] == "uefi-preferred"
    assert not any("[" in value for value in of_image.values())
    assert set(of_image) <= set(FIELDS), "dpkg writes a field's name in its own way"
    assert fields["Section"], "reprepro refuses a package without"


def test_the_builder_has_every_module_and_nothing_of_the_source_tree(built: Path) -> None:
    source = ROOT / "src"
    wanted = {path.relative_to(source).as_posix() for path in source.glob("debian_cloud/**/*.py")}
    folder = "usr/lib/python3/dist-packages/"
    files = members(debs(built)["debian-cloud-modules"])
    installed = {path.removeprefix(folder) for path in files if path.startswith(folder)}
    # The directory also has the scripts of plans, and metadata by Python's installer.
    apart = ("debian_cloud/machines/", "debian_cloud/cli/machines/")
    assert {path for path in installed if path.endswith(".py")} == {
        path for path in wanted if not path.startswith(apart)
    }
    assert {path.partition("/")[0].partition("-")[0] for path in installed} == {"debian_cloud"}


def test_every_script_of_a_plan_is_installed(built: Path) -> None:
    folder = "usr/lib/python3/dist-packages/debian_cloud/build/scripts"
    installed = {
        path.rpartition("/")[2]: mode
        for path, mode in members(debs(built)["debian-cloud-modules"]).items()
        if folder in path
    }
    scripts = {path.name for path in (ROOT / "src/debian_cloud/build/scripts").iterdir() if path.is_file()}
    assert {*installed} == scripts
    assert {mode for name, mode in installed.items() if not name.endswith(".py")} == {"755 root"}


def test_every_template_of_new_is_installed(built: Path) -> None:
    """Nothing else is installed beside the modules."""
    source = ROOT / "src"
    templates = {path.relative_to(source).as_posix() for path in source.glob("**/templates/**/*.j2")}
    assert "debian_cloud/configuration/templates/debian/control.j2" in templates
    folder = "usr/lib/python3/dist-packages/"
    files = {
        path.removeprefix(folder) for path in members(debs(built)["debian-cloud-modules"]) if path.startswith(folder)
    }
    others = {path for path in files if not path.endswith(".py") and path.startswith("debian_cloud/")}
    assert {path for path in others if "/build/scripts/" not in path} == templates


def test_archive_and_mirror_are_installed_apart(built: Path) -> None:
    archive = members(debs(built)["debian-cloud-archive"])
    assert {
        f"usr/share/debian-cloud-archive/verbs/{path.name}" for path in (ROOT / "archive/verbs").iterdir()
    } <= set(archive)
    assert not [path for path in archive if "mirror" in path and "/doc/" not in path]
    for name in ("debian-cloud", "debian-cloud-mirror"):
        assert members(debs(built)[name])[f"usr/bin/{name}"] == "755 root"
    assert not [path for path in members(debs(built)["debian-cloud-modules"]) if path.startswith("usr/bin/")]


def test_what_starts_instances_is_installed_apart(built: Path, tmp_path: Path) -> None:
    """Without debian-cloud-machines, the command works, and names that package for its verbs."""
    folder = "usr/lib/python3/dist-packages/debian_cloud"
    machines, modules = (
        {path for path in members(debs(built)[name]) if path.startswith(folder)}
        for name in ("debian-cloud-machines", "debian-cloud-modules")
    )
    source = ROOT / "src/debian_cloud"
    wanted = {path for name in ("machines", "cli/machines") for path in (source / name).rglob("*.py")}
    assert machines == {f"{folder}/{path.relative_to(source)}" for path in wanted}
    assert not machines & modules
    for deb in sorted(built.glob("debian-cloud-modules_*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, tmp_path], check=True)

    def said(*words: str) -> str:
        command = ("/usr/bin/python3", "-P", "-m", "debian_cloud", *words)
        env = {**os.environ, "PYTHONPATH": str(tmp_path / folder / "..")}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert "\n  build " in said("--help")
    assert "\n  run " not in said("--help")
    assert "no such verb: run" in said("run", "generic")
    assert "verbs for instances are in the package debian-cloud-machines" in said("run", "generic")
    for deb in sorted(built.glob("debian-cloud-machines_*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, tmp_path], check=True)
    assert "\n  run " in said("--help")


def test_a_mirror_needs_little(built: Path) -> None:
    """Only modules that run with Python alone are reached from the mirror's command."""
    relations = PkgRelation.parse_relations(debs(built)["debian-cloud-mirror"].debcontrol()["Depends"])
    names = {alternative["name"] for relation in relations for alternative in relation}
    assert names == {"python3", "debian-cloud-modules", "gpgv", "curl"}
    relations = PkgRelation.parse_relations(debs(built)["debian-cloud-modules"].debcontrol()["Depends"])
    assert {alternative["name"] for relation in relations for alternative in relation} == {"python3"}


def test_units_of_an_archive_wait_for_who_enables_them(built: Path) -> None:
    deb = debs(built)["debian-cloud-archive"]
    found = {path.rpartition("/")[2]: path for path in members(deb) if "/systemd/system/" in path}
    names = ("queue@.path", "queue@.service", "queue@.timer", "resign@.service", "resign@.timer")
    assert sorted(found) == [f"debian-cloud-archive-{name}" for name in names]
    assert "steps/as-owner %f resign\n" in content(deb, found["debian-cloud-archive-resign@.service"])
    # None is enabled or started (deb-systemd-helper(1p), deb-systemd-invoke(1p)).
    there = [name for name in ("preinst", "postinst", "prerm", "postrm") if deb.control.has_file(name)]
    scripts = [str(deb.control.get_content(name, encoding="utf-8")) for name in there]
    assert [script for script in scripts if "deb-systemd" in script or "systemctl" in script] == []


def test_only_layers_have_code_that_runs_at_installation(built: Path) -> None:
    """The layers' scripts make services and the boot loader read changes; a vendor's package has only data."""
    scripts = {"preinst", "postinst", "prerm", "postrm", "config"}
    found = {
        name: scripts & {member.removeprefix("./") for member in debs(built)[f"debian-cloud-config-{name}"].control}
        for name in CONFIGS
    }
    assert {name: files for name, files in found.items() if files} == {
        "common": {"postinst"},
        "cloud": {"postinst"},
    }


def run_script(deb: DebFile, script: str, action: str, prepare: str, folder: Path, *, after: str = "") -> None:
    """Run a maintainer script in a mount namespace of its own, with the commands in `folder` before all others."""
    (folder / script).write_text(str(deb.control.get_content(script, encoding="utf-8")), "utf-8")
    line = f'{prepare} && sh "$0" "$1" 0.2.0 {after}'
    subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", line, folder / script, action],
        env={"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"},
        check=True,
    )


def command(path: Path, script: str) -> None:
    """Make a command from an sh script."""
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("action", "installed", "container", "called"),
    [
        ("configure", True, False, True),
        ("triggered", True, False, True),
        ("configure", True, True, False),
        ("triggered", True, True, False),
        ("abort-upgrade", True, False, False),
        ("configure", False, False, False),
    ],
)
def test_the_boot_loader_learns_of_new_settings_where_it_is_in_use(
    built: Path,
    tmp_path: Path,
    action: str,
    installed: bool,
    container: bool,
    called: bool,
) -> None:
    """It is not run in an image under construction, which has no grub.cfg yet, nor in one booted as a container."""
    deb = debs(built)["debian-cloud-config-common"]
    # In a container without a disk update-grub fails, but the upgrade must not.
    command(tmp_path / "update-grub", f"touch {tmp_path}/called; exit {int(container)}")
    asked = f'[ "$*" = "--quiet --container" ] || exit 2; exit {int(not container)}'
    command(tmp_path / "systemd-detect-virt", asked)
    # /boot is the namespace's own.
    prepare = "mount -t tmpfs boot /boot" + (" && mkdir /boot/grub && : >/boot/grub/grub.cfg" if installed else "")
    run_script(deb, "postinst", action, prepare, tmp_path)
    assert (tmp_path / "called").exists() == called
    assert "interest-noawait /etc/default/grub.d\n" in str(deb.control.get_content("triggers", encoding="utf-8"))


@pytest.mark.parametrize(("action", "kept"), [("remove", True), ("upgrade", True), ("purge", False)])
def test_purging_removes_the_cache(built: Path, tmp_path: Path, action: str, kept: bool) -> None:
    # /var/cache is the namespace's own.
    prepare = "mount -t tmpfs cache /var/cache && mkdir -p /var/cache/debian-cloud/x /var/cache/other"
    after = f"&& [ -d /var/cache/other ] && if [ -e /var/cache/debian-cloud ]; then : >{tmp_path}/kept; fi"
    run_script(debs(built)["debian-cloud"], "postrm", action, prepare, tmp_path, after=after)
    assert (tmp_path / "kept").exists() == kept


def test_debians_keys_come_with_the_builder(built: Path) -> None:
    relations = PkgRelation.parse_relations(debs(built)["debian-cloud"].debcontrol()["Depends"])
    assert "debian-archive-keyring" in {relation[0]["name"] for relation in relations}


def test_the_same_tree_gives_the_same_packages_and_cleaning_leaves_nothing(built: Path, tmp_path: Path) -> None:
    def packages(folder: Path) -> dict[str, str]:
        return {e["name"]: e["sha256"] for e in changes(folder)["Checksums-Sha256"] if e["name"].endswith(".deb")}

    def files(tree: Path) -> set[str]:
        return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()}

    tree = copy(built / "debian-cloud", tmp_path)
    before = files(tree)
    again = build(tree)
    assert packages(again) == packages(built)
    clean(tree)
    assert files(tree) == before


@pytest.mark.thorough
def test_debians_builders_build_each_half_alone(built: Path, tmp_path: Path) -> None:
    halves = set[str]()
    for half in ("-A", "-B"):
        (tmp_path / half).mkdir()
        halves |= set(debs(build(copy(built / "debian-cloud", tmp_path / half), half)))
    assert halves == set(debs(built))


def test_the_source_package_knows_its_format() -> None:
    assert (ROOT / "debian/source/format").read_text("utf-8") == "3.0 (native)\n"
    (first, *_) = Deb822.iter_paragraphs((ROOT / "debian/control").read_text("utf-8"), use_apt_pkg=False)
    assert first["Rules-Requires-Root"] == "no"
    assert "debhelper-compat (= 13)" in first["Build-Depends"]
