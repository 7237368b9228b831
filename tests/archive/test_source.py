# SPDX-License-Identifier: GPL-3.0-or-later
"""`apt source debian-cloud` works from an archive that has what `make packages` made."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from debian_cloud import VERSION
from tests.archive.clients import private
from tests.archive.conftest import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.archive.conftest import Archive


@pytest.mark.thorough
def test_apt_source(archive: Archive, tmp_path: Path) -> None:
    """Only the address and key of the keyring package are needed; the source is that of the suite."""
    made = tmp_path / "made"
    command = [str(ROOT / "debian/for-suite"), "trixie", str(made)]
    subprocess.run(command, env=archive.env, check=True, capture_output=True)
    done = archive.run("add", made)
    assert f"accepted: debian-cloud_{VERSION}~deb13u1_amd64.changes: into the pool" in done.stdout

    package = archive.public / "debian-cloud-archive-keyring_trixie.deb"
    run(["dpkg-deb", "--extract", package, tmp_path / "k"], archive.env)
    text = (tmp_path / "k/etc/apt/sources.list.d/debian-cloud.sources").read_text()
    assert "Types: deb deb-src\n" in text
    keyring = "/usr/share/keyrings/debian-cloud-archive-keyring.gpg"
    assert f"Signed-By: {keyring}\n" in text
    options = private(tmp_path / "apt", text.replace(keyring, f"{tmp_path}/k{keyring}"))
    (tmp_path / "got").mkdir()
    run(["apt-get", *options, "--error-on=any", "update"], archive.env)
    done = subprocess.run(
        ["apt-get", *options, "source", "debian-cloud"],
        cwd=tmp_path / "got",
        env=archive.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (tree,) = (path for path in (tmp_path / "got").iterdir() if path.is_dir())
    assert tree.name == f"debian-cloud-{VERSION}~deb13u1"
    changelog = (tree / "debian/changelog").read_text()
    assert changelog.startswith(f"debian-cloud ({VERSION}~deb13u1) trixie; ")
    # It is the source of the packages, and can be built again.
    for path in (
        "debian/control",
        "debian/rules",
        "configs/ec2/stanza.j2",
        "src/debian_cloud/build/steps.py",
        "tests/demo",
    ):
        assert (tree / path).read_bytes() == (made / "debian-cloud" / path).read_bytes()
    assert not [path for path in tree.rglob("*") if path.name in ("__pycache__", ".pybuild", ".git")]
