# SPDX-License-Identifier: GPL-3.0-or-later
"""The configurations that must exist."""

from __future__ import annotations

from typing import Final

LAYERS: Final = ("cloud", "cloud-init", "common")
_EVERYWHERE: Final = ("azure", "container", "ec2", "generic", "genericcloud", "nocloud", "openstack")
ON: Final = {
    "amd64": sorted([*_EVERYWHERE, "gce"]),
    "arm64": sorted([*_EVERYWHERE, "raspi"]),
}
"""Architecture -> the images of each suite."""
