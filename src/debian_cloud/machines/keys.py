# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH key that this user's instances let in, on every target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud.host import folders
from debian_cloud.machines import ssh

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "key"
"""The file's name, below the directory of this user's instances."""


def public(root: Path) -> str:
    """The public key, made with its private one if they are not there, as a line of authorized_keys (sshd(8))."""
    file = root / NAME
    if not (found := file.with_suffix(".pub")).exists():
        with folders.partial(file, "the key of instances", wait=True) as partial:
            if not found.exists():
                ssh.make_key(partial / file.name, "debian-cloud")
                (partial / file.name).rename(file)
                (partial / found.name).rename(found)
    return found.read_text("utf-8").strip()
