# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages that Debian's official images install by name, and where our images differ.

Read from the official image builder's sources of mid 2026. All are installed without Recommends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVERY: Final = """
    apparmor apt-utils e2fsprogs init iptables iputils-ping less libnss-myhostname libnss-resolve libpam-systemd
    linux-sysctl-defaults nano netbase netplan.io polkitd sudo systemd-resolved unattended-upgrades vim-tiny whiptail
    zstd apt-listchanges bash-completion bind9-host ca-certificates curl ethtool man-db manpages pciutils psmisc
    reportbug screen socat tcpdump traceroute uuid-runtime vim xz-utils dosfstools systemd-timesyncd
"""
_CLOUD: Final = "openssh-server ssh-import-id cloud-initramfs-growroot"
_CLOUD_INIT: Final = f"{_CLOUD} cloud-init cloud-guest-utils"

_ADDED: Final[Mapping[str, str]] = {
    "nocloud": "linux-image grub-cloud",
    "generic": f"linux-image grub-cloud {_CLOUD_INIT}",
    "genericcloud": f"linux-image-cloud grub-cloud {_CLOUD_INIT}",
    "ec2": f"linux-image-cloud grub-cloud {_CLOUD_INIT} awscli amazon-ec2-utils",
    "azure": f"""linux-image-cloud grub-cloud {_CLOUD_INIT}
        hyperv-daemons waagent azure-vm-utils python3-passlib chrony""",
    "gce": f"linux-image-cloud grub-cloud {_CLOUD} google-compute-engine-oslogin google-guest-agent",
    "raspi": "linux-image raspi-firmware bluez-firmware firmware-brcm80211",
}
"""Vendor -> the other packages of its trixie image; kernel and GRUB without their architecture."""

VENDORS: Final = (*_ADDED,)
"""Vendors with an official image."""

_ELSEWHERE: Final[Mapping[str, Mapping[str, str]]] = {
    "bookworm": {
        "linux-sysctl-defaults": "",
        "azure-vm-utils": "",
        "python3-passlib": "",
        "grub-cloud-arm64": "grub-efi-arm64 grub-efi-arm64-signed shim-signed",
    },
    "trixie": {},
    "forky": {"cloud-initramfs-growroot": "dracut"},
}
"""Suite -> package of trixie that it lacks -> its replacement."""

_SERVED_BY: Final = {"openstack": "genericcloud"}
"""Our image -> the official one for the same use."""

OURS: Final[Mapping[str, set[str]]] = {
    name: {"qemu-guest-agent"} for name in ("generic", "genericcloud", "openstack")
}
"""Vendor -> packages that only our images have: the hypervisor's agent, which users need."""


def packages(vendor: str, suite: str, architecture: str) -> set[str]:
    """The packages in a vendor's official image; for a container, which has none, those of every image."""
    found = set(_EVERY.split())
    for package in _ADDED.get(_SERVED_BY.get(vendor, vendor), "").split():
        marked = package.startswith("linux-image") or package == "grub-cloud"
        found.add(f"{package}-{architecture}" if marked else package)
    if "chrony" in found:
        found.remove("systemd-timesyncd")
    instead = _ELSEWHERE[suite]
    return {other for package in found for other in instead.get(package, package).split()}


def ours(vendor: str, suite: str, architecture: str) -> set[str]:
    """The packages in our image of a vendor."""
    return packages(vendor, suite, architecture) | OURS.get(vendor, set())
