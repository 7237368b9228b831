# SPDX-License-Identifier: GPL-3.0-or-later
"""Tool -> Debian package: the hint when one is missing, and the reason for debian-cloud's Depends."""

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
    "mmdebstrap": "mmdebstrap",
    "newgidmap": "uidmap",
    "newuidmap": "uidmap",
    "prlimit": "util-linux",
    "rm": "coreutils",
    "sha256sum": "coreutils",
    "sort": "coreutils",
    "truncate": "coreutils",
    "unshare": "util-linux",
}
