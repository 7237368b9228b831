# SPDX-License-Identifier: GPL-3.0-or-later
"""`debian-cloud diff` of .buildinfo files and of images: small images with real .debs, dpkg, file system and tar."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from debian_cloud.cli.diff import _section as section
from tests.command import debian_cloud, refused
from tests.samples import described

ROOT_X86_64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"  # Discoverable Partitions Specification

OLD_ENTRY = """\
{name} (1.0-1) unstable; urgency=medium

  * First.

 -- A <a@example.org>  Fri, 20 Nov 2026 10:00:00 +0000
"""
NEW_ENTRY = """\
{name} (1.0-1+deb13u1) trixie-security; urgency=high

  * Fix a hole: CVE-2026-4242. (Closes: #1234567)
  * A line that \x1b[2J clears screens.

 -- A <a@example.org>  Sat, 21 Nov 2026 10:00:00 +0000

"""


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def deb(folder: Path, name: str, version: str, files: dict[str, bytes], changelog: str = "") -> Path:
    tree = folder / f"{name}-{version}"
    control = {"Package": name, "Version": version, "Architecture": "amd64", "Maintainer": "A <a@example.org>"}
    said = {**control, "Description": "test"}
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text("".join(f"{field}: {value}\n" for field, value in said.items()))
    if changelog:
        files = {**files, f"usr/share/doc/{name}/changelog.Debian.gz": gzip.compress(changelog.encode(), mtime=0)}
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    made = folder / f"{name}_{version}_amd64.deb"
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made)
    return made


def tree(folder: Path, *debs: Path, **generated: str) -> Path:
    """Make a root file system in which dpkg has installed these packages."""
    root = folder / "root"
    for path in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"):
        (root / path).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    run("dpkg", f"--root={root}", "--force-not-root", "--force-depends", f"--log={folder}/log", "--install", *debs)
    for name, text in generated.items():
        (root / "etc" / name).write_text(text)
    return root


def disk(root: Path, out: Path) -> Path:
    start, size = 2**20, 16 * 2**20
    with out.open("wb") as file:
        file.truncate(start + size + 2**20)
    table = f"label: gpt\nstart={start // 512}, size={size // 512}, type={ROOT_X86_64}\n"
    subprocess.run(["sfdisk", "--quiet", out], input=table, text=True, check=True)
    run("mke2fs", "-q", "-t", "ext4", "-E", f"offset={start}", "-d", root, out, f"{size // 1024}k")
    return out


def tar(root: Path, out: Path) -> Path:
    archive = subprocess.run(
        ["tar", "--create", "--format=pax", "--sort=name", "--numeric-owner", f"--directory={root}", "."],
        capture_output=True,
        check=True,
    ).stdout
    out.write_bytes(lzma.compress(archive, preset=0))
    return out


@dataclass(frozen=True)
class Images:
    """Two serials of an image, in each format: `tool` is upgraded, `old` removed, `new` added."""

    folder: Path

    def __call__(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    top = tmp_path_factory.mktemp("images")
    changelog = OLD_ENTRY.format(name="tool")
    dpkg = deb(top, "dpkg", "1.22", {"usr/bin/dpkg": b"dpkg"})
    before = (
        dpkg,
        deb(top, "tool", "1.0-1", {"usr/bin/tool": b"old", "usr/bin/gone": b"x"}, changelog),
        deb(top, "old", "1", {"usr/bin/old": b"y" * 4096}),
    )
    after = (
        dpkg,
        deb(
            top,
            "tool",
            "1.0-1+deb13u1",
            {"usr/bin/tool": b"newer", "usr/bin/come": b"x"},
            NEW_ENTRY.format(name="tool") + changelog,
        ),
        deb(top, "new", "2~rc1", {"usr/bin/new": b"z" * 2**20}),
    )
    for name, debs, machine in (("a", before, "1"), ("b", after, "2")):
        (top / name).mkdir()
        root = tree(top / name, *debs, **{"machine-id": machine, "same": "same"})
        disk(root, top / f"{name}.raw")
        run("qemu-img", "convert", "-O", "qcow2", top / f"{name}.raw", top / f"{name}.qcow2")
        tar(root, top / f"{name}.tar.xz")
        shutil.rmtree(top / name)
    yield Images(top)
    shutil.rmtree(top)


@pytest.mark.parametrize("kind", ["raw", "qcow2", "tar.xz"])
def test_two_images_are_told_apart(images: Images, kind: str) -> None:
    done = debian_cloud("diff", images(f"a.{kind}"), images(f"b.{kind}"))
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.startswith(f"from a.{kind}: 3 packages, ")
    assert "\npackages: 1 added, 1 removed, 1 upgraded, 0 downgraded; +" in said
    assert "\nnamed in changelogs: 1 CVE, 1 bug\n" in said
    assert "\nadded:\n  new 2~rc1  1.0 MiB\n" in said
    assert "\nremoved:\n  old 1  4 KiB\n" in said
    assert "\nupgraded:\n  tool 1.0-1 -> 1.0-1+deb13u1  +" in said
    assert "\nchangelogs:\n  tool 1.0-1 -> 1.0-1+deb13u1: tool\n    CVE-2026-4242\n    closes #1234567\n" in said
    assert "\n  tool: 1 added, 1 removed, 2 changed  +" in said
    assert "\x1b" not in said
    assert "+ /" not in said


def test_in_full_each_entry_and_each_path_is_told(images: Images) -> None:
    said = debian_cloud("diff", "--full", images("a.raw"), images("b.raw")).stdout
    assert "\n    1.0-1+deb13u1 trixie-security\n        * Fix a hole: CVE-2026-4242. (Closes: #1234567)\n" in said
    assert "\n        * A line that \\x1b[2J clears screens.\n" in said
    assert "First." not in said
    assert "\n    + /usr/bin/come\n    - /usr/bin/gone\n    ~ /usr/bin/tool  (content)\n" in said
    assert "\n    ~ /etc/machine-id  (content)\n" in said
    assert "/etc/same" not in said
    assert "/usr/bin/dpkg" not in said


def test_people_are_shown_so_many_lines_of_a_section() -> None:
    shown = [*section("added", (str(number) for number in range(10**5)), 3)]
    assert shown == ["\nadded:", "  0", "  1", "  2", "  and 99997 more lines; --full prints them"]
    assert [*section("added", iter("ab"), 2)] == ["\nadded:", "  a", "  b"]
    assert [*section("added", iter(()), 2)] == []


def test_scripts_get_it_all(images: Images) -> None:
    said = json.loads(debian_cloud("diff", "--json", images("a.qcow2"), images("b.tar.xz")).stdout)
    assert said["old"]["packages"] == said["new"]["packages"] == 3
    assert [package["name"] for package in said["packages"]["added"]] == ["new"]
    assert said["packages"]["upgraded"][0]["old"]["version"] == "1.0-1"
    assert said["cves"] == ["CVE-2026-4242"]
    assert said["bugs"] == [1234567]
    (log,) = said["changelogs"]
    assert (log["source"], log["packages"], log["lost"]) == ("tool", ["tool"], False)
    assert "A line that \x1b[2J clears" in log["news"][0]["text"]
    files = {files["package"]: files for files in said["files"]}
    assert files["tool"]["added"] == ["usr/bin/come"]
    assert files["tool"]["changed"]["usr/bin/tool"] == ["content"]
    assert files["new"]["new_size"] == 2**20
    assert files[""]["generated"]
    assert "etc/machine-id" in files[""]["changed"]


def test_the_way_back_tells_what_is_lost(images: Images) -> None:
    said = debian_cloud("diff", images("b.raw"), images("a.raw")).stdout
    assert "\npackages: 1 added, 1 removed, 0 upgraded, 1 downgraded; -" in said
    assert "\nlost from changelogs: 1 CVE, 1 bug\n" in said
    assert "\n  tool 1.0-1+deb13u1 -> 1.0-1: tool\n    1 entry lost\n    CVE-2026-4242\n" in said


@pytest.mark.parametrize("other", ["a.raw", "a.qcow2", "a.tar.xz"])
def test_one_image_in_any_format_is_the_same(images: Images, other: str) -> None:
    """Only the two directories that mke2fs itself makes may differ: the root directory and lost+found."""
    found = json.loads(debian_cloud("diff", "--json", images("a.raw"), images(other)).stdout)
    paths = {path for files in found["files"] for path in (*files["added"], *files["removed"], *files["changed"])}
    assert paths <= {"", "lost+found"}
    assert found["packages"] == {"added": [], "removed": [], "upgraded": [], "downgraded": [], "replaced": []}
    assert found["changelogs"] == []


def buildinfo(path: Path, by: dict[str, str] | None = None) -> Path:
    text = described()
    for old, new in (by or {}).items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_two_buildinfos_are_told_apart(tmp_path: Path) -> None:
    old = buildinfo(tmp_path / "old.buildinfo")
    changes = {f"{'f' * 64} 88296 base-files 13.8 ": f"{'0' * 64} 90344 base-files 13.8+deb13u1 "}
    new = buildinfo(tmp_path / "new.buildinfo", changes)
    done = debian_cloud("diff", old, new)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "from old.buildinfo: 2 packages, 0.2 MiB of .debs\n"
        "to   new.buildinfo: 2 packages, 0.2 MiB of .debs\n"
        "packages: 0 added, 0 removed, 1 upgraded, 0 downgraded; +2 KiB\n"
        "\nupgraded:\n"
        "  base-files 13.8 -> 13.8+deb13u1  +2 KiB\n"
    )
    said: dict[str, Any] = json.loads(debian_cloud("diff", "--json", old, new).stdout)
    assert said["files"] is None
    assert said["packages"]["upgraded"][0]["new"]["sha256"] == "0" * 64


def test_another_deb_of_the_same_version_does_not_go_unseen(tmp_path: Path) -> None:
    old = buildinfo(tmp_path / "old.buildinfo")
    new = buildinfo(tmp_path / "new.buildinfo", {"f" * 64: "0" * 64})
    said = debian_cloud("diff", old, new).stdout
    assert "0 downgraded, 1 from another .deb" in said
    assert "\nof the same version, from another .deb:\n  base-files 13.8 -> 13.8\n" in said


def test_nothing_differs_of_the_same(tmp_path: Path) -> None:
    path = buildinfo(tmp_path / "x.buildinfo")
    done = debian_cloud("diff", path, path)
    assert done.returncode == 0
    assert done.stdout.endswith("packages: 0 added, 0 removed, 0 upgraded, 0 downgraded; +0 KiB\n")


def test_a_buildinfo_and_an_image_have_packages_in_common(images: Images, tmp_path: Path) -> None:
    said = debian_cloud("diff", buildinfo(tmp_path / "x.buildinfo"), images("a.raw")).stdout
    assert "\npackages: 3 added, 2 removed, 0 upgraded, 0 downgraded\n" in said
    assert "\nadded:\n  dpkg 1.22\n" in said
    assert "files:" not in said


def test_what_is_no_image_is_refused(images: Images, tmp_path: Path) -> None:
    good, path = images("a.raw"), tmp_path / "x.raw"
    refused(debian_cloud("diff", good, path), 2, "there is no file", "hint")
    refused(debian_cloud("diff", good, tmp_path), 2, "there is no file", "hint")
    path.write_text("hello\n" * 1000)
    refused(debian_cloud("diff", path, good), 1, "is not an image", "hint")
    refused(debian_cloud("diff", tmp_path / "x.buildinfo", good), 2, "cannot be read", "hint")
    wrong = tmp_path / "wrong.buildinfo"
    wrong.write_text("hello\n")
    refused(debian_cloud("diff", wrong, good), 2, "is not the .buildinfo of an image", "hint")
    buildinfo(wrong, {"base-files 13.8 amd64": "base-files 13..é: amd64"})
    refused(debian_cloud("diff", wrong, wrong), 2, "it has the invalid value '13..é:'", "hint")
    buildinfo(wrong, {"Architecture: amd64": "Architecture: arm64", "13-ec2-amd64": "13-ec2-arm64"})
    refused(debian_cloud("diff", wrong, good), 1, "wrong.buildinfo is for arm64, but a.raw for amd64", "hint")


@pytest.mark.parametrize("name", ["a.raw", "a.qcow2", "a.tar.xz"])
def test_what_is_cut_off_is_refused(images: Images, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = images(name).read_bytes()
    for length in (len(data) // 2, 700):
        path.write_bytes(data[:length])
        refused(debian_cloud("diff", path, images("b.raw")), 1, "hint")


def test_an_image_of_no_debian_is_refused(images: Images, tmp_path: Path) -> None:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    for path in (disk(tmp_path / "root", tmp_path / "x.raw"), tar(tmp_path / "root", tmp_path / "x.tar.xz")):
        refused(
            debian_cloud("diff", path, images("b.raw")),
            1,
            "has no var/lib/dpkg/status",
            "not an image of a Debian system",
        )
