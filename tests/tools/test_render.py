# SPDX-License-Identifier: GPL-3.0-or-later
"""debian/control is what the templates render, and a wrong template gives one clear error."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from debian_cloud import names
from debian_cloud.errors import Error
from tools import render

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files that rendering reads, to be changed."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs", symlinks=True)
    (tmp_path / "debian").mkdir()
    for name in ("changelog", "control", "control.j2"):
        shutil.copy(ROOT / "debian" / name, tmp_path / "debian")
    (tmp_path / render.RESERVED).parent.mkdir(parents=True)
    shutil.copy(ROOT / render.RESERVED, tmp_path / render.RESERVED)
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.render", *arguments],
        cwd=tree,
        env={"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_committed_control_is_fresh() -> None:
    assert render.difference(ROOT) == "", "run: python3 -m tools.render"


def test_check_shows_what_is_stale_and_changes_nothing(tree: Path) -> None:
    replace(tree / "configs/ec2/stanza.j2", '"Size": "8G"', '"Size": "9G"')
    before = (tree / "debian/control").read_text("utf-8")
    done = run(tree, "--check")
    assert done.returncode == 1
    assert "-XB-Image-Size: 8G\n+XB-Image-Size: 9G\n" in done.stdout
    assert (tree / "debian/control").read_text("utf-8") == before


def test_rewriting_makes_it_fresh(tree: Path) -> None:
    replace(tree / "configs/ec2/stanza.j2", '"Size": "8G"', '"Size": "9G"')
    assert run(tree).returncode == 0
    assert run(tree, "--check").returncode == 0
    assert "XB-Image-Size: 9G\n" in (tree / "debian/control").read_text("utf-8")


def test_a_new_folder_is_a_new_configuration(tree: Path) -> None:
    shutil.copytree(tree / "configs/nocloud", tree / "configs/my-hpc", symlinks=True)
    assert "my-hpc" in render.configurations(tree)
    assert "Package: debian-cloud-config-my-hpc\n" in render.render(tree)


def test_what_is_marked_for_suites_is_in_no_other(tree: Path) -> None:
    replace(tree / "configs/ec2/stanza.j2", '"Imds": "v2.0"', '"Imds": "v2.0 {trixie forky}"')
    imds = {suite: "XB-Image-Imds: v2.0\n" in render.render(tree, suite) for suite in names.RELEASES}
    assert imds == {"bookworm": False, "trixie": True, "forky": True}
    assert "XB-Image-Imds" not in render.render(tree, "bookworm")
    azure = {suite: "azure-vm-utils" in render.render(tree, suite) for suite in names.RELEASES}
    assert azure == imds
    assert "{" not in re.sub(r"\$\{[^}]*\}", "", render.render(tree))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("packages.j2", "{bookworm trixie}", "{bookworm trixy}"),
        ("generic/stanza.j2", "Akamai {trixie forky}", "Akamai {trixy}"),
    ],
    ids=["package", "fact"],
)
def test_an_unknown_suite_is_an_error_that_names_it(tree: Path, file: str, old: str, new: str) -> None:
    replace(tree / "configs" / file, old, new)
    with pytest.raises(Error, match=r"^configs/.*: .*unknown suite trixy; .*trixie"):
        render.render(tree)


def stanza(control: str, name: str) -> str:
    (found,) = [part for part in control.split("\n\n") if f"Package: debian-cloud-config-{name}\n" in part]
    return found


@pytest.mark.parametrize("suite", names.RELEASES)
@pytest.mark.parametrize(("name", "other"), [("gce", "arm64"), ("raspi", "amd64")])
def test_an_image_of_one_architecture_says_nothing_of_another(name: str, other: str, suite: str) -> None:
    control = render.render(ROOT, suite)
    assert other not in stanza(control, name)
    assert other in stanza(control, "generic")


def test_a_word_of_another_architecture_is_no_fact(tree: Path) -> None:
    replace(tree / "configs/gce/stanza.j2", '"Tpm": "v2.0"', '"Tpm": "v2.0 [arm64]"')
    replace(tree / "configs/gce/stanza.j2", '"Console": "ttyS0"', '"Console": "ttyS0 [amd64] ttyAMA0 [arm64]"')
    gce = stanza(render.render(tree), "gce")
    assert "Tpm" not in gce
    assert "XB-Image-Console: ttyS0 [amd64]\n" in gce


@pytest.mark.parametrize("mark", ["amd64 arm64", "!amd64", "amd46", "linux-any", ""])
@pytest.mark.parametrize(
    ("file", "marked"), [("packages.j2", "linux-image-cloud-amd64 [amd64]"), ("generic/stanza.j2", "bios [amd64]")]
)
def test_a_mark_that_is_not_one_architecture_is_an_error_that_names_it(
    tree: Path, file: str, marked: str, mark: str
) -> None:
    wrong = marked.replace("[amd64]", f"[{mark}]")
    replace(tree / "configs" / file, marked, wrong)
    with pytest.raises(Error, match=r"^configs/.*: .*a mark is for one architecture") as refused:
        render.render(tree)
    assert wrong in refused.value.message


def test_a_tree_is_adopted_from_the_newest_suite_s_alone(tree: Path) -> None:
    assert run(tree, "--suite", "bookworm").returncode == 0
    before = {path: (tree / path).read_text("utf-8") for path in ("debian/changelog", "debian/control")}
    for suite in ("trixie", "forky"):
        done = run(tree, "--suite", suite)
        assert done.returncode == 2
        assert done.stderr.startswith("error: this tree is bookworm's already")
    assert {path: (tree / path).read_text("utf-8") for path in before} == before
    # The same suite again changes nothing.
    assert run(tree, "--suite", "bookworm").returncode == 0
    assert {path: (tree / path).read_text("utf-8") for path in before} == before


def test_a_suites_tree_has_a_version_that_sorts_before_and_a_date_that_comes_after(tree: Path) -> None:
    assert run(tree, "--suite", "bookworm").returncode == 0
    fields = ("Distribution", "Version", "Timestamp")
    new, old = (
        {
            field: subprocess.run(
                ["dpkg-parsechangelog", "-l", changelog, "-S", field], capture_output=True, text=True, check=True
            ).stdout.strip()
            for field in fields
        }
        for changelog in (tree / "debian/changelog", ROOT / "debian/changelog")
    )
    assert new["Distribution"] == "bookworm"
    assert new["Version"] == old["Version"] + "~deb12u1"
    assert int(new["Timestamp"]) > int(old["Timestamp"])
    assert "linux-sysctl-defaults" not in (tree / "debian/control").read_text("utf-8")
    assert run(tree, "--check").returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("sets.kernel_cloud", "sets.kernel_clowd", "kernel_clowd"),
        ("    name,\n", "    nmae,\n", "nmae"),
        ('    summary="Amazon EC2",\n', "", "summary"),
        ("recommends=", "recomends=", "recomends"),
        ('"User"', '"Usre"', "Usre"),
        ("{% endcall %}", "{% endcal %}", "endcal"),
        ("configs/packages.j2", "configs/pakages.j2", "pakages.j2"),
    ],
    ids=["variable", "name", "missing", "misspelt", "fact", "syntax", "file"],
)
def test_a_wrong_template_is_one_error_that_names_its_place(tree: Path, old: str, new: str, named: str) -> None:
    replace(tree / "configs/ec2/stanza.j2", old, new)
    with pytest.raises(Error, match=r"^configs/(ec2/stanza|image)\.j2:\d+: ") as caught:
        render.render(tree)
    assert named in caught.value.message
    done = run(tree)
    assert done.returncode == 1
    assert done.stderr == f"error: {caught.value.message}\nhint: {caught.value.hint}\n"
    assert "Package: debian-cloud-config-ec2" in (tree / "debian/control").read_text("utf-8"), "control is kept"
