# SPDX-License-Identifier: GPL-3.0-or-later
"""What will be signed made ready: whole, as the archive knows it, and dated.

The date of an index is five minutes ago, and so is that of its signature: apt 3 refuses one that is three seconds
ahead of its clock. It is never before the last one, nor before the youngest key that signs, and the end of its
validity is counted from it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.archive import lifecycle, served, signed
from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Mapping

    _Package = tuple[str, str, str, str]
    """Component, architecture, name and version."""


def anew(archive: Path, work: Path, packages: Path, born: int, *, after_wrong_clock: bool = False) -> None:
    """Make WORK/dists ready to be signed, as reprepro has written it: whole, or Error.

    `packages` is what `reprepro list` says of all suites, `born` when the youngest key was made that signs, in
    seconds since 1970. After a wrong clock, what is dated in the future is no reason to stop.
    """
    terms = signed.terms_of(archive)
    day = _date(archive, work, born, after_wrong_clock=after_wrong_clock)
    listed = _packages(packages)
    for suite in terms:
        if not (work / "dists" / suite / "Release").is_file():
            raise Error(f"{suite} has no Release, though conf/distributions has that suite", "run it again")
    _finish(work, terms, day, listed)


def again(archive: Path, work: Path, keyring: Path, born: int, *, after_wrong_clock: bool = False) -> None:
    """Make WORK/dists ready to be signed, of what was signed last; Error unless that is what is served."""
    signed.refuse_changed(archive, keyring, "what is served is not what was signed, and nothing is signed anew")
    for record in sorted((archive / "signed/dists").glob("*/Release")):
        folder = work / "dists" / record.parent.name
        folder.mkdir(parents=True)
        (folder / "Release").write_bytes(record.read_bytes())
    day = _date(archive, work, born, after_wrong_clock=after_wrong_clock)
    _finish(work, signed.terms_of(archive), day, None)


def _finish(work: Path, terms: Mapping[str, int], day: int, listed: Mapping[str, set[_Package]] | None) -> None:
    """Give each Release its dates; Error when it is not whole, or does not say what is `listed`."""
    what, hint = "what would be signed is not whole", "is the disk full, or damaged? Run it again"
    for folder in signed.folders(work, "dists/*"):
        file, term = folder / "Release", terms.get(folder.name, lifecycle.VALID_FOR)
        # reprepro says nothing of its end where there is no ValidFor.
        found = served.release(served.with_term(file.read_bytes(), term), file)
        if folder.name != found.fields["Codename"]:
            raise Error(f"{file} is of the suite {found.fields['Codename']}", "it was swapped or changed")
        if listed is not None:
            signed.refuse(served.indexes(found, folder, byhash=False), what, hint)
            signed.refuse(served.incomplete(found, folder, listed[folder.name]), what, hint)
        file.write_bytes(served.dated(found, day, term))


def _date(archive: Path, work: Path, born: int, *, after_wrong_clock: bool) -> int:
    """The date of what will be signed: as far back as no client and no key minds."""
    now, last = int(time.time()), 0
    said = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(now))
    for folder in signed.folders(work, "dists/*"):
        record = signed.entry(archive, Path("dists", folder.name))
        shown = record if record.is_file() else archive / "public/dists" / folder.name / "Release"
        try:
            found = served.release(served.regular(shown).read_bytes(), shown).date
        except (Error, FileNotFoundError):
            # Of a new suite, or damaged before anything was written down; what is written down is whole.
            if record.is_file():
                raise
            continue
        # A client takes no older index than it has: all would stop at what they know.
        if found > now and not after_wrong_clock:
            raise Error(
                f"the clock says {said}, and {folder.name} was published later than that",
                "set the clock of this machine; if it was wrong then, publish --after-wrong-clock",
            )
        last = max(last, found if found <= now else 0)
    if born > now:
        raise Error(
            f"the clock says {said}, and a key that signs was made later than that",
            "set the clock of this machine; if it was wrong then, retire-key, and add another",
        )
    return max(now - served.BACK, born, min(last + 1, now))


def _packages(file: Path) -> dict[str, set[_Package]]:
    """Suite -> component, architecture, name and version, of lines `SUITE|COMPONENT|ARCHITECTURE: NAME VERSION`."""
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
