# SPDX-License-Identifier: GPL-3.0-or-later
"""One image for the tests of several packages: its configuration, resolution, record and .buildinfo."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from debian_cloud import plan
from debian_cloud.build import steps as build_steps
from debian_cloud.host.checksums import Digest
from debian_cloud.image import config, index, sources
from debian_cloud.image.buildinfo import Draft
from debian_cloud.image.id import ImageId
from debian_cloud.image.resolution import Needs, Package, ReleaseFile, Resolution

if TYPE_CHECKING:
    from pathlib import Path

    from debian_cloud.image.config import ImageConfig


EC2 = {
    "Maintainer": "Some One <one@example.org>",
    "Image-Size": "8G",
    "Image-Format": "raw qcow2",
    "Image-Firmware": "bios uefi",
    "Image-First-Boot": "cloud-init",
    "Image-User": "admin",
    "Image-Datasource": "Ec2",
}
CONTAINER = {"Maintainer": "Some One <one@example.org>", "Image-Format": "tar.xz"}


def configured(fields: dict[str, str], name: str = "ec2", architecture: str = "amd64") -> ImageConfig:
    return config.parse(
        fields,
        name=f"debian-cloud-config-{name}",
        version="0.1.0",
        architecture=architecture,
        suite="trixie",
        description="an image",
    )


CONFIG = configured(EC2)
_POOL = "http://debian.example/debian/pool/main"
RESOLUTION = Resolution(
    CONFIG,
    (
        Package(
            "base-files", "13.8", "amd64", 88296, "f" * 64, uri=f"{_POOL}/b/base-files/base-files_13.8_amd64.deb"
        ),
        Package("login", "1:4.16.0-2", "amd64", 114952, "8" * 64, uri=f"{_POOL}/s/shadow/login_4.16.0-2_amd64.deb"),
    ),
    1795224967,
    2**20,
    tools=(
        Package("mtools", "4.0.48-1", "amd64", 198228, "c" * 64, uri=f"{_POOL}/m/mtools/mtools_4.0.48-1_amd64.deb"),
    ),
    essential=("base-files",),
    needs={"base-files": Needs(), "login": Needs(pre_depends=(("base-files",),))},
    releases=(ReleaseFile("http://debian.example/debian", "trixie", 140000, "e" * 64, ("D" * 40,)),),
)
DEBIAN = (
    sources.Source("http://debian.example/debian", ("trixie", "trixie-updates"), "/debian.gpg"),
    sources.Source("http://debian.example/security", ("trixie-security",), "/debian.gpg"),
)
ARCHIVE = sources.Source("file:/srv/archive", ("trixie",), "/archive.gpg")
SERIAL = "20261121.0"


def planned(
    of: ImageConfig,
    wanted: tuple[str, ...] = (),
    debian: tuple[sources.Source, ...] = DEBIAN,
    archive: sources.Source = ARCHIVE,
) -> plan.Plan:
    resolution = replace(RESOLUTION, config=of)
    return build_steps.plan(resolution, SERIAL, wanted or of.formats, debian, archive)


RECORD = index.ImageRecord(
    id=ImageId("trixie", "ec2", "amd64", "20261120.0"),
    format="qcow2",
    config_version="1:0.1.0~deb13u1",
    size=149660336,
    virtual_size=8589934592,
    sha256="a" * 64,
    sha512="b" * 128,
)
ATTESTED = replace(
    RECORD,
    attestations=(index.Attestation("intoto.json", 812, "c" * 64), index.Attestation("spdx.json", 9, "d" * 64)),
)
"""The same record, with its attestations."""
DIGEST = Digest(1, {"sha256": "a" * 64, "sha256-blocks": "a" * 64})


def described() -> str:
    """The image's .buildinfo."""
    known = Draft.parse(Draft.of(RESOLUTION, SERIAL, ("raw", "qcow2"), DEBIAN, "1" * 64).render())
    digests = {known.buildinfo.id.file(name): DIGEST for name in known.formats}
    return known.buildinfo.sealed(digests).render(("apt (= 1)",))


def blocks(path: Path) -> str:
    """The SHA-256 of a file's blocks, as ARCHITECTURE defines it, read in the simplest way."""
    hashed, position = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(4096):
            if block != bytes(len(block)):
                hashed.update(position.to_bytes(8, "big") + block)
            position += len(block)
    hashed.update(position.to_bytes(8, "big"))
    return hashed.hexdigest()
