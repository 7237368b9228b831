# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the .buildinfo, the record and the .changes of a built image.

FOLDER is a build's workspace: it holds the disks and the file `facts`, both
made by the steps before. A plan calls this as its last step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.host import checksums, run, tools
from debian_cloud.image import metadata

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the workspace of a build")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    folder: Path = args.folder
    known = metadata.parse_facts((folder / metadata.FACTS).read_text("utf-8"))
    published = {f"{known.stem}.{name}" for name in known.published}
    digests = {
        name: checksums.digest(folder / name, checksums.UPLOADED if name in published else ("sha256",))
        for name in (f"{known.stem}.{name}" for name in known.formats)
    }
    query = ("dpkg-query", "--show", "--showformat=${Package} (= ${Version})\\n")
    host_tools = run.output((*query, *sorted(set(tools.PACKAGES.values()) - {"debian-cloud"}))).splitlines()
    uploaded = {name: digests[name] for name in sorted(published)}

    def write(extension: str, text: str) -> None:
        path = folder / f"{known.stem}.{extension}"
        path.write_text(text, "utf-8")
        uploaded[path.name] = checksums.digest(path, checksums.UPLOADED)

    write("buildinfo", metadata.buildinfo(known, digests, host_tools))
    if published:
        write("image", metadata.record(known, digests))
        (folder / f"{known.stem}.changes").write_text(metadata.changes(known, uploaded), "utf-8")
    return 0
