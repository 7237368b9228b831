# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch a published image, and its proof beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.build import workspace
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, folders, signals
from debian_cloud.packages import images, offers
from debian_cloud.proof import bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from debian_cloud.packages.images import Image
    from debian_cloud.packages.offers import Wanted


def fetch(wanted: Wanted, output: Path, warn: Callable[[str], None], *, proof: bool = False) -> Path:
    """Fetch an image into a directory, with its proof if `proof` is set, and return its file.

    `warn` is called with a sentence on all that is left out.
    """
    image = offers.choose(wanted, warn)
    output = output.resolve()
    with signals.ending_politely():
        path = _fetch(image, output)
        if proof:
            _prove(image, output, warn)
    return path


def _fetch(image: Image, output: Path) -> Path:
    path = output / image.record.name
    if os.path.lexists(path):
        if path.is_file() and checksums.digest(path).hashes["sha512"] == image.record.sha512:
            return path
        raise Error(f"{path} exists already and is another file", "remove it, or choose another --output", USAGE)
    workspace.make_output(output)
    # Use a separate directory: apt-helper keeps a file that it refuses, under another name.
    with folders.partial(path, f"the fetch of {path.name} to {output}") as folder:
        fetched = folder / path.name
        images.fetch(image, fetched)
        if fetched.is_symlink():
            raise Error(f"apt created a link instead of {path.name}", "report it: the archive's address is unusual")
        fetched.rename(path)
    return path


def _prove(image: Image, output: Path, warn: Callable[[str], None]) -> None:
    found = bundle.fetch(image, output)
    if found.asked:
        warn(
            f"the closure of {image.record.stem} is not at {' nor at '.join(found.asked)}:"
            f" `verify` needs it as {found.folder / names.CLOSURE}, or with --closure"
        )
