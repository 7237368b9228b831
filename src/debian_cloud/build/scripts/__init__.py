# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell scripts that a plan writes into its workspace, as files that shellcheck reads.

The tools of the image's own suite make its bytes (partition table, file systems, boot loader files, GRUB's core,
qcow2, tar), so that the host's versions have no effect. apt resolves and fetches the tools that the image lacks
(`TOOLS` of each format) with the other packages, and the tree's dpkg unpacks them beside the tree, without maintainer
scripts; the .buildinfo lists them as `Image-Tools`, and a lock and a closure have them. The host provides dpkg-deb,
tar, apt and coreutils.
"""

from __future__ import annotations

from importlib import resources


def text(name: str) -> str:
    """Return the text of one script of this directory."""
    return (resources.files(__name__) / name).read_text("utf-8")
