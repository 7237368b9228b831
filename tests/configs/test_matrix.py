# SPDX-License-Identifier: GPL-3.0-or-later
"""Every configuration can be installed, for each suite and architecture, from Debian's real indexes."""

from __future__ import annotations

import pytest

from debian_cloud import names
from tests.configs import matrix
from tests.configs.expected import ON
from tests.conftest import ALL
from tools import render

EVERY = tuple((suite, architecture) for suite in names.RELEASES for architecture in names.ARCHITECTURES)
SOME = tuple((suite, architecture) for suite, architecture in EVERY if suite == "trixie")


@pytest.mark.parametrize(("suite", "architecture"), EVERY if ALL else SOME)
def test_every_configuration_can_be_installed(suite: str, architecture: str) -> None:
    resolved = matrix.run(suite, architecture)
    assert [image.name for image in resolved] == ON[architecture]
    assert {image.name: image.error for image in resolved if image.error} == {}
    assert all(image.packages > image.explicit > 0 for image in resolved)


def test_a_package_that_a_suite_lacks_is_named_before_anything_is_built() -> None:
    control = render.render(matrix.ROOT, "trixie")
    # This package does not exist in trixie.
    broken = control.replace(
        "         amazon-ec2-utils,\n", "         amazon-ec2-utils, no-such-package-in-trixie,\n"
    )
    assert broken != control
    images = {image.name: image.error for image in matrix.run("trixie", "amd64", "azure", "ec2", control=broken)}
    assert "configuration ec2 cannot be installed: debian-cloud-config-ec2 depends on no-such" in images["ec2"]
    assert "no-such-package-in-trixie, which is in no signed source of trixie" in images["ec2"]
    assert images["azure"] == ""


def test_the_fields_of_a_package_are_its_architecture_s() -> None:
    control = render.render(matrix.ROOT, "trixie")
    stanzas = {arch: {s["Package"]: s for s in matrix.binaries(control, arch, "1")} for arch in names.ARCHITECTURES}
    assert stanzas["amd64"]["debian-cloud-config-ec2"]["Image-Firmware"] == "bios uefi"
    assert stanzas["arm64"]["debian-cloud-config-ec2"]["Image-Firmware"] == "uefi"
