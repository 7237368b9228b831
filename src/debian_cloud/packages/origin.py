# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch and verify the indexes of all package sources, and read them with a private apt."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from debian_cloud import names
from debian_cloud.errors import FAILED, USAGE, Error, did_you_mean
from debian_cloud.host import files, run
from debian_cloud.host.progress import Progress
from debian_cloud.image import sources
from debian_cloud.image.custom import OFFICIAL, Custom
from debian_cloud.image.lock import check
from debian_cloud.packages import cache, images, indextargets, kept, keyrings, releases
from debian_cloud.plan import Write
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.config import ImageConfig
    from debian_cloud.image.resolution import Resolution
    from debian_cloud.packages.releases import Release
    from debian_cloud.packages.resolver import Apt

DEFAULT_SUITE: Final = "trixie"
_LARGEST_SOURCES: Final = 2**20
"""Largest .sources file, in bytes; one with a key in it has a few thousand."""
_PLAIN: Final = "/+,:=~"
"""Characters that are not percent-encoded in the URL of a directory, besides letters, digits and `_.-`."""
# White space, or a "%" without two digits of a byte other than NUL (RFC 3986, 2.1): programs read these differently.
_NO_URL: Final = re.compile(r"\s|%(?![0-9A-Fa-f]{2})|%00")
_FETCHED: Final = re.compile(r"^'.*' ([^ _]+)_([^ _]+)_[^ _]+\.deb \d+ SHA256:([0-9a-f]{64})$", re.MULTILINE)
"""A package that apt-get would fetch, its version, percent-encoded, and its hash."""
_MADE_OF: Final = "made-of"
"""File of a private apt that says of which release files its binary cache was made."""
_IMAGES: Final = ("main/images/Images", "main/images/Images-Status")
"""Indexes of images in a suite of an archive."""
_SCHEMES: Final = ("http://", "https://", "file:", "copy:", "mirror+")


@dataclass(frozen=True, slots=True)
class Places:
    """Where packages come from; what is empty comes from this machine's apt.

    `mirror`, `security_mirror` and `archive` are URLs as apt reads them, or directories. `expired` accepts Debian's
    indexes past their Valid-Until, `keyring` has the keys that may sign for the archive, `snapshot` is the id under
    which the archive was published, `others` are `other_sources`, each with the architectures that it is for. With
    `offline`, no network is used: the indexes are those in the cache.
    """

    mirror: str = ""
    security_mirror: str = ""
    expired: bool = False
    archive: str = ""
    keyring: Path | None = None
    snapshot: str = ""
    others: tuple[tuple[sources.Source, tuple[str, ...]], ...] = ()
    offline: bool = False

    @property
    def added(self) -> tuple[sources.Source, ...]:
        """The other sources."""
        return tuple(source for source, _ in self.others)


USUAL: Final = Places()
"""No place is given."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The sources of a configuration and its packages, and the apt that reads them.

    `opened` returns that apt, which takes time the first time. `store` has what it answered to the same questions.
    """

    debian: tuple[sources.Source, ...]
    archive: sources.Source
    opened: Callable[[], Apt]
    conf: Path
    others: tuple[sources.Source, ...] = ()
    """Sources that the user added, each with its own keys."""
    releases: tuple[Release, ...] = ()
    """The signed release file of each source and suite."""
    store: kept.Store | None = None

    @property
    def apt(self) -> Apt:
        """The apt that reads the sources."""
        return self.opened()

    def configurations(self, suite: str) -> tuple[ImageConfig, ...]:
        """Return every image configuration, sorted by name."""
        return kept.configurations(self.store, suite, lambda: self.apt.configurations(suite))

    def resolve(self, name: str, suite: str, custom: Custom = OFFICIAL, lock: Buildinfo | None = None) -> Resolution:
        """Return the exact packages of a configuration; raise Error with apt's reason if it cannot be installed.

        With a lock, raise Error if they are not the packages of the lock.
        """
        asked = (name, suite, custom, lock)
        resolution = kept.resolution(self.store, asked, lambda: self._resolved(*asked))
        if lock:
            check(lock, resolution)
        return replace(resolution, releases=tuple(release.record for release in self.releases))

    def _resolved(self, name: str, suite: str, custom: Custom, lock: Buildinfo | None) -> Resolution:
        config = self.apt.configuration(name, suite)
        if custom.size:
            config = _resized(config, custom.size)
        resolution = self.apt.resolve(config, custom, lock)
        if resolution is None:
            from debian_cloud.packages import resolver

            if not lock and (lack := self.apt.lacking(config.name)):
                raise Error(
                    f"configuration {names.config(config.name)} cannot be installed: {lack[0]} depends on"
                    f" {lack[1]}, which is in no signed source of {suite}",
                    resolver.NOT_DEBIAN_S,
                )
            pinned = custom.remove or custom.sources or lock
            pins = self.conf.with_name(resolver.PREFERENCES) if pinned else "/dev/null"
            said = run.words(
                (
                    *("apt-get", "-c", str(self.conf), "-o", f"Dir::Etc::Preferences={pins}", "-q", "--simulate"),
                    *("install", "apt", config.name, *custom.add),
                )
            )
            what = f"configuration {names.config(config.name)} {config.version}"
            what += f" with {', '.join(custom.add)}" if custom.add else ""
            what += f" without {', '.join(custom.remove)}" if custom.remove else ""
            raise Error(
                f"{what} cannot be installed\n{said.strip()}",
                "apt's reason is above; check that the suite has every package that it depends on",
            )
        self._ask_again(resolution)
        return resolution

    def _ask_again(self, resolution: Resolution) -> None:
        """Raise Error if apt-get(8) would install other packages than were resolved."""
        from debian_cloud.packages import resolver

        pins = self.conf.with_name(resolver.PREFERENCES) if resolution.pins else "/dev/null"
        keyring = {names.KEYRING_PACKAGE}.intersection(package.name for package in resolution.packages)
        custom = resolution.custom
        said = run.output(
            (
                *("apt-get", "-c", str(self.conf), "-o", f"Dir::Etc::Preferences={pins}"),
                *("-o", f"Dir::Cache::pkgcache={self.apt.binary_cache}", "-o", "Acquire::ForceHash=SHA256"),
                # With --simulate, apt-get looks at all packages again for each one that it would install.
                *("-q", "--print-uris", "install"),
                *(*resolution.essential, *resolution.required, resolution.config.name, *keyring),
                *(*resolution.recommended, *custom.add),
            )
        )
        found = {(name, unquote(version), sha256) for name, version, sha256 in _FETCHED.findall(said)}
        resolved = {(package.name, package.version, package.sha256) for package in resolution.packages}
        if found != resolved:
            name, version, _ = one = min(found ^ resolved)
            who, other = ("apt-get", "python-apt") if one in found else ("python-apt", "apt-get")
            raise Error(
                f"{who} installs {name} {version} with {names.config(resolution.config.name)}, and {other} does not",
                "both must agree: name it in the configuration's Depends, or with --add",
            )


def _resized(config: ImageConfig, size: int) -> ImageConfig:
    if not config.firmware:
        raise Error(
            f"{names.config(config.name)} is a root file system without a disk, but --size sets the size of a disk",
            "omit --size",
            USAGE,
        )
    return replace(config, size=size)


def other_sources(file: str) -> tuple[tuple[sources.Source, tuple[str, ...]], ...]:
    """Return the sources in a .sources file, each with the architectures that it is limited to, if any."""
    try:
        text = files.text(Path(file), _LARGEST_SOURCES)
    except Error as error:
        raise Error(error.message, error.hint, USAGE) from None
    found = sources.others(text, file)
    return tuple(
        (
            replace(
                source,
                signed_by=str(
                    keyrings.copy(Path(source.signed_by))
                    if source.signed_by.startswith("/")
                    else keyrings.copy_of(source.signed_by.encode())
                ),
            ),
            architectures,
        )
        for source, architectures in found
    )


def _others_for(places: Places, arch: str, read: tuple[sources.Source, ...]) -> tuple[sources.Source, ...]:
    """Return the other sources for an architecture; raise Error if one is not for it, or is already read."""
    seen = {(source.uri.rstrip("/"), suite) for source in read for suite in source.suites}
    for source, architectures in places.others:
        if architectures and arch not in architectures:
            raise Error(
                f"the source {source.uri} is for {', '.join(architectures)}, not for {arch}",
                "its field Architectures says so: choose another --arch or another source",
                USAGE,
            )
        for suite in source.suites:
            if (source.uri.rstrip("/"), suite) in seen:
                raise Error(f"the source {source.uri} {suite} is given twice", "omit what is read anyway", USAGE)
            seen.add((source.uri.rstrip("/"), suite))
    return places.added


def architecture(asked: str = "") -> str:
    """Return the requested architecture, by default this machine's."""
    arch = asked or run.output(("dpkg", "--print-architecture")).strip()
    if arch not in names.ARCHITECTURES:
        raise Error(f"there are no images for architecture {arch!r}", did_you_mean(arch, names.ARCHITECTURES), USAGE)
    return arch


@contextlib.contextmanager
def of(places: Places, suite: str = DEFAULT_SUITE, arch: str = "") -> Iterator[Origin]:
    """Fetch and verify the indexes of every source of a suite; keep them while in use."""
    suite, arch = names.word(suite, "suite"), architecture(arch)
    snapshot = names.snapshot(places.snapshot) if places.snapshot else ""
    settings = indextargets.settings()
    known = indextargets.known(settings)
    debian = _debian(places, known, suite)
    keyring = str(keyrings.copy(places.keyring)) if places.keyring else ""
    # The archive that the user configured has priority over the machine's: it is the more specific choice.
    archive = None if places.archive or keyring else keyrings.own_archive(suite)
    archive = archive or sources.archive(
        known, suite, url=_url(places.archive, "--archive"), keyring=keyring, installed=images.installed()
    )
    if snapshot:
        archive = _as_of(archive, snapshot, arch, offline=places.offline)
    # One directory for each mirror and suite, whatever the archive: Debian's large indexes are fetched once.
    more = _others_for(places, arch, (*debian, archive))
    root = cache.directory() / _identity(debian, arch)
    with _read(root, debian, archive, arch, more, settings, offline=places.offline) as found:
        for release in found.releases:
            if release.source is archive:
                _refuse_replayed(release, snapshot)
        yield found


@dataclass(frozen=True, slots=True)
class Offered:
    """What the archive that the user configured lists: its address, its images, and their status."""

    uri: str
    known: images.Known
    said: images.Said


def offered(suite: str, arch: str, *, offline: bool = False) -> Offered | None:
    """Return the images of the archive that the user configured for a suite, or None if there is no such archive.

    Its indexes are fetched and verified; with `offline`, those in the cache are verified. If that fails,
    `known.refused` has a sentence about it.
    """
    source = keyrings.own_archive(names.word(suite, "suite"))
    if source is None:
        return None
    source = replace(source, components=("main",))
    machine = architecture(arch)
    root = cache.directory() / f"{_identity((source,), machine)}.images"
    plan = sources.update(root, (source,), machine, sources.IMAGES, offline=offline)
    uri, ring = source.uri, Path(source.signed_by)

    def indexes(kind: str) -> tuple[sources.Target, ...]:
        found = sorted((root / "lists").glob(f"*_main_images_{kind}"))
        return tuple(sources.Target(kind, "", "", suite, uri, str(file), "yes") for file in found)

    with cache.used(root, "the cache of the archive's indexes of images"):
        try:
            run.carry_out(plan, root, Progress(len(plan), quiet=True))
            if offline:
                (release,) = releases.read(root / "lists", (source,), offline=True)
                releases.refuse_other(root / "lists", release, _IMAGES)
            known = images.listed(indexes("Images"), suite, arch, ring)
            said = images.said(indexes("Images-Status"), lambda _: False, ring)
        except Error as error:
            return Offered(uri, images.Known((), (f"{printable(uri)} is ignored: {error.message}",)), images.Said(()))
    return Offered(uri, known, said)


@contextlib.contextmanager
def of_closure(buildinfo: Buildinfo, keyring: Path, url: str = "", archive: str = "") -> Iterator[Origin]:
    """Fetch and verify the indexes of an image's closure, and no others; keep them while in use.

    `url` is the closure's URL or directory, by default where the archive keeps it; `archive` is the archive's URL or
    directory.
    """
    suite, arch = buildinfo.id.suite, buildinfo.id.architecture
    key = str(keyrings.copy(keyring))
    url = _url(url, "--closure")
    if not url:
        of_archive = None if archive else keyrings.own_archive(suite)
        if of_archive is None or of_archive.signed_by != key:
            known = indextargets.known()
            address = _url(archive, "--archive")
            of_archive = sources.archive(known, suite, url=address, keyring=key, installed=images.installed())
        url = f"{of_archive.uri.rstrip('/')}/{buildinfo.id.path(names.CLOSURES)}"
    source = sources.Source(url, (suite,), key)
    with _read(cache.directory() / _identity((source,), arch), (), source, arch) as found:
        yield found


def _as_of(archive: sources.Source, snapshot: str, arch: str, *, offline: bool) -> sources.Source:
    """Return the archive as published under an id; raise Error if it has no snapshot that names this id."""
    # The user requested this id, and the snapshot must name it: so it may be past its Valid-Until.
    old = replace(archive, uri=f"{archive.uri.rstrip('/')}/snap/{snapshot}", expired=True)
    if not archive.uri.startswith("file:"):
        # A mirror has no snapshots: its Release says where they are. Only that is read, so it may have expired.
        address = _release(replace(archive, expired=True), arch, offline=offline).field("Snapshots")
        old = replace(old, uri=address.replace("@SNAPSHOTID@", snapshot) if address else old.uri)
    hint = f"check that {old.uri} exists: the archive's operator may have removed it"
    try:
        found = _release(old, arch, offline=offline)
    except Error as error:
        raise Error(f"snapshot {snapshot} of the archive cannot be read\n{error.message}", hint, FAILED) from None
    _refuse_replayed(found, snapshot)
    return old


def _refuse_replayed(release: Release, snapshot: str) -> None:
    """Raise Error if the signed release file is not of the suite itself, or of the requested snapshot."""
    source, found = release.source, release.field("Snapshot")
    if snapshot and found != snapshot:
        raise Error(
            f"{source.uri} is validly signed, but is not the snapshot {snapshot} of the archive",
            f"check that {source.uri} exists: the archive's operator may have removed it",
            FAILED,
        )
    # The address of the archive may itself be that of a snapshot.
    if not snapshot and (found != names.snapshot_at(source.uri) if found else not release.field("Valid-Until")):
        what = f"its snapshot {found}" if found else "an index without Valid-Until"
        raise Error(
            f"{source.uri} serves {what}, which is validly signed, in place of {release.field('Codename')}",
            "it may be an old state: use another mirror; to get a snapshot, give --snapshot ID",
            FAILED,
        )


def _release(source: sources.Source, arch: str, *, offline: bool) -> Release:
    """Return the signed release file of the archive, or of one of its snapshots."""
    root = cache.directory() / f"{_identity((source,), arch)}.release"
    with cache.used(root, "the cache of the archive's release files"):
        if not offline or source.local:
            # In a new place, since apt takes no release file in the place of a later one.
            new = root / "new"
            shutil.rmtree(new, ignore_errors=True)
            plan = sources.update(new, (source,), arch, sources.NO_PACKAGES)
            run.carry_out(plan, root, Progress(len(plan), quiet=True))
            shutil.rmtree(root / "lists", ignore_errors=True)
            (new / "lists").rename(root / "lists")
        return releases.of(root / "lists", source, source.suites[0], offline=offline)


@contextlib.contextmanager
def _read(
    root: Path,
    debian: tuple[sources.Source, ...],
    archive: sources.Source,
    arch: str,
    more: tuple[sources.Source, ...] = (),
    settings: str = "",
    *,
    offline: bool = False,
) -> Iterator[Origin]:
    """Fetch and verify the indexes of these sources; with `offline`, verify those in the cache.

    `settings` are those of the machine's apt; without them, no answer is kept, and none that was kept is believed.
    """
    plan = sources.update(root, (*debian, archive, *more), arch, offline=offline)
    # libapt opens the lists again when it looks up a record: no process may replace them before.
    with cache.used(root, "the cache of package indexes") as descriptor:
        plan = tuple(step for step in plan if not (isinstance(step, Write) and _written(step)))
        try:
            run.carry_out(plan, root, Progress(len(plan), quiet=True))
        except Error as error:
            raise _lacking(archive, error) from None
        read = releases.read(root / "lists", (*debian, archive, *more), offline=offline)
        for release in read if offline else ():
            releases.refuse_other(root / "lists", release, releases.of_packages(release, arch))
        identity = releases.identity(read)
        own = (files.text(root / "apt.conf"), sources.as_deb822((*debian, archive, *more)))
        store = kept.store(root, descriptor, identity, settings, *own) if settings else None

        @functools.cache
        def opened() -> Apt:
            # A kept answer needs no apt.
            from debian_cloud.packages import resolver

            _drop_other(root, identity)
            return resolver.Apt(root, read, archive, more)

        yield Origin(debian, archive, opened, root / "apt.conf", more, read, store)


def _written(step: Write) -> bool:
    """Return whether a file is there as a step would write it; apt's binary cache must be newer than its sources."""
    path = Path(step.path)
    try:
        return stat.S_IMODE(path.lstat().st_mode) == step.mode and path.read_text("utf-8") == step.text
    except (OSError, ValueError):
        return False


def _drop_other(root: Path, identity: str) -> None:
    """Remove apt's binary cache unless it was made of these release files.

    apt itself compares sizes and times of the lists: an archive published twice in one second may differ in neither.
    """
    note, binary = root / _MADE_OF, root / "cache" / sources.BINARY_CACHE
    with contextlib.suppress(OSError, ValueError):
        if note.read_text("utf-8") == identity:
            return
    binary.unlink(missing_ok=True)
    # Otherwise it is made anew each time.
    with contextlib.suppress(OSError):
        note.write_text(identity, "utf-8")


def _lacking(archive: sources.Source, error: Error) -> Error:
    """Return an error that lists the suites of an archive, if it lacks the requested one; else the same error."""
    for suite in archive.suites:
        place = rf"{re.escape(archive.copied.uri.rstrip('/'))}/* {re.escape(suite)} Release'"
        if re.search(rf"'{place} (?:does not have|no longer has) a Release file", error.message):
            has = images.suites(archive.uri)
            if has:
                return Error(
                    f"{archive.uri} has no suite {suite}; the archive has: {', '.join(has)}",
                    "choose one of them with --suite",
                    USAGE,
                )
    return error


@contextlib.contextmanager
def contents(places: Places, suite: str = DEFAULT_SUITE, arch: str = "") -> Iterator[tuple[Path, ...]]:
    """Fetch and verify the lists of all files of a suite's packages, gzip-compressed; keep them while in use.

    They are those of the release itself: its updates bring new versions of its packages, and few new files.
    """
    suite, arch = names.word(suite, "suite"), architecture(arch)
    release = replace(_debian(places, indextargets.known(), suite)[0], suites=(suite,))
    root = cache.directory() / f"{_identity((release,), arch)}.contents"
    plan = sources.update(root, (release,), arch, sources.CONTENTS)
    with cache.used(root, "the cache of Debian's lists of files"):
        run.carry_out(plan, root, Progress(len(plan), quiet=True))
        found = tuple(sorted((root / "lists").glob("*_Contents-*.gz")))
        if not found:
            raise Error(f"the mirror has no Contents files of {suite}", "choose another mirror with --mirror URL")
        yield found


def _debian(places: Places, known: tuple[sources.Target, ...], suite: str) -> tuple[sources.Source, ...]:
    return sources.debian(
        known,
        suite,
        mirror=_url(places.mirror, "--mirror"),
        security_mirror=_url(places.security_mirror, "--security-mirror"),
        expired=places.expired,
    )


def _identity(all_sources: tuple[sources.Source, ...], arch: str) -> str:
    # The same lists serve a user who, without a network, accepts them after their Valid-Until.
    valid = (replace(source, expired=False) for source in all_sources)
    return hashlib.sha256(f"{arch}\n{sources.as_deb822(valid)}".encode()).hexdigest()[:16]


def _url(value: str, option: str) -> str:
    if value and _is_directory(value):
        # apt's methods decode this; it is one word in every format of sources.
        value = f"file:{quote(os.fsencode(Path(value).resolve()), safe=_PLAIN)}"
    if value and (not value.startswith(_SCHEMES) or _NO_URL.search(value)):
        raise Error(
            f"{option} {value!r} is not a URL that apt accepts",
            "give http://…, https://…, file:/… or a directory",
            USAGE,
        )
    if sources.names_a_user(value):
        # Do not print the value: output may be stored.
        raise Error(
            f"{option} has a user or a password in its URL, but every user of the machine can read arguments",
            "put it into apt_auth.conf(5), and give the URL without it",
            USAGE,
        )
    return value


def _is_directory(value: str) -> bool:
    try:
        return Path(value).is_dir()
    except OSError:
        # For example, the name is too long.
        return False
