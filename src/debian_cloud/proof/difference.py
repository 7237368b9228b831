# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two images: packages, the changelogs between their versions, files.

An image is a `Description`, made from its .buildinfo or from the files in it: dpkg's database says which packages are
installed and which package owns each path. Nothing that is read from an image is assumed to be well-formed or small.

Packages are compared by source package, since a kernel has another name with each version, and changelogs by the
position of an entry, as dpkg-parsechangelog(1) does. Entries that the newer image no longer has are listed apart.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.image import entries
from debian_cloud.image.binary import ENTRY
from debian_cloud.image.resolution import Package
from debian_cloud.text import deb822

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.entries import Entry

    Content = Callable[[str], bytes]
    """The content of a file of an image, by its path."""

GENERATED: Final = ""
"""The owner of paths that no package owns."""

_STATUS: Final = "var/lib/dpkg/status"
_INFO: Final = "var/lib/dpkg/info/"
_DIVERSIONS: Final = "var/lib/dpkg/diversions"
_DOC: Final = "usr/share/doc"
_LIMIT: Final = 2**26
"""Most bytes of one file of the database, or of one changelog: the longest, the kernel's, has a tenth."""
_TOGETHER: Final = 2**30
"""Most bytes of all files of the database, or of all changelogs, of one image."""
_LINKS: Final = 40
"""Most symlinks in the resolution of one path, as in Linux (path_resolution(7))."""

# A rebuild without a change of the source (Debian Policy 5.6.12, binNMU).
_REBUILD: Final = re.compile(r"\+b[0-9]+$")
# Debian Policy 5.6.1: any other value could contain anything, and the values are shown to users.
_NAME: Final = re.compile("[a-z0-9][a-z0-9+.-]*")
_SOURCE: Final = re.compile(rf"({_NAME.pattern})(?: \((\S+)\))?")
_CVE: Final = re.compile(r"\bCVE-[0-9]{4}-[0-9]{4,19}\b")
# Debian Policy 4.4.
_CLOSES: Final = re.compile(r"closes:\s*(?:bug)?#?\s?\d+(?:,\s*(?:bug)?#?\s?\d+)*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Sourced(Package):
    """One package of an image, with its source; `size` in bytes, of the .deb or of its files.

    The description says which of the two. `sha256` is the .deb's, or "" if unknown. `source` is the source package,
    `source_version` the version of its changelog's newest entry, including a binNMU's suffix; both are empty if only
    a .buildinfo is known.
    """

    source: str = ""
    source_version: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """One image; `title` is shown to users.

    `packages` is by name (`name:architecture` if several architectures have it). For a .buildinfo, `files` is None
    and sizes are of .debs; for an image's content, `files` is by path, and `owners` gives the package of each path
    that a package owns.
    """

    title: str
    architecture: str
    packages: Mapping[str, Sourced]
    files: Mapping[str, Entry] | None = None
    owners: Mapping[str, str] | None = None

    @property
    def size(self) -> int:
        """Bytes of all .debs, or of all files."""
        if self.files is None:
            return sum(package.size for package in self.packages.values())
        return sum(_sizes(self.files, lambda _: GENERATED).values())


@dataclass(frozen=True, slots=True)
class News:
    """One entry of a changelog (deb-changelog(5)): its text, the CVEs and the bugs that it names."""

    version: str
    suite: str
    text: str
    cves: tuple[str, ...]
    bugs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Changelog:
    """The entries of a source package's changelog between two versions, newest first.

    `packages` are those of the image that come from it. If `lost`, the second image has the older version, and lacks
    these entries.
    """

    source: str
    old: str
    new: str
    packages: tuple[str, ...]
    news: tuple[News, ...]

    @property
    def lost(self) -> bool:
        """Whether the second image has the older version."""
        return deb822.version(self.old) > deb822.version(self.new)


@dataclass(frozen=True, slots=True)
class Changed:
    """A package in both images, before and after; sizes in bytes."""

    name: str
    old: Package
    new: Package


@dataclass(frozen=True, slots=True)
class Files:
    """The paths of one package (GENERATED: of none) that differ; sizes in bytes, of its files before and after.

    `changed` says what differs in each path: kind, content, mode, owner or xattrs; times are ignored.
    """

    package: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    old_size: int
    new_size: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The differences from one image to another, sorted by name.

    `replaced` are packages of the same version whose .debs differ. `files` is None if the content of an image is
    unknown, `sized` is False if the sizes of one image are of .debs and those of the other of files.
    """

    old: Description
    new: Description
    added: tuple[Sourced, ...]
    removed: tuple[Sourced, ...]
    upgraded: tuple[Changed, ...]
    downgraded: tuple[Changed, ...]
    replaced: tuple[Changed, ...]
    files: tuple[Files, ...] | None
    sized: bool
    changelogs: tuple[Changelog, ...] = ()


def of_buildinfo(title: str, buildinfo: Buildinfo) -> Description:
    """Describe an image by its .buildinfo."""
    packages = [Sourced(p.name, p.version, p.architecture, p.size, p.sha256) for p in buildinfo.packages]
    for package in packages:
        if not _is_version(package.version):
            raise Error(f"{title} has a package of invalid version {package.version!r}", "it was changed by hand")
    return Description(title, buildinfo.id.architecture, _by_name(packages))


def of_image(title: str, found: Iterable[Entry], content: Content) -> Description:
    """Describe an image by its dpkg database; raise Error if that is missing or damaged."""
    files = {entry.path: entry for entry in found}
    database = _Database(title, files, content, [_TOGETHER])
    installed = database.packages()
    owners = database.owners(installed)
    sizes = _sizes(files, lambda path: owners.get(path, GENERATED))
    packages = {
        name: Sourced(p.name, p.version, p.architecture, sizes.get(name, 0), "", p.source, p.source_version)
        for name, p in installed.items()
    }
    return Description(title, database.architecture(packages), packages, files, owners)


def compare(old: Description, new: Description) -> Difference:
    """Return what differs, without changelogs; raise Error for images of different architectures."""
    if old.architecture != new.architecture:
        raise Error(
            f"{old.title} is for {old.architecture}, but {new.title} for {new.architecture}",
            "compare two images of the same architecture",
        )
    both = [Changed(name, p, new.packages[name]) for name, p in sorted(old.packages.items()) if name in new.packages]
    same = [c for c in both if c.old.version == c.new.version]
    up = [c for c in both if deb822.version(c.old.version) < deb822.version(c.new.version)]
    return Difference(
        old,
        new,
        added=tuple(p for name, p in sorted(new.packages.items()) if name not in old.packages),
        removed=tuple(p for name, p in sorted(old.packages.items()) if name not in new.packages),
        upgraded=tuple(up),
        downgraded=tuple(c for c in both if c not in up and c not in same),
        replaced=tuple(c for c in same if c.old.sha256 and c.new.sha256 and c.old.sha256 != c.new.sha256),
        files=_files(old, new),
        sized=(old.files is None) == (new.files is None),
    )


def with_changelogs(found: Difference, old_content: Content, new_content: Content) -> Difference:
    """Add changelog entries, by source package, from the image that has the newer version of each."""
    old, new = found.old, found.new
    before, after = _sources(old), _sources(new)
    result, left = [], [_TOGETHER]
    for source in sorted(before.keys() & after.keys()):
        first, second = before[source], after[source]
        if first == second:
            continue
        back = deb822.version(first) > deb822.version(second)
        image, content = (old, old_content) if back else (new, new_content)
        low, high = (second, first) if back else (first, second)
        packages = tuple(name for name, p in sorted(image.packages.items()) if p.source == source)
        texts = _bounded(
            image.title, left, (text for name in packages for text in _texts(image, image.packages[name], content))
        )
        result.append(Changelog(source, first, second, packages, _news(texts, low, high)))
    return replace(found, changelogs=tuple(result))


def _bounded(title: str, left: list[int], texts: Iterable[str]) -> Iterator[str]:
    """Yield texts of an image; raise Error if they are longer than what `left` allows."""
    for text in texts:
        left[0] -= len(text)
        if left[0] < 0:
            raise Error(f"{title} has more text than an image can have", "it is not an image of a Debian system")
        yield text


def named(changelogs: Iterable[Changelog], *, lost: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the CVEs and the bugs that changelogs name, of the lost ones or of the others."""
    found = [entry for log in changelogs if log.lost is lost for entry in log.news]
    cves = {cve for entry in found for cve in entry.cves}
    return tuple(sorted(cves, key=_cve)), tuple(sorted({bug for entry in found for bug in entry.bugs}))


def news(text: str, old: str, new: str) -> tuple[News, ...]:
    """Return the entries of a changelog after version `old`, up to `new`, in the changelog's order.

    Entries above that of `old` are later; if it has no entry, versions decide (dpkg-parsechangelog(1), --since).
    """
    found = list(_entries(text))
    versions = [entry.version for entry in found]
    low, high = deb822.version(old), deb822.version(new)
    # The binNMU's own entry may be missing: look for the version of the source.
    known = next((v for v in (old, _REBUILD.sub("", old)) if v in versions), None)
    since = found[: versions.index(known)] if known else found
    return tuple(
        entry
        for entry in since
        if _is_version(entry.version)
        and deb822.version(entry.version) <= high
        and (known or deb822.version(entry.version) > low)
    )


def _news(texts: Iterable[str], old: str, new: str) -> tuple[News, ...]:
    """Return the entries of several changelogs of one source package, each once: a binNMU has its own changelog."""
    found = {entry.version: entry for text in texts for entry in news(text, old, new)}
    return tuple(sorted(found.values(), key=lambda entry: deb822.version(entry.version), reverse=True))


def _entries(text: str) -> Iterator[News]:
    heading: re.Match[str] | None = None
    lines: list[str] = []
    for line in [*text.splitlines(), "end of file"]:
        if line.startswith((" ", "\t")) or not line:
            if not line.startswith(" -- "):
                lines.append(line)
            continue
        if heading:
            body = "\n".join(lines).strip("\n")
            cves = sorted(set(_CVE.findall(body)), key=_cve)
            bugs = {int(number) for closes in _CLOSES.findall(body) for number in re.findall("[0-9]{1,9}", closes)}
            yield News(heading["version"], heading["suite"], body, tuple(cves), tuple(sorted(bugs)))
        heading, lines = ENTRY.match(line), []


def _cve(name: str) -> tuple[int, int]:
    _, year, number = name.split("-")
    return int(year), int(number)


def _is_version(text: str) -> bool:
    try:
        deb822.version(text)
    except ValueError:
        return False
    return True


def _sources(of: Description) -> dict[str, str]:
    """Return source package -> the newest of its versions in an image."""
    found: dict[str, str] = {}
    for package in of.packages.values():
        if package.source:
            known = found.get(package.source, package.source_version)
            found[package.source] = max(known, package.source_version, key=deb822.version)
    return found


def _texts(image: Description, package: Sourced, content: Content) -> Iterator[str]:
    """Yield the changelogs of a package: of its binNMU, of Debian, or of a native package."""
    for name in (f"changelog.Debian.{package.architecture}.gz", "changelog.Debian.gz", "changelog.gz", "changelog"):
        path = _resolved(image.files or {}, f"{_DOC}/{package.name}/{name}")
        if path is None or (image.files or {})[path].size > _LIMIT:
            continue
        data = content(path)
        if data.startswith(b"\x1f\x8b"):
            try:
                data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _LIMIT)
            except zlib.error:
                continue
        yield data.decode("utf-8", "replace")


def _resolved(files: Mapping[str, Entry], path: str) -> str | None:
    """Return the regular file that a path leads to within the image, following symlinks; None if there is none."""
    todo, links = path.split("/")[::-1], 0
    done: list[str] = []
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        entry = files.get("/".join((*done, part)))
        if entry is None:
            return None
        if entry.kind == entries.SYMLINK:
            links += 1
            if links > _LINKS:
                return None
            todo += entry.target.split("/")[::-1]
            done = [] if entry.target.startswith("/") else done
            continue
        done.append(part)
    found = files.get("/".join(done))
    return found.path if found and found.kind == entries.FILE else None


def _by_name(packages: Iterable[Sourced]) -> dict[str, Sourced]:
    packages = tuple(packages)
    times = Counter(package.name for package in packages)
    return {f"{p.name}:{p.architecture}" if times[p.name] > 1 else p.name: p for p in packages}


def _sizes(files: Mapping[str, Entry], owner: Callable[[str], str]) -> dict[str, int]:
    """Return owner -> bytes of its regular files; hard links count once, for the first of their paths."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for path, entry in sorted(files.items()):
        if entry.kind != entries.FILE or entry.inode in seen:
            continue
        if entry.inode:
            seen.add(entry.inode)
        sizes[owner(path)] = sizes.get(owner(path), 0) + entry.size
    return sizes


def _files(old: Description, new: Description) -> tuple[Files, ...] | None:
    if old.files is None or new.files is None:
        return None
    before, after = old.files, new.files
    added: dict[str, list[str]] = {}
    removed: dict[str, list[str]] = {}
    changed: dict[str, dict[str, tuple[str, ...]]] = {}
    owned_before, owned_after = old.owners or {}, new.owners or {}
    for path in sorted(before.keys() | after.keys()):
        owner = owned_after.get(path, owned_before.get(path, GENERATED))
        if path not in before:
            added.setdefault(owner, []).append(path)
        elif path not in after:
            removed.setdefault(owned_before.get(path, GENERATED), []).append(path)
        elif what := _what(before[path], after[path]):
            changed.setdefault(owner, {})[path] = what
    old_sizes = _sizes(before, lambda path: owned_before.get(path, GENERATED))
    new_sizes = _sizes(after, lambda path: owned_after.get(path, GENERATED))
    return tuple(
        Files(
            owner,
            tuple(added.get(owner, ())),
            tuple(removed.get(owner, ())),
            changed.get(owner, {}),
            old_sizes.get(owner, 0),
            new_sizes.get(owner, 0),
        )
        for owner in sorted(added.keys() | removed.keys() | changed.keys())
    )


def _what(old: Entry, new: Entry) -> tuple[str, ...]:
    """Return what differs in one path; if the kind differs, only that."""
    if old.kind != new.kind:
        return ("kind",)
    pairs = (
        ("content", (old.size, old.sha256, old.target, old.device), (new.size, new.sha256, new.target, new.device)),
        ("mode", old.mode, new.mode),
        ("owner", (old.uid, old.gid), (new.uid, new.gid)),
        ("xattrs", old.xattrs, new.xattrs),
    )
    return tuple(word for word, first, second in pairs if first != second)


@dataclass(frozen=True, slots=True)
class _Database:
    """dpkg's database in an image (dpkg(1), FILES)."""

    title: str
    files: Mapping[str, Entry]
    content: Content
    left: list[int]

    def packages(self) -> dict[str, Sourced]:
        """Return the installed packages, without those of which only conffiles are left."""
        found = []
        if self.files.get(_STATUS, None) is None:
            raise Error(f"{self.title} has no {_STATUS}", "it is not an image of a Debian system")
        for stanza in deb822.parse(self._text(_STATUS, "replace")):
            if stanza.get("Status", "").split(" ")[-1] in ("config-files", "not-installed"):
                continue
            try:
                name, version, architecture = stanza["Package"], stanza["Version"], stanza["Architecture"]
                source = _SOURCE.fullmatch(stanza.get("Source", name))
                if not (source and _NAME.fullmatch(name) and _NAME.fullmatch(architecture)):
                    raise ValueError(name)
                rebuild = _REBUILD.search(version)
                # If Source has no version, it is that of the package (deb-control(5), Source).
                source_version = source[2] + (rebuild[0] if rebuild else "") if source[2] else version
                deb822.version(version)
                deb822.version(source_version)
                package = Sourced(name, version, architecture, 0, "", source[1], source_version)
            except (KeyError, ValueError):
                raise self._damaged(_STATUS) from None
            found.append(package)
        return _by_name(found)

    def architecture(self, packages: Mapping[str, Sourced]) -> str:
        """Return the architecture of dpkg itself."""
        if "dpkg" not in packages:
            raise Error(f"{self.title} has no package dpkg", "it is not an image of a Debian system")
        return packages["dpkg"].architecture

    def owners(self, packages: Mapping[str, Sourced]) -> dict[str, str]:
        """Return path -> the package that owns it, the first by name if several share it."""
        # Packages may list paths from before the /usr merge, which lead through these symlinks (file-hierarchy(7)).
        aliases = {
            path: entry.target.strip("/")
            for path, entry in self.files.items()
            if "/" not in path and entry.kind == entries.SYMLINK
        }
        diversions = self._diversions()
        owners: dict[str, str] = {}
        for name, package in sorted(packages.items()):
            lists = (f"{_INFO}{package.name}:{package.architecture}.list", f"{_INFO}{package.name}.list")
            path = next((path for path in lists if path in self.files), None)
            if path is None:
                raise Error(f"{self.title} has no list of the files of {package.name}", "it is damaged or truncated")
            for line in self._text(path).splitlines():
                to, by = diversions.get(line, (line, package.name))
                owned = (line if by == package.name else to).strip("/")
                first, slash, rest = owned.partition("/")
                owners.setdefault(f"{aliases[first]}/{rest}" if slash and first in aliases else owned, name)
        return owners

    def _diversions(self) -> dict[str, tuple[str, str]]:
        """Return path -> its diverted path, and the package that keeps it (dpkg-divert(1)): three lines each."""
        if _DIVERSIONS not in self.files:
            return {}
        lines = self._text(_DIVERSIONS).splitlines()
        return {lines[n]: (lines[n + 1], lines[n + 2]) for n in range(0, len(lines) - 2, 3)}

    def _text(self, path: str, errors: str = "surrogateescape") -> str:
        """Return the text of a file; names in it that are not UTF-8 are decoded as in an Entry."""
        entry = self.files[path]
        if entry.kind != entries.FILE or entry.size > _LIMIT:
            raise self._damaged(path)
        (text,) = _bounded(self.title, self.left, (self.content(path).decode("utf-8", errors),))
        return text

    def _damaged(self, path: str) -> Error:
        return Error(f"{self.title} has a damaged {path}", "it is not an image of a Debian system, or was changed")
