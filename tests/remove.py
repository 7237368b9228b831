# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove a directory in which a program that ends may still remove files of its own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def remove(tree: Path) -> None:
    """Remove a directory with all that is in it, though a gpg-agent that was ended removes its sockets meanwhile."""

    def gone(_: object, __: str, error: tuple[Any, BaseException, Any]) -> None:
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]

    shutil.rmtree(tree, onerror=gone)
    assert not tree.exists()
