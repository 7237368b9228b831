# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell scripts that a plan writes into its workspace, as files that shellcheck reads."""

from __future__ import annotations

from importlib import resources


def text(name: str) -> str:
    """The text of one script of this folder."""
    return (resources.files(__name__) / name).read_text("utf-8")
