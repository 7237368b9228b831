# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell scripts that a plan writes into its workspace, as files that shellcheck reads.

The tools of the image's own suite make its bytes (partition table, file systems, boot loader files, GRUB's core,
qcow2, tar), so that the host's versions do not show. What the image lacks of them (`TOOLS` of each format) apt
resolves and fetches with the rest, and the tree's dpkg unpacks it beside the tree, without maintainer scripts; the
.buildinfo lists it as `Image-Tools`, and a lock and a closure have it. The host brings mmdebstrap, apt and
coreutils.
"""

from __future__ import annotations

from importlib import resources


def text(name: str) -> str:
    """The text of one script of this folder."""
    return (resources.files(__name__) / name).read_text("utf-8")
