# SPDX-License-Identifier: GPL-3.0-or-later
"""debian-cloud-mirror follows the tree that debian-cloud-archive makes."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive.conftest import Archive, Maker, make_key
from tests.gnupg import remove
from tests.mirror.tree import ROOT, Mirror, apt, serve


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short path: the path of gpg-agent's socket must fit into 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="dcm-"))
    yield path
    remove(path)


@pytest.mark.parametrize("scheme", ["rsync", "http"])
def test_real_archive(scheme: str, short: Path, tmp_path: Path) -> None:
    root = ROOT
    (short / "bin").mkdir()
    command = short / "bin/debian-cloud"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={root / "src"} exec {sys.executable} -m debian_cloud "$@"\n')
    command.chmod(0o755)
    env = {**os.environ, "PATH": f"{short}/bin:{root}/archive:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(short)}
    uploader = make_key(short, "uploader")
    archive = Archive(short / "a", env)
    archive.run("init", "--uploader", uploader.public)
    # Its image was not built from packages, so there is no closure to keep.
    (archive.path / "conf" / "closures").unlink()
    make = Maker(tmp_path, env)
    archive.take(make.deb(uploader))
    archive.take(make.image(uploader))
    archive.run("publish")

    keyring = short / "archive.gpg"
    archive.key.gpg("--export", "--output", keyring)
    server = serve(scheme, archive.public, tmp_path / "etc")
    try:
        mirror = Mirror(server.url, tmp_path / "mirror", keyring)
        mirror.ok()
        archive.take(make.image(uploader, "20261121.0"))
        archive.run("publish")
        mirror.ok()
        assert "fetching" not in mirror.ok()
    finally:
        server.kill()

    shown, public = mirror.shown(), Mirror("", archive.public, keyring).shown()
    # The archive's trace is not signed: only lines of a known form are mirrored.
    trace = "project/trace/master"
    lines = (archive.public / trace).read_text().splitlines(keepends=True)
    assert lines.pop(1) == "Using debian-cloud-archive\n"
    assert (mirror.dest / trace).read_text() == "".join(lines)
    assert shown.pop(trace) != public.pop(trace)
    assert {k: v for k, v in shown.items() if k in public} == {k: v for k, v in public.items() if k in shown}
    # Only files that a signed list names are mirrored: not older indexes or snapshots, for example.
    unlisted = re.compile(
        r"debian-cloud-archive-keyring(_trixie\.deb|\.gpg|\.asc)|"
        r"snap/.*|.*/by-hash/.*|pool/.*\.(changes|buildinfo)|.*\.changes"
    )
    assert [k for k in public if k not in shown and not unlisted.fullmatch(k)] == []
    assert any(k.startswith("pool/") and k.endswith(".deb") for k in shown)
    for kind in ("cdx.json", "intoto.json", "intoto.json.gpg", "spdx.json"):
        assert f"images/trixie/ec2/amd64/20261121.0/debian-13-ec2-amd64-20261121.0.{kind}" in shown
    assert shown["images/trixie/ec2/amd64/current"] == "-> 20261121.0"
    done = apt(mirror, tmp_path / "apt", "update", "-o", "APT::Update::Error-Mode=any")
    assert done.returncode == 0, done.stderr
    [images] = (tmp_path / "apt/var/lib/apt/lists").glob("*Images")
    assert images.read_bytes() == (archive.dist / "main/images/Images").read_bytes()
