# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at a mirror from outside: whether it serves what its archive has signed, and as clients need it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.host import folders
from debian_cloud.mirror import indexes, releases, trace, transports
from debian_cloud.mirror.listed import Listed
from debian_cloud.mirror.request import Request
from debian_cloud.mirror.staging import Staging
from debian_cloud.mirror.transports import http
from debian_cloud.mirror.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from debian_cloud.mirror.indexes import Contents
    from debian_cloud.mirror.releases import Release
    from debian_cloud.mirror.request import Source
    from debian_cloud.mirror.selection import Selection

OK, WARNING, ERROR = "ok", "warning", "error"
MOST: Final = 1000
"""Default of `Look.most`."""
_DAY: Final = 86400
_BEHIND: Final = 6 * 3600
"""Seconds that a mirror may need to follow its archive."""
_CERTIFIED: Final = 14 * _DAY
"""Seconds before its end in which a certificate should have been renewed."""
_NAMED: Final = 3
"""Files that a sentence names; of the others it has the number."""
_PART: Final = 1024
_FOUND: Final = 200
_TEXT: Final = ("SHA256SUMS", "SHA512SUMS", "InRelease", ".buildinfo", ".changes", ".image")


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at: a mirror by http or https, as one that carries `selection`; at most `most` of its files.

    `against` is the archive that it should show, or another mirror; `timeout` is in seconds.
    """

    source: Source
    keyring: Path
    suites: tuple[str, ...]
    selection: Selection
    timeout: int
    against: Source | None = None
    most: int = MOST


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: its level (OK, WARNING or ERROR), what it is, and a sentence about it."""

    level: str
    what: str
    sentence: str


def look(wanted: Look, say: Callable[[str], None]) -> tuple[Finding, ...]:
    """Look at a mirror; Error if it cannot be reached at all. `say` reports what takes time."""
    releases.keyring(wanted.keyring)
    with tempfile.TemporaryDirectory(prefix="debian-cloud-mirror.") as scratch:
        state = Tree(Path(scratch, "mirror")).state
        state.mkdir(parents=True, mode=0o700)
        with folders.locked(state, scratch) as lock:
            return (*_Visit(wanted, say, Path(scratch), lock).findings(),)


@dataclass(frozen=True, slots=True)
class _Visit:
    wanted: Look
    say: Callable[[str], None]
    scratch: Path
    lock: int

    def findings(self) -> Iterator[Finding]:
        wanted = self.wanted
        staging = self._staging(wanted.source, "mirror")
        names = [
            f"dists/{suite}/{name}" for suite in wanted.suites for name in ("InRelease", "Release", "Release.gpg")
        ]
        staging.text([*names, trace.MASTER])
        for suite in wanted.suites:
            if not (staging.tree.incoming / f"dists/{suite}/InRelease").is_file():
                yield Finding(ERROR, f"{suite} InRelease", f"dists/{suite}/InRelease is missing")
                continue
            try:
                found = releases.verified(
                    staging.tree.incoming, suite, wanted.keyring, wanted.source.shown, signers=1
                )
            except Error as error:
                yield Finding(ERROR, f"{suite} InRelease", error.message)
                continue
            yield from _age(found)
            yield from self._behind(found)
            yield from self._suite(staging, found)
        if trace.suites(staging.tree.incoming):
            yield Finding(OK, "trace", f"{trace.MASTER} is there")
        else:
            yield Finding(WARNING, "trace", f"{trace.MASTER} is missing, or does not name the suites")
        yield from self._private(staging)
        yield from self._certificate(staging)

    def _staging(self, source: Source, name: str) -> Staging:
        wanted = self.wanted
        dest = self.scratch / name
        request = Request((source,), dest, wanted.keyring, wanted.suites, timeout=wanted.timeout)
        tree = Tree(dest)
        tree.state.mkdir(parents=True, exist_ok=True)
        tree.prepare()
        return Staging(request, source, tree, lambda _: None, first=True, quiet=True, lock=self.lock)

    def _job(self, staging: Staging, asked: Sequence[Listed]) -> transports.Job:
        tree = staging.tree
        return transports.Job(
            *(self.wanted.source, asked, tree.incoming, tree.work),
            timeout=self.wanted.timeout,
            bandwidth=0,
            quiet=True,
            lock=self.lock,
        )

    def _behind(self, found: Release) -> Iterator[Finding]:
        """Compare the state of a suite with that of the archive."""
        if not (against := self.wanted.against):
            return
        what = f"{found.suite} state"
        staging = self._staging(against, "against")
        staging.text([f"dists/{found.suite}/InRelease"])
        try:
            newest = releases.verified(
                staging.tree.incoming, found.suite, self.wanted.keyring, against.shown, signers=1
            )
        except Error:
            yield Finding(
                WARNING, what, f"{against.shown} has no valid dists/{found.suite}/InRelease to compare with"
            )
            return
        late = time.time() - newest.date
        if newest.date <= found.date:
            yield Finding(OK, what, f"it is that of {against.shown}")
        elif late <= _BEHIND:
            yield Finding(OK, what, f"{against.shown} published another one {late / 3600:.1f} hours ago")
        else:
            yield Finding(WARNING, what, f"{against.shown} published another one {late / _DAY:.1f} days ago")

    def _suite(self, staging: Staging, found: Release) -> Iterator[Finding]:
        try:
            releases.refuse_other(found, staging.tree.incoming, self.wanted.keyring)
        except Error as error:
            yield Finding(ERROR, f"{found.suite} Release", error.message)
        try:
            indexes.bring(staging, found)
            contents = indexes.read(found.suite, found.indexes, staging.place, self.wanted.selection)
        except Error as error:
            yield Finding(ERROR, f"{found.suite} indexes", error.message)
            return
        yield Finding(OK, f"{found.suite} indexes", "those that are signed are there, and clients accept them")
        yield from self._stages(staging, found)
        yield from self._files(staging, found, contents)

    def _stages(self, staging: Staging, found: Release) -> Iterator[Finding]:
        """Ask for the indexes by hash, without which apt fails while a mirror changes."""
        by_hash = {file.path for file in found.indexes.values()}
        answers = http.heads(self._job(staging, [Listed(path) for path in sorted(by_hash)]))
        there = [path for path, head in answers.items() if head.status == _FOUND]
        if there:
            yield Finding(OK, f"{found.suite} by-hash", f"{len(there)} of {len(by_hash)} indexes are there by hash")
        else:
            yield Finding(
                WARNING, f"{found.suite} by-hash", "no index is there by hash: apt may fail during a change"
            )

    def _files(self, staging: Staging, found: Release, contents: Contents) -> Iterator[Finding]:
        what = f"{found.suite} files"
        every = {file.path: file for file in contents.files}
        step = -(-len(every) // self.wanted.most)
        asked = [*every.values()][::step] if step else []
        # A link leads to the files of the image that is current.
        links: dict[str, Listed] = {}
        for link, target in contents.links.items():
            beside = f"{link.rpartition('/')[0]}/{target}"
            if beside in every:
                links[link] = every[beside]
            elif file := next((file for path, file in every.items() if path.startswith(f"{beside}/")), None):
                links[link + file.path.removeprefix(beside)] = file
        if not asked:
            yield Finding(WARNING, what, "there is none")
            return
        self.say(f"asking for {len(asked) + len(links)} of {len(every) + len(links)} files of {found.suite}")
        answers = http.heads(self._job(staging, [*asked, *map(Listed, links)]))
        yield _amiss(what, {file.path: file for file in asked}, answers, len(every))
        if links:
            yield _amiss(f"{found.suite} links", links, answers, len(links))
        largest = max(asked, key=lambda file: file.size)
        if largest.size > 2 * _PART:
            done = http.continues(self._job(staging, [largest]), largest.path, largest.size // 2, _PART)
            sentence = "downloads can be continued" if done else f"a part of {largest.path} cannot be fetched"
            yield Finding(OK if done else WARNING, f"{found.suite} ranges", sentence)
        others = [
            path
            for path, head in answers.items()
            if path.endswith(_TEXT) and head.status == _FOUND and not head.kind.startswith("text/")
        ]
        if others:
            yield Finding(
                WARNING, f"{found.suite} types", f"{_some(others)}: text is served as {answers[others[0]].kind}"
            )

    def _private(self, staging: Staging) -> Iterator[Finding]:
        """Ask for what only the mirror itself may read: files that are not verified yet."""
        hidden = [Listed(path) for path in (".mirror/", *(f".mirror/{suite}.files" for suite in self.wanted.suites))]
        answers = http.heads(self._job(staging, hidden))
        if any(head.status == _FOUND for head in answers.values()):
            yield Finding(ERROR, "private", ".mirror/ is served: it has files that are not verified yet")

    def _certificate(self, staging: Staging) -> Iterator[Finding]:
        if self.wanted.source.scheme != "https":
            return
        path = f"dists/{self.wanted.suites[0]}/InRelease"
        until = http.certified_until(self._job(staging, [Listed(path)]), path)
        parsed = parsedate_tz(until)
        if not parsed:
            yield Finding(WARNING, "certificate", "it is not known until when it is valid")
            return
        left = mktime_tz(parsed) - time.time()
        level = OK if left > _CERTIFIED else WARNING
        yield Finding(level, "certificate", f"valid until {until}, for {left / _DAY:.0f} days")


def _age(found: Release) -> Iterator[Finding]:
    """Report the age of a suite, which clients refuse when its signature has expired."""
    now = time.time()
    sentence = f"of {releases.dated(found)}, valid for {(found.until - now) / _DAY:.1f} days"
    if now - found.date > (found.until - found.date) / 2:
        yield Finding(WARNING, f"{found.suite} age", f"{sentence}: more than half of its time is over")
    else:
        yield Finding(OK, f"{found.suite} age", sentence)


def _amiss(what: str, asked: dict[str, Listed], answers: dict[str, http.Head], every: int) -> Finding:
    missing = [path for path in asked if path not in answers or answers[path].status != _FOUND]
    other = [
        path
        for path, file in asked.items()
        if path not in missing and file.size >= 0 <= answers[path].length != file.size
    ]
    if missing:
        return Finding(ERROR, what, f"{_some(missing)}: missing, of {len(asked)} asked for")
    if other:
        return Finding(ERROR, what, f"{_some(other)}: not as large as listed, of {len(asked)} asked for")
    return Finding(OK, what, f"{len(asked)} of {every} were asked for, and are there")


def _some(paths: Sequence[str]) -> str:
    more = len(paths) - _NAMED
    return ", ".join(paths[:_NAMED]) + (f" and {more} more" if more > 0 else "")
