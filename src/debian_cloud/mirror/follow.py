# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of a mirror: what a source has signed is fetched, verified, and then shown."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import Error
from debian_cloud.host import command, folders
from debian_cloud.mirror import (
    ContradictedError,
    LocalError,
    contradicted,
    expiry,
    indexes,
    listed,
    refused,
    releases,
    trace,
    tree,
)
from debian_cloud.mirror.listed import UNKNOWN, Listed
from debian_cloud.mirror.staging import Staging, refuse_faults
from debian_cloud.mirror.tree import MARK, Tree
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from debian_cloud.mirror.indexes import Contents
    from debian_cloud.mirror.releases import Release
    from debian_cloud.mirror.request import Request, Source

_BESIDE: Final = ("Release", "Release.gpg")
_LAST: Final = (*_BESIDE, "InRelease")
_LOST: Final = "lost+found"
_AGAIN: Final = 86400
"""Seconds after which a run looks at all files although the release file is the one that is shown."""


@dataclass(frozen=True, slots=True)
class Told:
    """To whom a run reports: `say` what it does, and `warn` what went wrong; if `quiet`, transfers are not shown."""

    say: Callable[[str], None]
    warn: Callable[[str], None]
    quiet: bool


def follow(request: Request, told: Told) -> None:
    """Make a mirror show what the first source shows that can be reached and verified; Error if there is none.

    A run that fails before it begins to show has changed nothing; what it fetched is kept for the next one.
    """
    releases.keyring(request.keyring)
    state = _claimed(request.dest)
    with folders.locked(state, str(request.dest), wait=request.wait) as lock:
        for number, source in enumerate(request.sources, 1):
            try:
                _follow(request, source, told, lock)
            except LocalError:
                raise
            except Error as error:
                if number == len(request.sources):
                    raise
                told.warn(f"{error.message}: trying the next source")
            except OSError as error:
                raise _local(request.dest, error) from None
            else:
                return


def _local(dest: Path, error: OSError) -> Error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return command.failure(error)
    return LocalError(
        f"{error.filename or dest}: {error.strerror or error}",
        f"look at that place: the user of the mirror must be able to write everywhere in {dest}",
    )


def _claimed(dest: Path) -> Path:
    """The directory of a mirror's own files; Error if the directory has files and is no mirror."""
    try:
        dest.mkdir(parents=True, exist_ok=True)
        state = Tree(dest).state
        if not state.is_dir() and any(path.name != _LOST for path in dest.iterdir()):
            raise refused(
                f"{dest} has files and is not a mirror of debian-cloud-mirror",
                f"a mirror deletes files that no index lists; to use the directory as a mirror: mkdir {state}",
            )
        # A server must not be able to read files that are not verified yet.
        state.mkdir(mode=0o700, exist_ok=True)
        if state.stat().st_uid != os.geteuid():
            raise refused(f"{state} belongs to another user", "run as the user that owns it")
        state.chmod(0o700)
    except OSError as error:
        raise Error(f"{dest} cannot be written: {error.strerror}", "run as the user that owns it") from None
    return state


def _follow(request: Request, source: Source, told: Told, lock: int) -> None:
    for first in (True, False):
        try:
            _Run(request, source, told, Tree(request.dest, source.below), first, lock).run()
        except ContradictedError as found:
            if not first:
                raise refused(
                    found.message,
                    "the source contradicted its own signed index twice: try again later, or use another source",
                ) from None
            told.say(f"{found.message}: starting again")
        else:
            return


@dataclass(slots=True)
class _Run:
    request: Request
    source: Source
    told: Told
    tree: Tree
    first: bool
    lock: int
    whole: bool = True
    """Whether the source had all that was asked for; a closure may be missing."""

    def run(self) -> None:
        request, tree_ = self.request, self.tree
        started = time.time()
        tree_.prepare()
        keyring = releases.keyring(request.keyring)
        self.told.say(f"reading the indexes of {' '.join(request.suites)} at {self.source.shown}")
        staging = Staging(
            request, self.source, tree_, self.told.say, first=self.first, quiet=self.told.quiet, lock=self.lock
        )
        staging.text([f"dists/{suite}/InRelease" for suite in request.suites] + [trace.MASTER])
        found = [self._release(suite) for suite in request.suites]
        settings = self._settings(keyring)
        if not request.verify_all and all(self._is_shown(one, settings) for one in found):
            if request.dry_run:
                self._tell(found, "shows")
                return
            kept = 0
            if expiry.is_due(tree_) or tree_.has_dropped():
                known, _links = tree_.known()
                kept = expiry.expire(tree_, found, tree_.shown(), known, request.removals, self.told.say)
            trace.write(tree_, self.source, request.suites, started, 0)
            # What another source has sent may still be wanted.
            tree_.end(everything=False)
            self._tell(found, "still shows")
            expiry.refuse(kept, request.removals)
            return
        staging.text(f"dists/{suite}/{name}" for suite in request.suites for name in _BESIDE)
        for one in found:
            releases.refuse_other(one, tree_.incoming, request.keyring)
        staging.there, (staging.known, _links) = tree_.shown(), tree_.known()
        contents = {one.suite: self._contents(staging, one) for one in found}
        links = {path: target for one in contents.values() for path, target in one.links.items()}
        wanted = listed.merged((one.files for one in contents.values()), links)
        self._warn(contents.values())
        tree.refuse_folders(wanted, links, staging.there)
        if request.dry_run:
            images = sum(len(one.directories()) for one in contents.values())
            need = staging.need(wanted.values())
            self.told.say(f"the mirror would have {len(wanted)} files, of {images} images; {need}")
            return
        for path in tree_.staged():
            if path not in wanted and not path.startswith(("dists/", "project/")):
                (tree_.incoming / path).unlink()
        refuse_faults(staging.bring(wanted.values(), eager=True))
        staged = tree_.staged()
        size = sum(staged.values())
        self.told.say(f"all files are verified; publishing them ({size} new bytes)")
        fresh = {path: staged[path] for path in wanted.keys() & staging.fresh & staged.keys()}
        self._show(found, contents, fresh, staging)
        # The lists are read again for all suites: both would take much memory.
        del contents, wanted, links
        kept = expiry.expire(tree_, found, staging.there, staging.known, request.removals, self.told.say)
        trace.write(tree_, self.source, request.suites, started, size)
        for one in found if self.whole else ():
            self._mark(one, settings)
        tree_.end()
        self._tell(found, "shows")
        expiry.refuse(kept, request.removals)

    def _warn(self, contents: Iterable[Contents]) -> None:
        """Warn of each word that selects no image: it may be misspelt."""
        offered = {word for one in contents for word in one.offered}
        for option, word in self.request.selection.words():
            if (option, word) not in offered:
                self.told.warn(f"{option} {word}: the archive has no such image in {' '.join(self.request.suites)}")

    def _tell(self, found: list[Release], verb: str) -> None:
        for one in found:
            self.told.say(f"{self.request.dest} {verb} {one.suite} of {releases.dated(one)}")

    def _release(self, suite: str) -> Release:
        request = self.request
        path = self.tree.incoming / "dists" / suite / "InRelease"
        if not path.is_file():
            suites = trace.suites(self.tree.incoming)
            raise refused(
                f"{self.source.shown} has no dists/{suite}/InRelease{suites and f'; the archive has: {suites}'}",
                "give the address of the directory that contains dists/, and a suite in it",
            )
        found = releases.verified(self.tree.incoming, suite, request.keyring, self.source.shown, request.signers)
        releases.refuse_older(found, request.dest / "dists" / suite / "InRelease")
        return found

    def _settings(self, keyring: bytes) -> str:
        """What a run depends on besides the source's release file."""
        carried = "closures" if self.request.closures else "-"
        return f"{hashlib.sha256(keyring).hexdigest()} {carried} {self.request.selection}".rstrip()

    def _is_shown(self, release: Release, settings: str) -> bool:
        """Whether the last complete run with these settings has shown this very release file.

        After a day, all files are looked at again.
        """
        try:
            mark = self._mark_of(release.suite).read_text("ascii")
            age = time.time() - self._mark_of(release.suite).stat().st_mtime
            shown = (self.request.dest / "dists" / release.suite / "InRelease").read_bytes()
        except (OSError, UnicodeDecodeError):
            return False
        same = mark == f"{release.sha256} {settings}\n" and hashlib.sha256(shown).hexdigest() == release.sha256
        return same and 0 <= age < _AGAIN

    def _mark(self, release: Release, settings: str) -> None:
        (self.tree.work / "mark").write_text(f"{release.sha256} {settings}\n", "ascii")
        (self.tree.work / "mark").replace(self._mark_of(release.suite))

    def _mark_of(self, suite: str) -> Path:
        return self.tree.state / f"{suite}{MARK}"

    def _contents(self, staging: Staging, release: Release) -> Contents:
        """All that the mirror carries of a suite, except its release files."""
        kept = indexes.bring(staging, release)
        found = indexes.read(release.suite, release.indexes, staging.place, self.request.selection, staging.former)
        if self.request.closures:
            self._closures(staging, found)
        found.files += kept.values()
        return found

    def _closures(self, staging: Staging, found: Contents) -> None:
        """Add the closures of a suite's images that the source has; of an older archive, one lists no files."""
        images = [folder.partition("/")[2] for folder in found.directories()]
        paths = {
            f"{names.CLOSURES}/{image}/dists/{image.partition('/')[0]}/InRelease": f"{names.CLOSURES}/{image}"
            for image in images
        }
        staging.text(paths)
        own: list[str] = []
        for path, place in paths.items():
            file = self.tree.incoming / path
            if not file.is_file():
                self.whole = False
                continue
            fields, itself = releases.of_closure(file, path, self.request.keyring, self.source.shown)
            named = " ".join(fields.get("closure", [])[:1])
            if not named:
                self.told.say(f"{place} does not list its files and is skipped")
                file.unlink()
                continue
            if named != place:
                raise refused(
                    f"{path} is the index of {printable(named)}",
                    "it is in the wrong place at the source: use another source",
                )
            rows, signed = listed.closure(fields, place, path)
            found.files += (*rows, itself)
            own += signed
        if not own:
            return
        staging.text(own, eager=True)
        for path in own:
            if not (self.tree.incoming / path).is_file():
                raise contradicted(f"{path} is missing at the source")
            _, itself = releases.of_closure(self.tree.incoming / path, path, self.request.keyring, self.source.shown)
            found.files.append(itself)

    def _show(
        self, found: list[Release], contents: Mapping[str, Contents], fresh: Mapping[str, int], staging: Staging
    ) -> None:
        """Rename the verified files (`fresh`, with sizes) into place: data first, then indexes, and InRelease last.

        A client with the old InRelease still finds all files that it lists, by hash, until they expire.
        """
        tree_ = self.tree
        for one in found:
            # Until the run is complete, the next one must look at everything.
            self._mark_of(one.suite).unlink(missing_ok=True)
        there = staging.there
        # What is not fresh was verified earlier, where it is shown.
        tree_.put(sorted(fresh))
        there.files |= fresh
        present = {file.path for one in contents.values() for file in one.files}
        named: dict[str, list[Listed]] = {}
        for one in found:
            for name, file in one.indexes.items():
                if file.path in present:
                    path = f"dists/{one.suite}/{name}"
                    named.setdefault(one.suite, []).append(Listed(path, file.sha256, file.size))
                    same = staging.there.files.get(path) == file.size and staging.known.get(path) == file.sha256
                    if self.request.verify_all or not same:
                        tree_.link(file.path, path)
                        there.files[path] = file.size
        # `current` may lead to an image only when that has its name without a serial.
        for one in found:
            for path, target in contents[one.suite].links.items():
                if not path.endswith("/current") and there.links.get(path) != target:
                    tree_.point(path, target)
                    there.links[path] = target
        tree_.sync()
        for one in found:
            folder = f"dists/{one.suite}"
            if hashlib.sha256((tree_.incoming / folder / "InRelease").read_bytes()).hexdigest() != one.sha256:
                raise LocalError(f"{folder}/InRelease was changed while it was verified", "run again")
            for name in _LAST:
                if (tree_.incoming / folder / name).is_file():
                    tree_.put((f"{folder}/{name}",))
                    there.files[f"{folder}/{name}"] = UNKNOWN
                else:
                    (tree_.dest / folder / name).unlink(missing_ok=True)
                    there.files.pop(f"{folder}/{name}", None)
            last = [Listed(f"{folder}/{name}", "", UNKNOWN) for name in _LAST]
            own = contents[one.suite]
            tree_.remember(one.suite, (*own.files, *named.get(one.suite, []), *last), own.links)
        for one in found:
            for path, target in contents[one.suite].links.items():
                if there.links.get(path) != target:
                    tree_.point(path, target)
                    there.links[path] = target
