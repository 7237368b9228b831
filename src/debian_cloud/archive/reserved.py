# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of debian/control of all suites, which no other source may bring (`make control` writes it)."""

from __future__ import annotations

from typing import Final

SOURCE: Final = "debian-cloud"
NAMES: Final = frozenset(
    {
        "debian-cloud",
        "debian-cloud-archive",
        "debian-cloud-config-azure",
        "debian-cloud-config-cloud",
        "debian-cloud-config-cloud-init",
        "debian-cloud-config-common",
        "debian-cloud-config-container",
        "debian-cloud-config-ec2",
        "debian-cloud-config-gce",
        "debian-cloud-config-generic",
        "debian-cloud-config-genericcloud",
        "debian-cloud-config-nocloud",
        "debian-cloud-config-openstack",
        "debian-cloud-config-raspi",
        "debian-cloud-machines",
        "debian-cloud-mirror",
        "debian-cloud-modules",
    }
)
