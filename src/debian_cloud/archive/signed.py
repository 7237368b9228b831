# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts that an archive signed last, kept in DIR/signed under the paths of their directories in public/.

What is served, and what is about to be published, is compared with them (`served`); only this module writes them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.archive import lifecycle, served
from debian_cloud.archive.served import Fault
from debian_cloud.errors import FAILED, Error
from debian_cloud.host import sign
from debian_cloud.text import openpgp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

UNSOUND: Final = 3
"""Exit status if what was to be published is not as it was signed, and a full disk is not the cause."""
_HINT: Final = "run debian-cloud-archive check, which repairs what it can, or publish, which makes all indexes again"


def terms_of(archive: Path) -> dict[str, int]:
    """Suite -> seconds for which its signatures are valid (conf/distributions)."""
    return served.terms((archive / "conf/distributions").read_text("utf-8"))


def entry(archive: Path, folder: Path) -> Path:
    """The path of the text that was signed for a directory of public/, given relative to that."""
    return archive / "signed" / folder / "Release"


def folders(root: Path, pattern: str) -> list[Path]:
    """The directories that match, sorted, without symbolic links."""
    return sorted(path for path in root.glob(pattern) if path.is_dir() and not path.is_symlink())


def refuse(found: Iterable[Fault], what: str, hint: str, status: int = FAILED) -> None:
    """Raise Error that names the first of the faults, if there is one."""
    for finding in found:
        why = "it is not what Release lists" if finding.spare else finding.sentence.removesuffix("; publish")
        raise Error(f"{what}: {finding.path}: {why}", hint, status)


def note(archive: Path, folder: Path, keyring: Path) -> None:
    """Record what was signed below a directory; Error unless all of it is signed and complete."""
    what, hint = "an index to be published is not as it was signed", "run publish, which makes all indexes again"
    texts: dict[Path, bytes] = {}
    for dist in (*folders(folder, "dists/*"), *folders(folder, "snap/*/dists/*")):
        place = dist.relative_to(folder)
        text, found = served.signed_text(dist, keyring)
        refuse(found, what, hint, UNSOUND)
        known = served.release(text, dist / "InRelease")
        if known.fields["Codename"] != dist.name or known.fields.get("Snapshot") != _snapshot(place):
            refuse([Fault(dist / "InRelease", "it belongs to another suite or snapshot")], what, hint, UNSOUND)
        refuse(served.staged(known, dist, archive / "public" / place), what, hint, UNSOUND)
        texts[place] = text
    now = int(time.time())
    for place, text in texts.items():
        terms = entry(archive, place).with_name("terms")
        before = terms.read_text("ascii") if terms.exists() else ""
        if place.parts[0] == "dists":
            kept = served.remembered(before, now, served.release(text, place))
            _write(terms, "".join(f"{term} {until}\n" for term, until in sorted(kept.items())).encode())
        _write(entry(archive, place), text)


def _snapshot(place: Path) -> str | None:
    """The id of the snapshot to which a directory belongs; None for a suite."""
    return place.parts[1] if place.parts[0] == "snap" else None


def _write(file: Path, content: bytes) -> None:
    """Write a file in one step, and sync it to the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    with new.open("wb") as out:
        out.write(content)
        os.fsync(out.fileno())
    new.replace(file)


def adopt(archive: Path, keyring: Path, paths: Sequence[Path] = ()) -> None:
    """Record texts that are known only by their signature: those below `paths`, by default all.

    These are texts that an older version left, and those of a closure that has just been made. A text with a record,
    one that is incomplete, and one in the wrong place are left out.
    """
    public = archive / "public"
    patterns = [f"{path}/**/InRelease" for path in paths] or [
        *("dists/*/InRelease", "snap/*/dists/*/InRelease"),
        *("closures/*/*/*/*/dists/*/InRelease", "closures/*/*/*/*/evidence/*/InRelease"),
    ]
    for file in (file for pattern in patterns for file in sorted(public.glob(pattern))):
        place = file.parent.relative_to(public)
        if (record := entry(archive, place)).exists():
            continue
        if place.parts[0] == "closures":
            text, wrong = clear(file, keyring), list[Fault]()
        else:
            text, wrong = served.signed_text(file.parent, keyring)
        named = openpgp.field(text, "Snapshot") or None
        if text and not wrong and (place.parts[0] == "closures" or named == _snapshot(place)):
            _write(record, text)
    (archive / "signed").mkdir(exist_ok=True)


def end(archive: Path, folder: Path) -> None:
    """Write below a directory, with a Valid-Until, the Release of each snapshot that has none."""
    terms = terms_of(archive)
    for record in sorted((archive / "signed/snap").glob("*/dists/*/Release")):
        place, text = record.relative_to(archive / "signed"), record.read_bytes()
        after = served.with_term(text, terms.get(record.parent.name, lifecycle.VALID_FOR))
        if after != text:
            (folder / place).parent.mkdir(parents=True)
            (folder / place).write_bytes(after)


def clear(file: Path, keyring: Path) -> bytes:
    """The content of a file if the archive signed it, otherwise nothing."""
    try:
        return sign.verified(keyring, served.regular(file)).content
    except (Error, FileNotFoundError):
        return b""


def refuse_changed(archive: Path, keyring: Path, what: str = "a served index is not as it was signed") -> None:
    """Raise Error unless all that is served under dists is what was signed last."""
    refuse(shown(archive, keyring), what, _HINT)


def shown(archive: Path, keyring: Path) -> Iterator[Fault]:
    """What is served under dists but differs from what was signed last."""
    suites = {folder.name for folder in folders(archive / "public", "dists/*")}
    suites |= {folder.name for folder in folders(archive / "signed", "dists/*")} & {*terms_of(archive)}
    for suite in sorted(suites):
        place = Path("dists", suite)
        yield from differing(archive, place, keyring, byhash=True)


def differing(archive: Path, place: Path, keyring: Path, *, byhash: bool) -> Iterator[Fault]:
    """What one directory of public/ has that differs from what was signed last; also by hash if `byhash`."""
    folder, record = archive / "public" / place, entry(archive, place)
    text, found = served.signed_text(folder, keyring)
    yield from found
    if not record.is_file():
        yield Fault(folder / "InRelease", "the archive has no record of what it signed there; publish")
        return
    wanted = record.read_bytes()
    if text and text != wanted:
        yield Fault(folder / "InRelease", "it is not the text that the archive signed last; publish")
    known = served.release(wanted, record)
    yield from served.indexes(known, folder, byhash=byhash)
