# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebuild a published image from its closure, compare it, and sign a statement if the bytes are the same."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import projections
from debian_cloud.build import request, workspace
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, files, progress, run, sign
from debian_cloud.image import index
from debian_cloud.projections import provenance
from debian_cloud.proof import bundle, trust

if TYPE_CHECKING:
    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.packages.described import Described
    from debian_cloud.proof.trust import Trust


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A rebuilt image: its .buildinfo, the id of the plan, and file name -> whether it is the same."""

    described: Described
    plan: str
    same: dict[str, bool]


def rebuild(
    file: Path,
    trusted: Trust,
    *,
    closure: str = "",
    archive: str = "",
    seed: Path | None = None,
    output: Path | None = None,
    statement: Path | None = None,
    quiet: bool = True,
) -> Rebuilt:
    """Rebuild the image of a .buildinfo, or of a record with the .buildinfo beside it, and compare its files.

    `closure` is the closure's URL or directory, by default that beside the file, or in the archive; `archive` is the
    archive's URL or directory. `seed` is the file of the seed that the image was made with. The rebuild is kept in
    `output`, if given. Raise Error if `statement`, to which `state` is to write afterwards, already exists.
    """
    found = _described(file, trusted)
    buildinfo = found.buildinfo
    if statement and statement.exists():
        raise Error(f"{statement} exists already", "choose another name with --statement", USAGE)
    # Check this before anything is fetched.
    run.check_namespace()
    workspace.make_output((output or Path()).resolve())
    planned = request.again(
        buildinfo, found.keyring, closure=closure or bundle.closure_of(file), archive=archive, seed=seed
    )
    # What is said of the bytes must not depend on what a former build has left: no layer is used.
    if output:
        workspace.make(planned, output.resolve(), progress.shown(quiet=quiet), bound=0)
        return Rebuilt(found, planned.id, _compared(buildinfo, output))
    with workspace.scratch(buildinfo.stem) as folder:
        workspace.make(planned, folder, progress.shown(quiet=quiet), bound=0)
        return Rebuilt(found, planned.id, _compared(buildinfo, folder))


def refuse(found: Rebuilt, output: Path | None = None) -> None:
    """Raise Error that names the files that differ, if any; `output` is where the rebuilt files are kept."""
    if not all(found.same.values()):
        different = ", ".join(name for name, equal in found.same.items() if not equal)
        hint = f"{found.described.buildinfo.builder} built it; "
        hint += "compare the files with diffoscope(1)" if output else "keep the files with --output DIR"
        raise Error(f"{different} differs from what the .buildinfo describes", hint)


def state(found: Rebuilt, statement: Path, homedir: Path | None) -> None:
    """Write a statement, signed by the key of a GnuPG home, that the bytes are the same; raise Error if not."""
    refuse(found)
    described = found.described
    subjects = provenance.digests(described.buildinfo)
    hashes = {name: hashlib.new(name, described.data).hexdigest() for name in checksums.PUBLISHED}
    document = provenance.rebuilt(described.buildinfo, subjects, {described.name: hashes})
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as folder:
        unsigned = Path(folder) / "statement"
        unsigned.write_text(projections.text(document), "utf-8")
        sign.clearly(unsigned, Path(folder) / "signed", homedir)
        statement.write_bytes((Path(folder) / "signed").read_bytes())


def _described(file: Path, trusted: Trust) -> Described:
    buildinfo = file.with_suffix(".buildinfo") if file.suffix == ".image" else file
    if not trusted.said:
        buildinfo = bundle.published(buildinfo)
    if file.suffix != ".image":
        return trust.believed(buildinfo, trusted)
    records = index.parse(files.text(file), strict=True)
    found = trust.believed(buildinfo, trusted)
    for record in records:
        if found.buildinfo.digests.get(record.name) != (record.sha256, record.size):
            raise Error(
                f"{file.name} and {file.stem}.buildinfo disagree on {record.name}",
                "take both from the same directory of the archive",
            )
    if not records:
        raise Error(f"{file} has no record", "give the .image or the .buildinfo of an image", USAGE)
    return found


def _compared(buildinfo: Buildinfo, folder: Path) -> dict[str, bool]:
    """Return file name -> whether the rebuilt file is the same."""
    found = {}
    for name, (digest, size) in buildinfo.digests.items():
        algorithm = buildinfo.algorithm(name)
        got = checksums.digest(folder / name, (algorithm,))
        found[name] = (got.hashes[algorithm], got.size) == (digest, size)
    return found
