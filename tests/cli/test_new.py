# SPDX-License-Identifier: GPL-3.0-or-later
"""`debian-cloud new`: what it refuses, what it writes, and how that gets into the archive and into a plan."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from debian_cloud.build.derived import write
from debian_cloud.cli.new import maintainer
from debian_cloud.configuration import skeleton
from debian_cloud.errors import Error
from debian_cloud.image.binary import Binary, File
from debian_cloud.image.binary import relations as relations_of
from debian_cloud.text import deb822
from tests.command import debian_cloud, refused
from tests.configurations import FIELDS, ONE_IMAGE, Configurations, configurations

__all__ = ["configurations"]

ANN: Final = "Ann Example <ann@example.org>"


def new(
    archive: Configurations, output: Path, name: str, *arguments: str, base: str = "generic", **environment: str
) -> subprocess.CompletedProcess[str]:
    words: list[str | Path] = ["--from", base, "--output", output, *archive.sources, *arguments]
    return debian_cloud("new", *words, "--", name, **{"DEBFULLNAME": "", "DEBEMAIL": ANN, **environment})


@pytest.mark.parametrize("name", ["My-HPC", "../x", "a b", "-x", "", "a_b", "a..b", "debian-cloud-config-"])
def test_a_name_that_is_no_package_name(configurations: Configurations, tmp_path: Path, name: str) -> None:
    refused(new(configurations, tmp_path, name), 2, "is not a valid name", "hint:")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["ec2", "common", "debian-cloud-config-ec2"])
def test_a_name_that_the_archive_has(configurations: Configurations, tmp_path: Path, name: str) -> None:
    refused(new(configurations, tmp_path, name), 2, " exists already", "choose another name")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_base(configurations: Configurations, tmp_path: Path) -> None:
    done = new(configurations, tmp_path, "my-hpc", base="generik")
    refused(done, 2, "no image configuration generik in trixie", "did you mean generic?")
    refused(new(configurations, tmp_path, "my-hpc", base="common"), 2, "no image configuration common")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("added", "status", "said"),
    [
        ("mungee,nano", 1, ("no signed source of trixie has the package mungee", "did you mean munge?")),
        ("zzyzx-none", 1, ("no signed source of trixie has the package zzyzx-none", "hint:")),
        ("nano vim", 2, ("'nano vim' is not a Debian package name", "hint:")),
        ("mail-transport-agent", 2, ("mail-transport-agent is a virtual package", "postfix")),
        ("debian-cloud-config-ec2", 2, ("debian-cloud-config-ec2 is an image of its own", "hint:")),
        ("intel-microcode", 1, ("intel-microcode is in Debian's non-free-firmware", "Image-Components: main non")),
        ("postfix,exim4-daemon-light", 1, ("with postfix, exim4-daemon-light cannot be installed", "hint:")),
    ],
)
def test_an_addition_that_no_image_could_have(
    configurations: Configurations, tmp_path: Path, added: str, status: int, said: tuple[str, ...]
) -> None:
    """An addition that `build --add` refuses is refused with the same message, and nothing is written."""
    refused(new(configurations, tmp_path, "my-hpc", "--add", added), status, *said)
    assert list(tmp_path.iterdir()) == []


def test_what_every_debian_has_is_not_added(configurations: Configurations, tmp_path: Path) -> None:
    done = new(configurations, tmp_path, "my-hpc", "--add", "bash")
    refused(done, 2, "bash is part of every Debian system", "omit it from --add")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("epoch", ["abc", "1e9", "9" * 30])
def test_a_time_that_is_none(configurations: Configurations, tmp_path: Path, epoch: str) -> None:
    done = new(configurations, tmp_path, "my-hpc", SOURCE_DATE_EPOCH=epoch)
    refused(done, 2, f"SOURCE_DATE_EPOCH '{epoch}' is not a time", "hint:")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize("length", [250, 260])
def test_a_name_that_no_file_can_have(configurations: Configurations, tmp_path: Path, length: int) -> None:
    name = "x" * (length - len("debian-cloud-config-"))
    refused(new(configurations, tmp_path, name), 2, "cannot be written: File name too long", "hint:")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_there_is_kept(configurations: Configurations, tmp_path: Path, kind: str) -> None:
    there = tmp_path / "debian-cloud-config-my-hpc"
    there.mkdir() if kind == "folder" else there.symlink_to("nowhere")
    refused(new(configurations, tmp_path, "my-hpc"), 2, f"{there} exists already", "--output")
    assert list(tmp_path.iterdir()) == [there]


@pytest.mark.parametrize(
    ("environment", "option", "said"),
    [
        ({"DEBEMAIL": ""}, "", "the maintainer is unknown"),
        ({"DEBEMAIL": "ann@example.org"}, "", "the maintainer is unknown"),
        ({"DEBEMAIL": "", "DEBFULLNAME": "Ann"}, "", "the maintainer is unknown"),
        ({}, "Ann", "'Ann' is not a maintainer"),
        ({}, "Ann <ann>", "is not a maintainer"),
        ({}, "Ann <a@b>\nX: y", "is not a maintainer"),
        ({}, "Ann <a@b>, Bob <b@b>", "is not a maintainer"),
    ],
)
def test_a_maintainer_is_needed(
    configurations: Configurations, tmp_path: Path, environment: dict[str, str], option: str, said: str
) -> None:
    words = ["--maintainer", option] if option else []
    refused(new(configurations, tmp_path, "my-hpc", *words, **environment), 2, said, "hint:")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "option", "found"),
    [
        ({}, "", ANN),
        ({"DEBEMAIL": "ann@example.org", "DEBFULLNAME": "Ann Example"}, "", ANN),
        ({"DEBEMAIL": "x@example.org", "DEBFULLNAME": "X"}, ANN, ANN),
    ],
)
def test_who_the_maintainer_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], option: str, found: str
) -> None:
    for name, value in {"DEBFULLNAME": "", "DEBEMAIL": ANN, **environment}.items():
        monkeypatch.setenv(name, value)
    assert maintainer(option) == found


def test_a_place_that_cannot_be_written(configurations: Configurations, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(new(configurations, tmp_path / "file", "my-hpc"), 2, "cannot be written", "--output")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    """The file where a directory must be stands for any failure in the middle, such as a full disk."""
    with pytest.raises(Error, match="cannot be written"):
        write(tmp_path / "source", (File("README"), File("debian"), File("debian/control")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_the_source_package_goes_all_the_way(configurations: Configurations, tmp_path: Path) -> None:
    """The source package is written, built, checked by lintian, signed, uploaded with dput, and planned."""
    done = new(configurations, tmp_path, "my-hpc", "--add", "munge,slurmd,nano", SOURCE_DATE_EPOCH="1795262400")
    assert done.returncode == 0, done.stderr
    tree = tmp_path / "debian-cloud-config-my-hpc"
    assert done.stdout == f"{tree}\n"
    assert list(tmp_path.iterdir()) == [tree]

    source, binary = deb822.parse((tree / "debian/control").read_text())
    assert source["Source"] == binary["Package"] == "debian-cloud-config-my-hpc"
    # A layer has no version; a recommended package that is added becomes a dependency.
    assert [item.strip() for item in binary["Depends"].split(",") if item.strip()] == [
        *("${misc:Depends}", "debian-cloud-config-common", "netbase | tzdata", "munge", "slurmd", "nano"),
    ]
    assert binary["Recommends"].strip() == "less,"
    assert {name: binary[name] for name in ONE_IMAGE} == ONE_IMAGE
    assert {f"XB-{name}": value for name, value in FIELDS.items()}.items() <= binary.items()
    first = (tree / "debian/changelog").read_text().splitlines()
    assert first[0] == "debian-cloud-config-my-hpc (1.0~deb13u1) trixie; urgency=medium"
    assert source["Maintainer"] == ANN
    assert ANN in (tree / "debian/copyright").read_text()
    assert first[-1] == f" -- {ANN}  Sat, 21 Nov 2026 12:00:00 +0000"
    assert {str(path.relative_to(tree / "files")) for path in (tree / "files").rglob("*") if not path.is_dir()} == {
        *("etc/default/grub.d/60_generic.cfg", "usr/lib/netplan/50-generic.yaml"),
        "usr/lib/systemd/system/a.target.wants/b.service",
    }

    def step(*command: str | Path, folder: Path = tmp_path) -> str:
        run = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "GNUPGHOME": str(configurations.uploader.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        return run.stdout

    step("dpkg-buildpackage", "-us", "-uc", folder=tree)
    (changes,) = tmp_path.glob("*.changes")
    assert step("lintian", "--fail-on", "error,warning", "--allow-root", changes) == ""
    (package,) = tmp_path.glob("*.deb")
    files = step("dpkg-deb", "--contents", package)
    assert "-rw------- root/root        12" in files
    assert "b.service -> ../b.service" in files
    postinst = step("dpkg-deb", "--info", package, "postinst")
    assert "echo configured" in postinst
    assert "old.service" not in postinst
    assert "interest-noawait /etc/default/grub.d" in step("dpkg-deb", "--info", package, "triggers")
    assert step("dpkg-deb", "--info", package, "conffiles") == "/etc/default/grub.d/60_generic.cfg\n"

    step("debsign", f"-k{configurations.uploader.fingerprint}", changes)
    step("dput", "-c", configurations.folder / "dput/dput.cf", "debian-cloud", changes)
    configurations.run("accept")
    configurations.run("publish")
    told = debian_cloud("show", "my-hpc", "--json", *configurations.sources)
    assert told.returncode == 0, told.stderr
    resolution = json.loads(told.stdout)
    assert (resolution["config"]["name"], resolution["config"]["version"]) == (source["Source"], "1.0~deb13u1")
    resolved = {package["name"] for package in resolution["packages"]}
    wanted = {"debian-cloud-config-my-hpc", "debian-cloud-config-common", "munge", "slurmd", "nano"}
    assert wanted - resolved == set()
    assert "debian-cloud-config-generic" not in resolved


def test_readme_s_steps(configurations: Configurations, tmp_path: Path) -> None:
    """The pasted commands work with an archive of the user's own; the image is only planned."""
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
    (block,) = re.findall(r"^```\n([^`]*debian-cloud new .*?)^```", text, re.MULTILINE | re.DOTALL)
    known = tmp_path / "config/debian-cloud/a.sources"
    known.parent.mkdir(parents=True)
    known.write_text(
        f"Types: deb\nURIs: file:{configurations.folder}/public\nSuites: trixie\nComponents: main\n"
        f"Signed-By: {configurations.folder}/keyring.gpg\n"
    )
    for old, other in (
        ("sudo ", ": "),
        # lint would report many findings for the small base of this test.
        ("debian-cloud lint", ": lint"),
        ("my-hpc", "my-own"),
        ("~/archive", str(configurations.folder)),
        ("build my-own --output images", "plan my-own >plan"),
    ):
        assert old in block
        block = block.replace(old, other)
    done = subprocess.run(
        ["bash", "-euxc", block],
        cwd=tmp_path,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "accepted: debian-cloud-config-my-own_1.0~deb13u1_amd64.changes: " in done.stdout
    assert "debian-cloud-config-my-own" in (tmp_path / "plan").read_text("utf-8")


def written(base: Binary, suite: str = "trixie", added: tuple[str, ...] = ()) -> dict[str, File]:
    wish = skeleton.Wish("x", base, added, suite, ANN, "Sat, 21 Nov 2026 12:00:00 +0000")
    return {file.path: file for file in skeleton.source(wish)}


PLAIN: Final = {"Package": "debian-cloud-config-base", "Version": "2.0", "Architecture": "amd64", **FIELDS}


def test_the_newest_suite_has_no_mark() -> None:
    files = written(Binary(PLAIN, {}, ()), "forky")
    assert files["debian/changelog"].content.startswith(b"debian-cloud-config-x (1.0) forky;")
    assert b"~deb" not in files["README"].content


def test_the_readme_has_ten_lines() -> None:
    """The README of a new source package has ten lines, from the tools to an image, and none wraps on a terminal."""
    lines = written(Binary(PLAIN, {}, ()), added=("munge", "slurmd"))["README"].content.decode().splitlines()
    assert lines[0] == "The image configuration x of trixie: base, and munge, slurmd."
    assert lines[2] == "Later versions: dch(1); ~deb13u1 stays at the version's end."
    steps = ["tools", "build", "check", "publish", "sign", "upload", "image"]
    assert [line.split()[0] for line in lines[3:]] == steps
    assert len(lines) == 10
    assert max(map(len, lines)) <= 110


def test_a_base_without_anything_of_its_own() -> None:
    files = written(Binary(PLAIN, {"md5sums": ""}, ()))
    assert set(files) == {
        *("README", "debian/changelog", "debian/control", "debian/copyright", "debian/rules", "debian/source/format"),
    }
    assert b"fixperms" not in files["debian/rules"].content
    assert b"Recommends" not in files["debian/control"].content


def test_the_base_s_section_and_relations_are_kept() -> None:
    relations = {
        "Section": "contrib/admin",
        "Pre-Depends": "dpkg (>= 1.20)",
        "Suggests": "a, b",
        "Breaks": "c (<< 2)",
        "Conflicts": "debian-cloud-config, d",
        "Provides": "debian-cloud-config (= 2), e",
        "Enhances": "f",
    }
    files = written(Binary({**PLAIN, **relations}, {}, ()), added=("b",))
    source, binary = deb822.parse(files["debian/control"].content.decode())
    assert source["Section"] == "contrib/admin"
    wanted = {
        "Pre-Depends": ["dpkg (>= 1.20)"],
        "Suggests": ["a"],
        "Breaks": ["c (<< 2)"],
        "Enhances": ["f"],
        "Conflicts": ["debian-cloud-config", "d"],
        "Provides": ["debian-cloud-config", "e"],
        "Replaces": ["debian-cloud-config"],
        "Depends": ["${misc:Depends}", "b"],
    }
    assert {name: [*relations_of(binary[name])] for name in wanted} == wanted
    assert "Recommends" not in binary


def test_what_has_the_base_s_name_gets_the_new_one() -> None:
    text = b"# debian-cloud-config-base: as debian-cloud-config-basement and debian-cloud-config-base-x\n"
    base = Binary(
        PLAIN,
        {"triggers": "interest /usr/lib/debian-cloud-config-base\n", "postinst": "debian-cloud-config-base\n"},
        (
            File("/usr/lib/debian-cloud-config-base.sh", text),
            File("/usr/lib/binary", b"\xffdebian-cloud-config-base"),
            File("/usr/lib/link", link="debian-cloud-config-base.sh"),
            File("/usr/share/lintian/overrides/debian-cloud-config-base", b"debian-cloud-config-base: tag\n"),
        ),
    )
    files = written(base)
    renamed = text.replace(b"-base:", b"-x:")
    assert files["files/usr/lib/debian-cloud-config-x.sh"].content == renamed
    assert files["files/usr/lib/link"].link == "debian-cloud-config-x.sh"
    assert files["files/usr/lib/binary"].content == b"\xffdebian-cloud-config-base"
    assert files["debian/triggers"].content == b"interest /usr/lib/debian-cloud-config-x\n"
    assert files["debian/lintian-overrides"].content == b"debian-cloud-config-x: tag\n"
    assert files["debian/postinst"].content.startswith(b"debian-cloud-config-x\n")


def test_no_setuid_file_is_taken_over() -> None:
    base = Binary(PLAIN, {}, (File("/usr/lib/x", b"", 0o4755),))
    files = written(base)
    assert files["files/usr/lib/x"].mode == 0o755
    assert b"4755" not in files["debian/rules"].content


DEBHELPER_S: Final = """\
# Automatically added by dh_y/1
y
# End automatically added section
echo a
exit 0
"""


@pytest.mark.parametrize(
    ("script", "own"),
    [
        ("", ""),
        ("#!/bin/sh\nset -e\n# Automatically added by dh_x/1\nx\n# End automatically added section\n", ""),
        ("#!/bin/sh\nset -e\necho a", "#!/bin/sh\nset -e\necho a\n\n#DEBHELPER#\n"),
        (
            "#!/bin/sh\n# Automatically added by dh_x/1\nx\n# End automatically added section\n" + DEBHELPER_S,
            "#!/bin/sh\n#DEBHELPER#\necho a\nexit 0\n",
        ),
        ("#!/bin/sh\necho a\nexit 0\n", "#!/bin/sh\necho a\n\n#DEBHELPER#\n\nexit 0\n"),
    ],
)
def test_a_maintainer_script_comes_without_debhelpers_part(script: str, own: str) -> None:
    files = written(Binary(PLAIN, {"postinst": script}, ()))
    found = files["debian/postinst"].content.decode() if "debian/postinst" in files else ""
    assert found == own


def test_long_lists_are_folded() -> None:
    files = written(Binary(PLAIN, {}, ()), added=tuple(f"package-{n}" for n in range(30)))
    for name in ("debian/control", "debian/changelog"):
        assert max(map(len, files[name].content.decode().splitlines())) <= 80
