# SPDX-License-Identifier: GPL-3.0-or-later
"""Preparation of indexes for signing: they are complete, agree with the archive's state, and get dates.

The date of an index, and of its signature, is five minutes ago, because apt 3 refuses a date that is three seconds
ahead of its clock. It is never before the date of the last index, nor before the youngest signing key was made;
Valid-Until is counted from it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import lifecycle, served, signed
from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Mapping

    _Package = tuple[str, str, str, str]
    """Component, architecture, name and version."""


@dataclass(frozen=True, slots=True)
class Signing:
    """How it will be signed: `signers` are the primary fingerprints of the keys, separated by commas.

    `born` is when the youngest of them was made, in seconds since 1970. With `after_wrong_clock`, a date in the
    future is not an error.
    """

    signers: str
    born: int = 0
    after_wrong_clock: bool = False


def anew(archive: Path, work: Path, packages: Path, signing: Signing) -> None:
    """Prepare WORK/dists, as reprepro and `indexes.enter` have written it, for signing; Error if it is not complete.

    `packages` is the output of `reprepro list` for all suites.
    """
    terms = signed.terms_of(archive)
    day = _date(archive, work, signing)
    listed = _packages(packages)
    for suite in terms:
        if not (work / "dists" / suite / "Release").is_file():
            raise Error(f"{suite} has no Release, although conf/distributions has that suite", "run it again")
    _finish(work, terms, day, signing.signers, listed)


def again(archive: Path, work: Path, keyring: Path, signing: Signing) -> None:
    """Prepare WORK/dists for signing from what was signed last; Error unless exactly that is served."""
    signed.refuse_changed(archive, keyring, "a served index is not as it was signed, so nothing is signed again")
    for record in sorted((archive / "signed/dists").glob("*/Release")):
        folder = work / "dists" / record.parent.name
        folder.mkdir(parents=True)
        (folder / "Release").write_bytes(record.read_bytes())
    _finish(work, signed.terms_of(archive), _date(archive, work, signing), signing.signers, None)


def _finish(
    work: Path, terms: Mapping[str, int], day: int, signers: str, listed: Mapping[str, set[_Package]] | None
) -> None:
    """Set the dates and the keys of each Release; Error if it is not complete, or does not list what is `listed`."""
    what, hint = "an index to be signed is incomplete", "the disk may be full or damaged: check it, and run it again"
    for folder in signed.folders(work, "dists/*"):
        file, term = folder / "Release", terms.get(folder.name, lifecycle.VALID_FOR)
        # reprepro writes no Valid-Until if there is no ValidFor.
        found = served.release(served.with_term(file.read_bytes(), term), file)
        if folder.name != found.fields["Codename"]:
            raise Error(f"{file} belongs to the suite {found.fields['Codename']}", "it was swapped or changed")
        if listed is not None:
            signed.refuse(served.indexes(found, folder, byhash=False), what, hint)
            signed.refuse(served.incomplete(found, folder, listed[folder.name]), what, hint)
        file.write_bytes(served.signed_by(served.dated(found, day, term), signers))


def _date(archive: Path, work: Path, signing: Signing) -> int:
    """The date to sign: BACK seconds ago, but not before the last index or the youngest signing key."""
    now, last = int(time.time()), 0
    said = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(now))
    for folder in signed.folders(work, "dists/*"):
        record = signed.entry(archive, Path("dists", folder.name))
        shown = record if record.is_file() else archive / "public/dists" / folder.name / "Release"
        try:
            found = served.release(served.regular(shown).read_bytes(), shown).date
        except (Error, FileNotFoundError):
            # A new suite, or one that was damaged before anything was recorded; a record must be complete.
            if record.is_file():
                raise
            continue
        # A client accepts no index older than the one that it has: all clients would stay at that.
        if found > now and not signing.after_wrong_clock:
            raise Error(
                f"the clock says {said}, but {folder.name} was published later than that",
                "set the clock of this machine; if it was wrong then, publish --after-wrong-clock",
            )
        last = max(last, found if found <= now else 0)
    if signing.born > now:
        raise Error(
            f"the clock says {said}, but a key that signs was made later than that",
            "set the clock of this machine; if it was wrong then, retire that key, and add another",
        )
    return max(now - served.BACK, signing.born, min(last + 1, now))


def _packages(file: Path) -> dict[str, set[_Package]]:
    """Suite -> component, architecture, name and version, from lines `SUITE|COMPONENT|ARCHITECTURE: NAME VERSION`."""
    found: dict[str, set[_Package]] = {}
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("suite "):
            found.setdefault(line[6:], set())
            continue
        place, _, rest = line.partition(": ")
        suite, component, architecture = place.split("|")
        name, version = rest.split()
        found.setdefault(suite, set()).add((component, architecture, name, version))
    return found
