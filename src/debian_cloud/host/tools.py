# SPDX-License-Identifier: GPL-3.0-or-later
"""Tool -> Debian package: for the hint if a tool is missing, and for debian-cloud's Depends.

Each called tool is in one of the tables: those that Python calls (`tests/host/test_tools.py`; those for instances are
apart), and those that the scripts of `archive/` call (`tests/host/test_scripts.py`).
"""

from __future__ import annotations

from typing import Final

PACKAGES: Final = {
    "apt-config": "apt",
    "apt-get": "apt",
    "dd": "coreutils",
    "debian-cloud": "debian-cloud",
    "diff": "diffutils",
    "find": "findutils",
    "gpg": "gnupg",
    "gpgv": "gpgv",
    "install": "coreutils",
    "ln": "coreutils",
    "mkdir": "coreutils",
    "mount": "mount",
    "newgidmap": "uidmap",
    "newuidmap": "uidmap",
    "prlimit": "util-linux",
    "rm": "coreutils",
    "truncate": "coreutils",
    "unshare": "util-linux",
}
"""Tools that a build calls, and others that are always there: debian-cloud depends on their packages."""

OTHERS: Final = {
    "apt-helper": "apt",
    "curl": "curl",
    "hostname": "hostname",
    "rsync": "rsync",
    "setpriv": "util-linux",
    "sync": "coreutils",
    "timeout": "coreutils",
    "chroot": "coreutils",
    "dpkg": "dpkg",
    "dpkg-deb": "dpkg",
    "dpkg-query": "dpkg",
    "env": "coreutils",
    "qemu-img": "qemu-utils",
    "tar": "tar",
    "umount": "mount",
    "reprepro": "reprepro",
    "xz": "xz-utils",
}
"""Other tools: of every Debian system, recommended (qemu-utils), an archive's (reprepro, xz), a mirror's (curl)."""

_OF_SCRIPTS: Final = {
    "coreutils": (
        "basename cat chmod comm cp cut date df dirname du expr head id ls md5sum mktemp mv paste"
        " readlink rmdir sha256sum sha512sum sleep sort stat tail touch tr uname uniq wc"
    ),
    "diffutils": "cmp",
    "findutils": "xargs",
    "gnupg": "gpg-connect-agent gpgconf",
    "grep": "grep",
    "gzip": "gzip",
    "libc-bin": "getent iconv",
    "mawk": "awk",
    "sed": "sed",
    "util-linux": "flock",
}
MACHINES: Final = {
    "cp": "coreutils",
    "qemu-img": "qemu-utils",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-x86_64": "qemu-system-x86",
    "setsid": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "virsh": "libvirt-clients",
}
"""Tools that start instances: debian-cloud-machines depends on their packages, or recommends them."""

SCRIPTS: Final = {tool: package for package, tools in _OF_SCRIPTS.items() for tool in tools.split()}
"""Other tools that the scripts of debian-cloud-archive call."""


def package(tool: str) -> str:
    """The Debian package of a tool."""
    return {**SCRIPTS, **MACHINES, **OTHERS, **PACKAGES}.get(tool, tool)
