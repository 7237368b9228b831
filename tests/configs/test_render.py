# SPDX-License-Identifier: GPL-3.0-or-later
"""debian/control is what the templates say, and a wrong template is one clear error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from debian_cloud import render
from debian_cloud.errors import Error

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what rendering reads, to be spoiled."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs", symlinks=True)
    (tmp_path / "debian").mkdir()
    for name in ("control", "control.j2"):
        shutil.copy(ROOT / "debian" / name, tmp_path / "debian")
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "debian_cloud.render", *arguments],
        cwd=tree,
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_committed_control_is_fresh() -> None:
    assert render.difference(ROOT) == "", "run: python3 -m debian_cloud.render"


def test_check_shows_what_is_stale_and_changes_nothing(tree: Path) -> None:
    replace(tree / "configs/ec2/stanza.j2", 'size="8G"', 'size="9G"')
    before = (tree / "debian/control").read_text("utf-8")
    done = run(tree, "--check")
    assert done.returncode == 1
    assert "-XB-Image-Size: 8G\n+XB-Image-Size: 9G\n" in done.stdout
    assert (tree / "debian/control").read_text("utf-8") == before


def test_rewriting_makes_it_fresh(tree: Path) -> None:
    replace(tree / "configs/ec2/stanza.j2", 'size="8G"', 'size="9G"')
    assert run(tree).returncode == 0
    assert run(tree, "--check").returncode == 0
    assert "XB-Image-Size: 9G\n" in (tree / "debian/control").read_text("utf-8")


def test_a_new_folder_is_a_new_configuration(tree: Path) -> None:
    shutil.copytree(tree / "configs/nocloud", tree / "configs/azure", symlinks=True)
    assert "azure" in render.configurations(tree)
    assert "Package: debian-cloud-config-azure\n" in render.render(tree)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("sets.kernel_cloud", "sets.kernel_clowd", "kernel_clowd"),
        ("    name,\n", "    nmae,\n", "nmae"),
        ('    size="8G",\n', "", "size"),
        ("user=", "usre=", "usre"),
        ("{% endcall %}", "{% endcal %}", "endcal"),
        ("configs/packages.j2", "configs/pakages.j2", "pakages.j2"),
    ],
    ids=["variable", "name", "missing", "misspelt", "syntax", "file"],
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
