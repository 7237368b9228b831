# SPDX-License-Identifier: GPL-3.0-or-later
"""The last step of a build: describe the files that were made, with their digests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debian_cloud import formats
from debian_cloud.host import checksums, run, tools
from debian_cloud.image import metadata
from debian_cloud.image.buildinfo import DRAFT, Draft

if TYPE_CHECKING:
    from pathlib import Path


def seal(folder: Path) -> None:
    """Write the .buildinfo, the record and the .changes of the image in a workspace."""
    draft = Draft.parse((folder / DRAFT).read_text("utf-8"))
    image = draft.buildinfo.id
    published = {image.file(name) for name in draft.published}
    made = {image.file(name): formats.find(name).DIGEST for name in draft.formats}
    digests = {
        name: checksums.digest(folder / name, checksums.UPLOADED if name in published else (algorithm,))
        for name, algorithm in made.items()
    }
    query = ("dpkg-query", "--show", "--showformat=${Package} (= ${Version})\\n")
    host_tools = run.output((*query, *sorted(set(tools.PACKAGES.values()) - {"debian-cloud"}))).splitlines()
    uploaded = {name: digests[name] for name in sorted(published)}

    def write(extension: str, text: str) -> None:
        path = folder / image.file(extension)
        path.write_text(text, "utf-8")
        uploaded[path.name] = checksums.digest(path, checksums.UPLOADED)

    write("buildinfo", draft.buildinfo.sealed(digests).render(host_tools))
    if published:
        write("image", metadata.record(draft, digests))
        (folder / image.file("changes")).write_text(metadata.changes(draft, uploaded), "utf-8")
