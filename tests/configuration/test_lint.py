# SPDX-License-Identifier: GPL-3.0-or-later
"""`debian-cloud lint`: a bad package for every rule, then the sources of packages."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from debian_cloud import cli
from debian_cloud.configuration import lint
from debian_cloud.image.binary import MAINTAINER_SCRIPTS, QUESTIONS, Binary, File
from debian_cloud.packages import debs
from debian_cloud.packages.origin import Places
from tests.command import debian_cloud, refused
from tests.configurations import ONE_IMAGE, Configurations, configurations, deb

__all__ = ["configurations"]

ROOT = Path(__file__).resolve().parents[2]
NAME: Final = "debian-cloud-config-x"
FIELDS: Final = {
    "Package": NAME,
    "Version": "1.0~deb13u1",
    "Architecture": "amd64",
    "Section": "admin",
    "Depends": "debian-cloud-config-common, linux-image-amd64 (>= 6) | linux-image",
    **ONE_IMAGE,
    "Image-Size": "1G",
    "Image-Format": "raw qcow2",
    "Image-Firmware": "bios uefi",
    "Image-Drivers": "virtio",
    "Image-Console": "ttyS0",
    "Image-Memory": "512M",
    "Image-First-Boot": "cloud-init",
    "Image-User": "debian",
    "Image-Datasource": "None",
    "Description": "Debian image configuration: x\n Some words about it.",
}
FILES: Final = (
    File("/etc/default/grub.d/60_x.cfg"),
    File("/etc/wsl.conf"),
    File("/usr/lib/systemd/system/x.service"),
    File("/usr/share/doc/x/copyright"),
)
IMAGES: Final = frozenset({NAME, "debian-cloud-config-ec2"})
GOOD: Final = lint.Subject(Binary(FIELDS, {}, FILES), "trixie")
LAYER: Final = replace(
    GOOD,
    binary=Binary(
        {name: value for name, value in FIELDS.items() if name not in ONE_IMAGE and name[:6] != "Image-"}
        | {"Depends": "apt"},
        {},
        FILES,
    ),
)
ADDED: Final = """\
# Automatically added by dh_installsystemd/13.11.4
if [ "$1" = "configure" ]; then
	deb-systemd-helper enable 'x.service' >/dev/null || true
fi
# End automatically added section
"""
"""The script that debhelper adds to a package with a unit."""


def fields(**changed: str) -> lint.Subject:
    """The good package with other fields; an empty one is removed."""
    names = {name.replace("_", "-"): value for name, value in changed.items()}
    merged = {name: value for name, value in {**FIELDS, **names}.items() if value}
    return replace(GOOD, binary=Binary(merged, {}, FILES))


def installs(*files: File) -> lint.Subject:
    return replace(GOOD, binary=Binary(FIELDS, {}, files))


def runs(script: str, name: str = "postinst") -> lint.Subject:
    return replace(GOOD, binary=Binary(FIELDS, {name: f"#!/bin/sh\nset -e\n{script}\n"}, FILES))


def rules(subject: lint.Subject) -> list[str]:
    return [finding.rule for finding in lint.findings(subject)]


BAD: Final[list[tuple[str, lint.Subject, str, str]]] = [
    (
        "decided-secrets",
        fields(Depends="debian-cloud-config-common, tripwire"),
        "",
        "tripwire creates /etc/tripwire/*.key, keys, which all users could read",
    ),
    (
        "decided-secrets",
        replace(GOOD, components={"slapd": "main"}),
        "",
        "slapd creates /etc/ldap/slapd.d/**, a directory",
    ),
    (
        "decided-secrets",
        fields(Depends="debian-cloud-config-common, slapd", Image_Drop_Secrets="/etc/ldap/**"),
        "",
        "slapd creates /var/lib/ldap/**",
    ),
    ("fits-on-its-disk", replace(GOOD, crowded="it needs 12G"), "", "it needs 12G"),
    ("no-kept-secret", fields(Image_Keep_Secrets="/etc/x.key"), "", "it keeps /etc/x.key"),
    ("only-main", fields(Section="contrib/admin"), "", "its section is contrib/admin"),
    ("only-main", fields(Section="non-free/admin"), "", "non-free/admin"),
    (
        "not-official",
        replace(
            fields(Image_Components="main non-free", Section="contrib/admin"),
            components={"nvidia-driver": "non-free", "nano": "main"},
        ),
        "",
        "from non-free: nvidia-driver",
    ),
    (
        "non-free-firmware",
        replace(
            fields(Image_Components="main non-free-firmware", Section="contrib/admin"),
            components={"brcm": "non-free-firmware"},
        ),
        "",
        "from non-free-firmware: brcm",
    ),
    ("installable", replace(GOOD, unresolved="it cannot be installed"), "", "it cannot be installed"),
    (
        "no-other-image",
        replace(fields(Depends="debian-cloud-config-common, debian-cloud-config-ec2"), images=IMAGES),
        "",
        "ec2",
    ),
    ("no-other-image", fields(Depends="debian-cloud-config-common, debian-cloud-config"), "", "an image of its own"),
    (
        "no-other-image",
        replace(fields(Depends="debian-cloud-config-common", Pre_Depends="debian-cloud-config-ec2"), images=IMAGES),
        "",
        "ec2",
    ),
    (
        "no-other-image",
        replace(
            fields(Depends="debian-cloud-config-common, debian-cloud-config-cloud"),
            images=frozenset({"debian-cloud-config-cloud"}),
        ),
        "",
        "depends on debian-cloud-config-cloud",
    ),
    ("depends-on-common", fields(Depends="debian-cloud-config-cloud"), "", "does not depend on"),
    ("depends-on-common", fields(Depends=""), "", "does not depend on"),
    *(("replaces-the-others", fields(**{name: ""}), "", name) for name in ONE_IMAGE),
    ("replaces-the-others", fields(Provides="debian-cloud-configuration"), "", "Provides"),
    ("valid-fields", fields(Image_Sise="1G"), "", "unknown field Image-Sise; did you mean Image-Size?"),
    ("valid-fields", fields(Image_Size="8 gigs"), "", "Image-Size"),
    ("valid-fields", fields(Image_Format="floppy"), "", "floppy"),
    ("valid-fields", fields(Image_Memory="much"), "", "Image-Memory"),
    ("complete-fields", fields(Image_Memory=""), "", "Image-Memory"),
    ("complete-fields", fields(Image_First_Boot=""), "", "Image-First-Boot"),
    ("complete-fields", fields(Image_Datasource=""), "", "Image-Datasource"),
    ("has-a-description", fields(Description=""), "", "no description"),
    ("has-a-description", fields(Description="one line"), "", "only one line"),
    ("version-carries-the-suite", fields(Version="1.0"), "", "version 1.0 of trixie does not end with ~deb13u1"),
    ("version-carries-the-suite", fields(Version="1.0~deb12u1"), "", "~deb13u1"),
    ("for-a-known-suite", replace(GOOD, suite="UNRELEASED"), "", "it is for UNRELEASED"),
    *(
        ("drop-ins-only", installs(File(path)), f":{path}", "not a drop-in")
        for path in (
            *("/etc/fstab", "/etc/default/grub", "/etc/ssh/sshd_config", "/etc/init.d/x", "/etc/rc2.d/S01x"),
            *("/boot/x", "/usr/bin/x", "/opt/x", "/var/lib/x", "/root/.ssh/authorized_keys", "/lib/systemd/x"),
        )
    ),
    (
        "no-foreign-file",
        replace(GOOD, owners={"/usr/lib/systemd/system/x.service": ("x-server", "debian-cloud-config-ec2")}),
        ":/usr/lib/systemd/system/x.service",
        "it is also a file of x-server",
    ),
    *(
        ("no-setuid", installs(File("/usr/lib/x", b"", mode)), ":/usr/lib/x", f"{mode:o}")
        for mode in (0o4755, 0o2755)
    ),
    *(
        ("no-own-script", runs("true", name), f":{name}", f"it has a {name} of its own")
        for name in MAINTAINER_SCRIPTS
    ),
    *(
        ("no-own-script", runs(script), ":postinst", "of its own")
        for script in (
            # An earlier reader of shell scripts missed these.
            "find /etc/x | xargs rm",
            "w() { echo a >/etc/x; }; w",
            "$(printf 'r%s' m) /etc/x",
            "r=m; r$r /etc/x",
            # Any script is refused, whatever it does and however that is hidden.
            ":",
            "exit 0",
            "set -e; rm /etc/x",
            f"{ADDED}rm /etc/x",
            f"rm /etc/x {ADDED}",
            ADDED.replace("# End", "# The end"),
            ADDED.replace("dh_installsystemd", "me"),
            "# words\nrm /etc/x",
        )
    ),
    *(
        ("no-own-script", replace(GOOD, binary=Binary(FIELDS, {"prerm": script}, FILES)), ":prerm", "of its own")
        for script in ("#!/usr/bin/perl\n# words\n", "#!/bin/rm -rf\n", "\x7fELF\x02\x01", "#!/bin/sh -ec rm\n")
    ),
    *(
        (
            "no-question",
            replace(GOOD, binary=Binary(FIELDS, {name: "Template: x/y\nType: string\n"}, FILES)),
            f":{name}",
            f"it has a {name} file for debconf",
        )
        for name in QUESTIONS
    ),
    ("no-question", replace(LAYER, binary=replace(LAYER.binary, control={"config": ""})), ":config", "for debconf"),
]


@pytest.mark.parametrize(("rule", "subject", "place", "said"), BAD)
def test_what_breaks_a_rule(rule: str, subject: lint.Subject, place: str, said: str) -> None:
    found = [finding for finding in lint.findings(subject) if finding.rule == rule]
    assert found, f"{rule} has nothing to say"
    assert f"{NAME}{place}" in {finding.place for finding in found}
    assert any(said in finding.sentence for finding in found)
    assert all(finding.hint and "\n" not in finding.sentence for finding in found)
    # A rule reports only its own kind of problem.
    assert {finding.rule for finding in lint.findings(subject)} == {rule}


@pytest.mark.parametrize(("section", "said"), [("admin", True), ("contrib/admin", False), ("", False)])
def test_what_takes_from_another_component_is_in_contrib(section: str, said: bool) -> None:
    subject = fields(Image_Components="main non-free-firmware", Section=section)
    found = [finding.sentence for finding in lint.findings(subject) if finding.rule == "only-main"]
    assert found == ["its section is admin, but it takes packages from non-free-firmware"] * said


def test_the_good_package_breaks_none() -> None:
    assert lint.findings(GOOD) == ()


def test_every_rule_has_a_bad_package() -> None:
    assert {rule for rule, *_ in BAD} == {rule.name for rule in lint.RULES}


def test_the_table_says_what_it_demands() -> None:
    for rule in lint.RULES:
        assert rule.severity in (lint.ERROR, lint.WARNING)
        assert rule.demand.endswith(".")
        assert "\n" not in rule.demand + rule.hint
    assert len({rule.name for rule in lint.RULES}) == len(lint.RULES)


@pytest.mark.parametrize(
    "subject",
    [
        # A layer needs no fields of an image, and has the code that images share.
        LAYER,
        replace(LAYER, binary=replace(LAYER.binary, control={"postinst": "#!/bin/sh\nset -e\nupdate-grub\n"})),
        # The script that debhelper adds for a unit is not the package's own, with or without a #DEBHELPER# token.
        runs(ADDED),
        runs(f"{ADDED}\n{ADDED}"),
        runs("# words\n#DEBHELPER#\n"),
        replace(GOOD, binary=Binary(FIELDS, {"postinst": "#!/bin/sh -e\n", "triggers": "activate x\n"}, FILES)),
        # Munge's key is made again on each machine; for the others, a field decides.
        fields(
            Depends="debian-cloud-config-common, munge, slapd, tripwire",
            Image_Drop_Secrets="/etc/tripwire/* /etc/ldap/** /var/lib/ldap/**",
        ),
        # A container has neither disk nor console.
        fields(
            Image_Format="tar.xz",
            **dict.fromkeys(("Image_Firmware", "Image_Size", "Image_Console", "Image_Drivers"), ""),
            **dict.fromkeys(("Image_Memory", "Image_First_Boot"), ""),
        ),
        # The user's own layer is not an image, whatever its name.
        fields(Depends="debian-cloud-config-common, debian-cloud-config-hpc-base"),
        replace(fields(Depends="debian-cloud-config-common, debian-cloud-config-hpc-base"), images=IMAGES),
        replace(fields(Version="1.0"), suite="forky"),
        replace(fields(Version="1.0"), suite=""),
        fields(Version="1.0+deb13u2"),
        replace(GOOD, owners={"/etc/wsl.conf": ("debian-cloud-config-container",)}),
        installs(File("/usr/lib/x", b"", 0o755)),
    ],
)
def test_what_breaks_no_rule(subject: lint.Subject) -> None:
    assert lint.findings(subject) == ()


def changelog(line: str) -> File:
    return File(f"/usr/share/doc/{NAME}/changelog.gz", gzip.compress(line.encode()))


@pytest.mark.parametrize(
    ("files", "suite"),
    [
        ((), ""),
        ((changelog("x (1.0) bookworm; urgency=low\n"),), "bookworm"),
        ((changelog("nothing\n"),), ""),
        ((File(f"/usr/share/doc/{NAME}/changelog.gz", b"no gzip"),), ""),
        ((File("/usr/share/doc/other/changelog.gz", gzip.compress(b"x (1.0) sid; urgency=low\n")),), ""),
    ],
)
def test_a_package_tells_its_suite(files: tuple[File, ...], suite: str) -> None:
    assert lint.suite(Binary(FIELDS, {}, files)) == suite


def test_who_else_has_a_file(tmp_path: Path) -> None:
    text = (
        "usr/lib/x/a b                              utils/other,non-free/net/more\n"
        "lib/systemd/system/x.service       admin/systemd\n"
        "etc/x.d/y   admin/y\n"
        "usr/lib/x   admin/folder\n"
    )
    for name in ("one.gz", "two.gz"):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    wanted = ("/usr/lib/x/a b", "/usr/lib/systemd/system/x.service", "/etc/x.d/z", "/etc/x.d/y")
    assert debs.owners([tmp_path / "one.gz", tmp_path / "two.gz"], wanted) == {
        "/usr/lib/x/a b": ("other", "more"),
        "/usr/lib/systemd/system/x.service": ("systemd",),
        "/etc/x.d/y": ("y",),
    }


# The command.


def a_deb(folder: Path, changed: Mapping[str, str] = {}, *files: File, name: str = "x", **control: str) -> Path:
    said = {field: value for field, value in {**FIELDS, **changed}.items() if field not in ("Package", "Source")}
    return deb(folder, name, said, files, **control)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to check"),
        (["./nowhere"], "cannot be checked"),
        (["nowhere.deb"], "there is no file nowhere.deb"),
        (["nowhere.changes"], "cannot be checked"),
        (["/tmp"], "cannot be checked"),
        (["."], "cannot be checked"),
        (["ec2"], "cannot be checked"),
        (["X" * 5000], "is not a valid name"),
        (["latin.changes"], "latin.changes is not UTF-8 text"),
        (["a-folder.changes"], "cannot be checked"),
        (["empty"], "empty/debian/control has no package"),
        (["blank"], "blank/debian/control has no package"),
        (["nameless"], "nameless/debian/control has a stanza without Package"),
        (["latin"], "latin/debian/control is not UTF-8 text"),
        (["no-image"], "has no image configuration"),
    ],
)
def test_what_cannot_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ec2").mkdir()
    (tmp_path / "a-folder.changes").mkdir()
    (tmp_path / "latin.changes").write_bytes(b"Changed-By: Andr\xe9\n")
    for name, content in {
        "empty": b"",
        "blank": b"Source: x\n",
        "nameless": b"Source: x\n\nImage-Format: raw\n",
        "latin": b"Source: x\nMaintainer: Andr\xe9\n",
        "no-image": b"Source: x\n\nPackage: y\n",
    }.items():
        (tmp_path / name / "debian").mkdir(parents=True)
        (tmp_path / name / "debian" / "control").write_bytes(content)
    refused(debian_cloud("lint", *words), 2, said, "hint:")


def test_a_file_that_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_text("no package")
    refused(debian_cloud("lint", tmp_path / "x.deb"), 1, "x.deb is not a readable .deb", "hint:")


def repacked(package: Path, change: Callable[[Path], object]) -> Path:
    """A .deb with a changed control archive, which dpkg-deb(1) would refuse to build."""
    parts = package.parent / "parts"
    (parts / "control").mkdir(parents=True)
    subprocess.run(["dpkg-deb", "--control", package, parts / "control"], check=True)
    change(parts / "control")
    subprocess.run(["ar", "x", package], cwd=parts, check=True)
    (old,) = parts.glob("control.tar.*")
    old.unlink()
    subprocess.run(["tar", "-C", parts / "control", "-czf", parts / "control.tar.gz", "."], check=True)
    (data,) = parts.glob("data.tar.*")
    package.unlink()
    members = [parts / "debian-binary", parts / "control.tar.gz", data]
    subprocess.run(["ar", "rc", package, *members], check=True)
    return package


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link", "folder"])
@pytest.mark.parametrize("name", ["postinst", "config", "triggers"])
def test_a_control_file_that_is_no_plain_file(tmp_path: Path, name: str, kind: str) -> None:
    """Reading a pipe would never end, and a link could lead out of the package; dpkg would run the link's target."""
    made: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "link": lambda path: path.symlink_to("/bin/rm"),
        "dangling link": lambda path: path.symlink_to("/usr/lib/x"),
        "folder": Path.mkdir,
    }
    package = repacked(a_deb(tmp_path, {}, *FILES), lambda control: made[kind](control / name))
    refused(debian_cloud("lint", package), 1, f"has a {name} that is not a plain file")
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian" / "control").write_text(f"Source: x\n\nPackage: {NAME}\nImage-Format: raw\n")
    made[kind](tmp_path / "debian" / name)
    refused(debian_cloud("lint", tmp_path), 1, f"has a {name} that is not a plain file")


def test_other_control_files_are_not_read(tmp_path: Path) -> None:
    def change(control: Path) -> None:
        (control / "prerm").write_bytes(b"#!/bin/sh\n# \xff\n")
        os.mkfifo(control / "other")

    package = repacked(a_deb(tmp_path, {}, *FILES), change)
    done = debian_cloud("lint", package)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{UNASKED}1 package: 0 errors, 0 warnings\n", "")
    assert set(debs.read(package).control) == {"prerm"}


@pytest.mark.parametrize("text", [None, "", "Version: 1.0\n", "Package: x\n\nPackage: y\n"])
def test_a_package_that_does_not_say_what_it_is(tmp_path: Path, text: str | None) -> None:
    def change(control: Path) -> None:
        (control / "control").unlink()
        if text is None:
            (control / "control").symlink_to("/etc/hostname")
        else:
            (control / "control").write_text(text)

    refused(debian_cloud("lint", repacked(a_deb(tmp_path), change)), 2, "does not name its package", "hint:")


def test_a_package_that_is_no_configuration(tmp_path: Path) -> None:
    other = a_deb(tmp_path, {name: "" for name in FIELDS if name.startswith("Image-")})
    subprocess.run(["dpkg-deb", "-R", other, tmp_path / "tree"], check=True)
    control = tmp_path / "tree" / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Package: {NAME}", "Package: other"))
    subprocess.run(["dpkg-deb", "-b", tmp_path / "tree", other], stdout=subprocess.DEVNULL, check=True)
    refused(debian_cloud("lint", other), 2, "has no image configuration", "Image-*")


UNASKED = (
    "not checked for a file: installable, fits-on-its-disk; `debian-cloud lint NAME` checks them in an archive\n"
)


def test_a_good_package(tmp_path: Path) -> None:
    done = debian_cloud("lint", a_deb(tmp_path, {}, *FILES))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{UNASKED}1 package: 0 errors, 0 warnings\n", "")


def test_a_bad_package(tmp_path: Path) -> None:
    bad = a_deb(
        tmp_path,
        {"Image-Memory": ""},
        *(File("/etc/x"), File("/usr/lib/x", b"", 0o4755), changelog("x (1.0) bookworm; urgency=low\n")),
        postinst="#!/bin/sh\ncurl x\n",
    )
    done = debian_cloud("lint", bad)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split(": ")[:3] for line in lines[:-2:2]] == [
        ["error", "complete-fields", NAME],
        ["error", "version-carries-the-suite", NAME],
        ["error", "drop-ins-only", f"{NAME}:/etc/x"],
        ["error", "no-setuid", f"{NAME}:/usr/lib/x"],
        ["error", "no-own-script", f"{NAME}:postinst"],
    ]
    assert all(line.startswith("  hint: ") for line in lines[1:-2:2])
    assert f"{lines[-2]}\n" == UNASKED
    assert lines[-1] == "1 package: 5 errors, 0 warnings"
    machine = debian_cloud("lint", bad, "--json")
    assert machine.returncode == 1
    told = json.loads(machine.stdout)
    assert told["checked"] == [NAME]
    assert [finding["place"] for finding in told["findings"]] == [line.split(": ")[2] for line in lines[:-2:2]]
    # Rules that could not be checked are named.
    assert told["unasked"] == ["installable", "fits-on-its-disk"]
    assert set(told["findings"][0]) == {"rule", "severity", "place", "sentence", "hint"}


def test_a_warning_is_no_failure(tmp_path: Path) -> None:
    done = debian_cloud(
        "lint", a_deb(tmp_path, {"Image-Components": "main non-free-firmware", "Section": "contrib/admin"})
    )
    assert done.returncode == 0
    assert "warning: non-free-firmware" in done.stdout
    assert done.stdout.endswith("1 package: 0 errors, 1 warning\n")


def test_an_upload(tmp_path: Path) -> None:
    one, other = a_deb(tmp_path), a_deb(tmp_path, {"Image-Memory": ""}, name="y")
    files = "".join(f"\n 0 0 admin optional {path.name}" for path in (one, other))
    (tmp_path / "x.changes").write_text(f"Format: 1.8\nDistribution: bookworm\nFiles:{files}\n")
    done = debian_cloud("lint", tmp_path / "x.changes")
    assert done.returncode == 1
    assert done.stdout.count("version-carries-the-suite") == 2
    assert done.stdout.count("complete-fields: debian-cloud-config-y:") == 1
    assert done.stdout.endswith("2 packages: 3 errors, 0 warnings\n")


def test_a_source_tree(tmp_path: Path) -> None:
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian" / "changelog").write_text("x (1.0) trixie; urgency=medium\n")
    stanza = "".join(
        f"{'XB-' if name.startswith('Image-') else ''}{name}: {value}\n"
        for name, value in FIELDS.items()
        if name not in ("Version", "Section")
    ).replace("Architecture: amd64", "Architecture: amd64 arm64")
    stanza = stanza.replace("Image-Console: ttyS0", "Image-Console: ttyS0 [amd64] ttyAMA0 [arm64]")
    control = f"Source: x\nSection: contrib/admin\n\n{stanza}"
    (tmp_path / "debian" / "control").write_text(control)
    (tmp_path / "debian" / "postinst").write_text("#!/bin/sh\ncurl x\n")
    for folder in ("files/etc", "files-arm64/opt"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x").write_text("")
    done = debian_cloud("lint", tmp_path)
    assert done.returncode == 1
    assert [line.split(": ")[1:3] for line in done.stdout.splitlines() if line.startswith("error")] == [
        ["only-main", NAME],
        ["version-carries-the-suite", NAME],
        ["drop-ins-only", f"{NAME}:/etc/x"],
        ["no-own-script", f"{NAME}:postinst"],
        ["drop-ins-only", f"{NAME}:/opt/x"],
    ]
    # If there are several packages, each has its own directory and scripts.
    (tmp_path / "debian" / "control").write_text(f"{control}\nPackage: tool\nArchitecture: all\nDescription: tool\n")
    done = debian_cloud("lint", tmp_path)
    assert done.stdout.endswith("1 package: 2 errors, 0 warnings\n")
    (tmp_path / "configs" / "x").mkdir(parents=True)
    (tmp_path / "files").rename(tmp_path / "configs" / "x" / "files")
    (tmp_path / "debian" / "postinst").rename(tmp_path / "debian" / f"{NAME}.postinst")
    assert debian_cloud("lint", tmp_path).stdout.endswith("1 package: 4 errors, 0 warnings\n")


def test_a_package_that_holds_too_much_is_not_unpacked(tmp_path: Path) -> None:
    package = a_deb(tmp_path, {}, File("/usr/share/x", b"\0" * (2**26 + 1)))
    assert package.stat().st_size < 2**20
    done = debian_cloud("lint", package, TMPDIR=str(tmp_path))
    refused(done, 1, "has more than 64 MiB")


def test_what_a_package_says_is_shown_as_foreign(tmp_path: Path) -> None:
    hostile = "\x1b[2J\r1 package: 0 errors, 0 warnings\r\x9b\u202e\udcff"
    package = a_deb(
        tmp_path, {"Description": "x\x1b[2J\x9b\u202e"}, File(f"/usr/{hostile}"), File(f"/opt/{'x' * 200}/{hostile}")
    )
    done = debian_cloud("lint", package)
    assert done.returncode == 1, done.stderr
    said = done.stdout + done.stderr
    assert "\\x1b[2J" in said
    assert said.replace("\n", "").isprintable()
    assert [line for line in said.splitlines() if line.startswith("1 package: ")] == said.splitlines()[-1:]
    found = json.loads(debian_cloud("lint", "--json", package).stdout)
    assert any("\x1b[2J" in finding["place"] for finding in found["findings"])


def test_a_file_that_another_package_of_debian_has(tmp_path: Path) -> None:
    """The files are looked up in the suite's real Contents, those of architecture all and of amd64."""
    files = (
        File("/etc/cloud/cloud.cfg.d/05_logging.cfg"),
        File("/etc/default/grub.d/60_x.cfg"),
        File("/usr/lib/systemd/system/ssh.service"),
        changelog("x (1.0~deb13u1) trixie; urgency=medium\n"),
    )
    done = debian_cloud("lint", a_deb(tmp_path, {}, *files), "--contents", "--arch", "amd64")
    assert done.returncode == 1, done.stderr
    if "Mirror sync in progress?" in done.stderr:
        # Today, the machine's mirror does not have what the signed index lists: then that must be the error.
        assert "error: verify package indexes: " in done.stderr
        pytest.skip("the mirror's Contents are not those that its signed index lists")
    assert [line.split(": ", 1)[1] for line in done.stdout.splitlines()[:-1:2]] == [
        f"no-foreign-file: {NAME}:/etc/cloud/cloud.cfg.d/05_logging.cfg: it is a file of cloud-init",
        f"no-foreign-file: {NAME}:/usr/lib/systemd/system/ssh.service: it is a file of openssh-server",
    ], done.stderr


@pytest.mark.parametrize(("said", "asked"), [("UNRELEASED", "bookworm"), ("forky", "forky"), ("", "bookworm")])
def test_the_suite_whose_files_are_looked_through(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, asked: str
) -> None:
    """The suite is that of the package's release, else the given one: no mirror has UNRELEASED."""
    suites = []

    @contextlib.contextmanager
    def contents(_places: Places, suite: str, _arch: str) -> Iterator[tuple[Path, ...]]:
        suites.append(suite)
        yield ()

    monkeypatch.setattr("debian_cloud.packages.origin.contents", contents)
    (tmp_path / "debian").mkdir()
    if said:
        (tmp_path / "debian" / "changelog").write_text(f"x (1.0) {said}; urgency=medium\n")
    (tmp_path / "debian" / "control").write_text(f"Source: x\n\nPackage: {NAME}\nImage-Format: raw\n")
    cli.run(["lint", "--contents", "--suite", "bookworm", str(tmp_path)])
    assert suites == [asked]


def test_our_own_configurations_are_clean() -> None:
    done = debian_cloud("lint", ROOT)
    assert done.returncode == 0, done.stdout
    # The only warning is about the board's firmware.
    assert [line.split(": ")[:3] for line in done.stdout.splitlines() if line.startswith("warning")] == [
        ["warning", "non-free-firmware", "debian-cloud-config-raspi"]
    ]


def test_the_rules_are_told() -> None:
    done = debian_cloud("lint", "--rules")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(lint.RULES)
    assert {*lint._OF_ARCHIVE} <= {rule.name for rule in lint.RULES}
    assert "error    no-own-script: An image's configuration is data" in done.stdout


def test_a_configuration_of_the_archive(configurations: Configurations) -> None:
    done = debian_cloud("lint", "generic", *configurations.sources, "--json")
    told = json.loads(done.stdout)
    assert told["checked"] == ["debian-cloud-config-common", "debian-cloud-config-generic"]
    assert told["unasked"] == []
    assert {finding["rule"] for finding in told["findings"]} == {"complete-fields", "no-own-script"}
    assert done.returncode == 1


def test_a_configuration_that_is_not_there(configurations: Configurations) -> None:
    done = debian_cloud("lint", "generik", *configurations.sources)
    refused(done, 2, "no image configuration generik in trixie", "did you mean generic?")


@pytest.mark.parametrize("name", ["../x.y z", "UPPER"])
def test_a_name_that_is_no_package_name(name: str) -> None:
    refused(debian_cloud("lint", name), 2, "hint:")
