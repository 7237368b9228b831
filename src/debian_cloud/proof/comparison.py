# SPDX-License-Identifier: GPL-3.0-or-later
"""Open and compare two images, or their .buildinfo files."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from debian_cloud.disk.opened import opened
from debian_cloud.errors import USAGE, Error
from debian_cloud.packages import described
from debian_cloud.proof import difference

if TYPE_CHECKING:
    from pathlib import Path

    from debian_cloud.proof.difference import Content, Description, Difference


def compare(old: Path, new: Path) -> Difference:
    """Return what changed from one to the other; for two images, with their files and the changelogs in them."""
    with ExitStack() as stack:
        (before, before_content), (after, after_content) = (_described(path, stack) for path in (old, new))
        found = difference.compare(before, after)
        if before_content and after_content:
            return difference.with_changelogs(found, before_content, after_content)
    return found


def _described(path: Path, stack: ExitStack) -> tuple[Description, Content | None]:
    """Return what the user named, and a function that reads the files in it, which a .buildinfo does not have."""
    if path.suffix == ".buildinfo":
        return difference.of_buildinfo(path.name, described.of(path)), None
    if not path.is_file():
        raise Error(f"there is no file {path}", "give an image, or the .buildinfo beside it", USAGE)
    image = stack.enter_context(opened(path))
    return difference.of_image(path.name, image.entries(), image.content), image.content
