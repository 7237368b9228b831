# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what an archive serves with what it has signed, before it signs more.

DIR is the archive. STEP `terms` prints each suite, and for how many seconds a
signature of it is good. `ready` makes FOLDER/dists ready to be signed: of what
reprepro has written, with the list of packages in --packages, or with --again of
what was signed last; everything is whole, or it is refused. Each Release gets
its dates; --born is when the youngest key was made that signs. `staged` is for
FOLDER when it was signed, before it is shown, and writes down in DIR/signed what
it says; `adopt` does that for PATHs below DIR/public, or for all that an older
version left. `end` writes below FOLDER each snapshot whose signature has no
end, with one; `unwind` takes from FOLDER, the next state, what is dated in the
future. `shown` refuses what is served under dists and is not what was signed last.
`all` prints, for `check`, each difference in a line: a word, the path, a sentence,
and for the word `mended` a file to take its place, with tabs between.
"""

from __future__ import annotations

import hashlib
import os
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import lifecycle, served, state
from debian_cloud.archive.served import Finding
from debian_cloud.errors import FAILED, Error
from debian_cloud.host import checksums, files, sign
from debian_cloud.text import deb822, openpgp

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

_UNSOUND = 3
"""Exit status of `staged` when what was to be shown is not whole, and not of a full disk."""
_SOON = 3 * 86400
"""Seconds before its end at which one is warned of an index."""
_AHEAD = 600
"""Seconds by which the date of an index may be ahead of the clock."""
_HINT = "debian-cloud-archive check mends what it can, and publish makes all indexes anew"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    steps = ("terms", "ready", "staged", "adopt", "end", "unwind", "shown", "all")
    parser.add_argument("step", choices=steps, metavar="STEP", help=", ".join(steps))
    parser.add_argument("archive", type=Path, metavar="DIR", help="the archive")
    parser.add_argument("paths", type=Path, nargs="*", metavar="FOLDER|PATH", help="what the step is about")
    parser.add_argument("--keyring", type=Path, metavar="FILE", help="the archive's own keys")
    parser.add_argument("--packages", type=Path, metavar="FILE", help="what `reprepro list` says of all suites")
    parser.add_argument("--again", action="store_true", help="of what was signed last")
    parser.add_argument("--born", type=int, default=0, metavar="SECONDS", help="when the youngest key was made")
    parser.add_argument("--after-wrong-clock", action="store_true", help="what is dated in the future does not count")
    parser.add_argument("--fast", action="store_true", help="compare packages by size alone")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    archive: Path = args.archive
    if args.step == "terms":
        for suite, term in _terms(archive).items():
            print(suite, term)
    elif args.step == "ready":
        _ready(args)
    elif args.step == "staged":
        _staged(archive, args.paths[0], args.keyring)
    elif args.step == "adopt":
        _adopt(archive, args.keyring, args.paths)
    elif args.step == "end":
        _end(archive, args.paths[0])
    elif args.step == "unwind":
        _unwind(args.paths[0])
    elif args.step == "shown":
        _refuse(_shown(archive, args.keyring), "what is served is not what was signed", _HINT)
    else:
        return _report(archive, args.keyring, fast=args.fast)
    return 0


def _terms(archive: Path) -> dict[str, int]:
    return served.terms((archive / "conf/distributions").read_text("utf-8"))


def _record(archive: Path, folder: Path) -> Path:
    """Where the text is kept that was signed for a folder of what is, or will be, in public/."""
    return archive / "signed" / folder / "Release"


def _folders(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_dir() and not path.is_symlink())


def _refuse(found: Iterable[Finding], what: str, hint: str, status: int = FAILED) -> None:
    """Error that names the first of what was found."""
    for finding in found:
        why = "it is not what Release lists" if finding.spare else finding.sentence.removesuffix("; publish")
        raise Error(f"{what}: {finding.path}: {why}", hint, status)


def _ready(args: argparse.Namespace) -> None:
    archive: Path = args.archive
    work: Path = args.paths[0]
    terms = _terms(archive)
    if args.again:
        _refuse(
            _shown(archive, args.keyring), "what is served is not what was signed, and nothing is signed anew", _HINT
        )
        for record in sorted((archive / "signed/dists").glob("*/Release")):
            folder = work / "dists" / record.parent.name
            folder.mkdir(parents=True)
            (folder / "Release").write_bytes(record.read_bytes())
    day = _date(archive, work, args.born, after_wrong_clock=args.after_wrong_clock)
    listed = _packages(args.packages) if args.packages else {}
    for suite in terms if args.packages else ():
        if not (work / "dists" / suite / "Release").is_file():
            raise Error(f"{suite} has no Release, though conf/distributions has that suite", "run it again")
    for folder in _folders(work, "dists/*"):
        file, term = folder / "Release", terms.get(folder.name, lifecycle.VALID_FOR)
        # reprepro says nothing of its end where there is no ValidFor.
        found = served.release(served.with_term(file.read_bytes(), term), file)
        if folder.name != found.fields["Codename"]:
            raise Error(f"{file} is of the suite {found.fields['Codename']}", "it was swapped or changed")
        if args.packages:
            what, hint = "what would be signed is not whole", "is the disk full, or damaged? Run it again"
            _refuse(served.indexes(found, folder, byhash=False), what, hint)
            _refuse(served.incomplete(found, folder, listed[folder.name]), what, hint)
        file.write_bytes(served.dated(found, day, term))


def _date(archive: Path, work: Path, born: int, *, after_wrong_clock: bool) -> int:
    """The date of what will be signed: as far back as no client and no key minds."""
    now, last = int(time.time()), 0
    said = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(now))
    for folder in _folders(work, "dists/*"):
        record = _record(archive, Path("dists", folder.name))
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


def _packages(file: Path) -> dict[str, set[tuple[str, str, str, str]]]:
    """Suite -> component, architecture, name and version, of lines `SUITE|COMPONENT|ARCHITECTURE: NAME VERSION`."""
    found: dict[str, set[tuple[str, str, str, str]]] = {}
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("suite "):
            found.setdefault(line[6:], set())
            continue
        place, _, rest = line.partition(": ")
        suite, component, architecture = place.split("|")
        name, version = rest.split()
        found.setdefault(suite, set()).add((component, architecture, name, version))
    return found


def _staged(archive: Path, folder: Path, keyring: Path) -> None:
    """Everything is signed and whole, or Error; then it is written down as what was signed."""
    what, hint = "what was about to be shown is not as it was signed", "publish makes all of it anew"
    texts: dict[Path, bytes] = {}
    for dist in (*_folders(folder, "dists/*"), *_folders(folder, "snap/*/dists/*")):
        place = dist.relative_to(folder)
        text, found = served.signed_text(dist, keyring)
        _refuse(found, what, hint, _UNSOUND)
        known = served.release(text, dist / "InRelease")
        if known.fields["Codename"] != dist.name or known.fields.get("Snapshot") != _snapshot(place):
            _refuse([Finding(dist / "InRelease", "it is of another suite or snapshot")], what, hint, _UNSOUND)
        _refuse(served.staged(known, dist, archive / "public" / place), what, hint, _UNSOUND)
        texts[place] = text
    now = int(time.time())
    for place, text in texts.items():
        terms = _record(archive, place).with_name("terms")
        before = terms.read_text("ascii") if terms.exists() else ""
        if place.parts[0] == "dists":
            kept = served.remembered(before, now, served.release(text, place))
            _write(terms, "".join(f"{term} {until}\n" for term, until in sorted(kept.items())).encode())
        _write(_record(archive, place), text)


def _snapshot(place: Path) -> str | None:
    """The id of the snapshot to which a folder belongs."""
    return place.parts[1] if place.parts[0] == "snap" else None


def _write(file: Path, content: bytes) -> None:
    """In one step, and on the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    with new.open("wb") as out:
        out.write(content)
        os.fsync(out.fileno())
    new.replace(file)


def _adopt(archive: Path, keyring: Path, paths: list[Path]) -> None:
    """Write down what was signed, where it is known by its signature alone: of PATHs, else of all without a record.

    So it is with what an older version left, and with a closure that has just been made. What is not whole, or is
    in another's place, is left out.
    """
    public = archive / "public"
    patterns = [f"{path}/**/InRelease" for path in paths] or [
        *("dists/*/InRelease", "snap/*/dists/*/InRelease"),
        *("closures/*/*/*/*/dists/*/InRelease", "closures/*/*/*/*/evidence/*/InRelease"),
    ]
    for file in (file for pattern in patterns for file in sorted(public.glob(pattern))):
        place = file.parent.relative_to(public)
        if (record := _record(archive, place)).exists():
            continue
        if place.parts[0] == "closures":
            text, wrong = _clear(file, keyring), list[Finding]()
        else:
            text, wrong = served.signed_text(file.parent, keyring)
        named = openpgp.field(text, "Snapshot") or None
        if text and not wrong and (place.parts[0] == "closures" or named == _snapshot(place)):
            _write(record, text)
    (archive / "signed").mkdir(exist_ok=True)


def _end(archive: Path, folder: Path) -> None:
    terms = _terms(archive)
    for record in sorted((archive / "signed/snap").glob("*/dists/*/Release")):
        place, text = record.relative_to(archive / "signed"), record.read_bytes()
        after = served.with_term(text, terms.get(record.parent.name, lifecycle.VALID_FOR))
        if after != text:
            (folder / place).parent.mkdir(parents=True)
            (folder / place).write_bytes(after)


def _unwind(following: Path) -> None:
    today = date.fromisoformat(time.strftime("%Y-%m-%d", time.gmtime()))
    for suite in state.suites(following):
        state.enter(following, suite, lifecycle.unwound(state.records(following, suite), today))
    if days := state.leaving(following):
        days = {path: min(day, today) for path, day in days.items()}
        (following / "leaving").write_text(lifecycle.render_leaving(days), "utf-8")


def _clear(file: Path, keyring: Path) -> bytes:
    """What the archive signed, or nothing."""
    try:
        return sign.verified(keyring, served.regular(file)).content
    except (Error, FileNotFoundError):
        return b""


def _shown(archive: Path, keyring: Path) -> Iterator[Finding]:
    """What is served under dists and is not what was signed last."""
    suites = {folder.name for folder in _folders(archive / "public", "dists/*")}
    suites |= {folder.name for folder in _folders(archive / "signed", "dists/*")} & {*_terms(archive)}
    for suite in sorted(suites):
        place = Path("dists", suite)
        yield from _dist(archive, place, keyring, byhash=True)


def _dist(archive: Path, place: Path, keyring: Path, *, byhash: bool) -> Iterator[Finding]:
    folder, record = archive / "public" / place, _record(archive, place)
    text, found = served.signed_text(folder, keyring)
    yield from found
    if not record.is_file():
        yield Finding(folder / "InRelease", "the archive does not know what it signed there; publish")
        return
    wanted = record.read_bytes()
    if text and text != wanted:
        yield Finding(folder / "InRelease", "it is not what the archive signed last; publish")
    known = served.release(wanted, record)
    yield from served.indexes(known, folder, byhash=byhash)


def _report(archive: Path, keyring: Path, *, fast: bool) -> int:
    """Print all that differs; the exit status."""
    public, bad = archive / "public", False
    for finding in (*_shown(archive, keyring), *_beside(archive, keyring, fast=fast)):
        bad |= not finding.spare
        row = ("problem" if not finding.spare else "mended", finding.path.relative_to(public), finding.sentence)
        print(*row, *((finding.spare,) if finding.spare else ()), sep="\t")
    for word, place, sentence in _times(archive):
        bad |= word == "problem"
        print(word, place, sentence, sep="\t")
    return int(bad)


def _beside(archive: Path, keyring: Path, *, fast: bool) -> Iterator[Finding]:
    public = archive / "public"
    for folder in _folders(public, "dists/*"):
        record = _record(archive, folder.relative_to(public))
        listed = served.release(record.read_bytes(), record).indexes if record.is_file() else {}
        yield from served.misnamed(
            folder,
            {folder / name.rpartition("/")[0] / "by-hash/SHA256" / sha256 for name, (sha256, _) in listed.items()},
        )
    for folder in _folders(public, "snap/*/dists/*"):
        place = folder.relative_to(public)
        text = _record(archive, place)
        if text.is_file() and not openpgp.field(text.read_bytes(), "Valid-Until"):
            yield Finding(folder / "InRelease", "its signature has no end, and passes for the suite itself; publish")
        else:
            yield from _dist(archive, place, keyring, byhash=False)
    seen: dict[tuple[int, int], str] = {}
    for folder in _folders(public, "closures/*/*/*/*"):
        yield from _closure(archive, folder, keyring, {} if fast else seen, fast=fast)


def _closure(
    archive: Path, folder: Path, keyring: Path, seen: dict[tuple[int, int], str], *, fast: bool
) -> Iterator[Finding]:
    """What of a closure is not as it was made: its index, its packages, and the indexes that vouch for them.

    Whose signature is on the evidence `debian-cloud verify` asks.
    """
    for dist in _folders(folder, "dists/*"):
        text = _clear(dist / "InRelease", keyring)
        record = _record(archive, dist.relative_to(archive / "public"))
        if not text or (record.is_file() and record.read_bytes() != text):
            yield Finding(dist / "InRelease", "it is not what the archive signed")
            continue
        for name, (sha256, size) in _listed(text).items():
            index = served.content(dist / name, sha256, size)
            if index is None:
                yield Finding(dist / name, "it is not the index that InRelease lists")
                continue
            for stanza in deb822.parse(index.decode()):
                file, wanted = folder / stanza["Filename"], stanza["SHA256"]
                if file.is_symlink() or not file.is_file() or str(file.stat().st_size) != stanza["Size"]:
                    yield Finding(file, f"it is not there with its {stanza['Size']} bytes")
                elif not fast and _digest(file, seen) != wanted:
                    yield Finding(file, f"it is not the file with the SHA-256 {wanted}")
    for place in _folders(folder, "evidence/*"):
        yield from _evidence(place)


def _evidence(place: Path) -> Iterator[Finding]:
    file = place / "InRelease" if (place / "InRelease").exists() else place / "Release"
    try:
        listed = _listed(openpgp.inner(files.read(served.regular(file))))
    except (Error, ValueError, KeyError):
        listed = {}
    if not listed:
        yield Finding(file, "it is no release file")
        return
    for index in sorted(place.glob("*_Packages.xz")):
        name = index.name.removesuffix(".xz").replace("_", "/")
        try:
            found = files.unpacked(index, min(listed.get(name, ("", 0))[1], served.LARGEST))
        except Error:
            found = b""
        if listed.get(name) != (hashlib.sha256(found).hexdigest(), len(found)):
            yield Finding(index, f"it is not the index that {file.name} lists")


def _listed(text: bytes) -> dict[str, tuple[str, int]]:
    """Name -> SHA-256 and size, of what a release file lists."""
    fields = deb822.parse(text.decode("utf-8", "replace"))[0]
    rows = (line.split() for line in fields["SHA256"].splitlines() if line.strip())
    return {name: (sha256, int(size)) for sha256, size, name in rows}


def _digest(file: Path, seen: dict[tuple[int, int], str]) -> str:
    """The SHA-256 of a file, read once for all its names."""
    key = (file.stat().st_dev, file.stat().st_ino)
    if key not in seen:
        seen[key] = checksums.digest(file, ("sha256",)).hashes["sha256"]
    return seen[key]


def _times(archive: Path) -> Iterator[tuple[str, str, str]]:
    """What ends, or has not begun."""
    now = time.time()
    for record in sorted((archive / "signed/dists").glob("*/Release")):
        known = served.release(record.read_bytes(), record)
        where, until = f"dists/{names.word(record.parent.name, 'suite')}/InRelease", known.fields["Valid-Until"]
        if known.until < now:
            yield "problem", where, f"it expired on {until}; resign"
        elif known.until < now + _SOON:
            yield "warning", where, f"expires on {until}: resign"
        if known.date > now + _AHEAD:
            yield (
                "problem",
                where,
                "it is dated in the future: is this machine's clock right? publish --after-wrong-clock",
            )
