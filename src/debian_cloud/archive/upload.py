# SPDX-License-Identifier: GPL-3.0-or-later
"""The control files of an upload, read without ambiguity; packages that a source may have, and their limits.

A package belongs to the source that uploaded it, in all suites, as in Debian's override file; the names in
debian/control belong to debian-cloud even before it uploads them. reprepro grants rights by name only, and upgrades
go by name: the right to upload one configuration must not extend to packages that every machine has. A package has
the version of its source, so that no package is ever ahead of its source. conf/overrides gives a name to another
source, and that is logged. The fields that affect a machine (`Essential`, `Provides` and so on) have limits: a
maintainer script could still do all of it, but only on a machine where the package was installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.archive import reserved
from debian_cloud.errors import Error
from debian_cloud.image.binary import relations
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from debian_cloud.host.checksums import Digest
    from debian_cloud.text.deb822 import Stanza

LARGEST_TEXT: Final = 2**20
"""Maximum bytes of a control file of any kind: .changes, .dsc, .buildinfo, control."""
MOST_LINES: Final = 10_000
"""Maximum lines of a control file."""
MOST_FILES: Final = 1000
"""Maximum files of one upload."""
IMAGES: Final = "raw-images"
"""The section of an image's files."""

_HINT: Final = "build and sign it again with dpkg-buildpackage"
# deb-changes(5). A name that begins with a dot is hidden, and "reason" is reserved for the archive.
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,199}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION: Final = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9.+~-]*")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,14}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_BLANK: Final = re.compile(r"^[ \t]+$", re.MULTILINE)
_ONE_LINE: Final = ("Source", "Package", "Version", "Architecture", "Distribution", "Binary-Only")
_ONE_WORD: Final = ("Distribution",)
_LISTED: Final = re.compile(rb"^ [0-9a-f]* [0-9]* [^ \n]* [^ \n]* ([^ /.\n][^ /\n]*)$", re.MULTILINE)
_TARBALL: Final = re.compile(r"\.(?:diff\.gz|(?:orig(?:-[a-zA-Z0-9-]+)?|debian)?\.?tar\.(?:gz|xz|bz2|zst)(?:\.asc)?)")
# Without these packages a machine gets no updates.
_LIFELINE: Final = re.compile(r"apt|dpkg|unattended-upgrades|.*-archive-keyring.*")
_OURS: Final = "debian-cloud"


@dataclass(frozen=True, slots=True)
class Listed:
    """One file that a .changes lists; `size` in bytes."""

    name: str
    size: int
    sha256: str
    section: str


@dataclass(frozen=True, slots=True)
class Changes:
    """A .changes (deb-changes(5)) with checked names, versions and sizes."""

    source: str
    version: str
    suite: str
    binaries: tuple[str, ...]
    files: tuple[Listed, ...]


def stanza(text: bytes, what: str) -> Stanza:
    """The only paragraph of a control file, with capital letters in field names (Multi-Arch).

    Error if two readers may read it differently (deb822(5)): for some, a line of blanks or with a carriage return
    ends a paragraph, for others it belongs to the field; of a field that is there twice, some read the first, others
    the last.
    """
    if len(text) > LARGEST_TEXT or text.count(b"\n") > MOST_LINES:
        raise Error(f"{what} has more than {LARGEST_TEXT} bytes or {MOST_LINES} lines", _HINT)
    try:
        plain = text.decode()
    except UnicodeDecodeError:
        raise Error(f"{what} is not UTF-8 text", _HINT) from None
    if _CONTROL.search(plain) or _BLANK.search(plain):
        raise Error(f"{what} has a line of blanks only, or a control character, in its fields", _HINT)
    # debsign ends a text with an empty line.
    lines = plain.rstrip("\n").split("\n")
    if "" in lines:
        raise Error(f"{what} has more than one paragraph: it has an empty line", _HINT)
    try:
        (written,) = deb822.canonical("\n".join(line.rstrip(" \t") for line in lines))
    except Error as error:
        raise Error(f"{what}: {printable(error.message)}", _HINT) from None
    found = {field.title(): value for field, value in written.items()}
    for field in _ONE_LINE:
        value = found.get(field, "")
        if "\n" in value or (field in _ONE_WORD and " " in value):
            raise Error(f"{what} has more than one value in the field {field.lower()}", _HINT)
    return found


def listed(text: bytes) -> tuple[bytes, ...]:
    """The file names that a .changes seems to list, without verification; none leads to another directory.

    The .changes of another upload, and names of files that the archive itself writes, are left out.
    """
    _, _, after = (b"\n" + text).partition(b"\nFiles:")
    names = dict.fromkeys(_LISTED.findall(after)[:MOST_FILES])
    return tuple(name for name in names if not name.endswith(b".changes") and name != b"reason")


def changes(text: bytes) -> Changes:
    """Parse the signed text of a .changes; Error if it is not as dpkg-genchanges writes it."""
    fields = stanza(text, "the .changes")
    for field in ("Source", "Version", "Distribution", "Architecture", "Files", "Checksums-Sha256"):
        if not fields.get(field):
            raise Error(f"the .changes has no field {field}", _HINT)
    version = _valid(_VERSION, fields["Version"], "the .changes has the version")
    # A rebuild has another version than its source.
    source, source_version = _source(fields["Source"], version, "the .changes")
    if source_version != version:
        raise Error(
            f"the .changes has version {version}, but its source {source_version}",
            "upload a rebuild as a new version of its source",
        )
    return Changes(
        source,
        version,
        fields["Distribution"],
        tuple(_valid(_NAME, name, "the .changes lists a package") for name in fields.get("Binary", "").split()),
        _files(fields),
    )


def _files(fields: Stanza) -> tuple[Listed, ...]:
    sums: dict[str, tuple[str, str]] = {}
    for line in fields["Checksums-Sha256"].split("\n")[1:]:
        words = line.split()
        if len(words) != 3 or words[2] in sums or not re.fullmatch("[0-9a-f]{64}", words[0]):
            raise Error(f"the .changes has a line that is not a checksum: {printable(line.strip())}", _HINT)
        sums[words[2]] = words[0], words[1]
    found: dict[str, Listed] = {}
    for line in fields["Files"].split("\n")[1:]:
        words = line.split()
        if len(words) != 5 or words[4] in found or not _SIZE.fullmatch(words[1]):
            raise Error(f"the .changes has a line that does not list a file: {printable(line.strip())}", _HINT)
        _, size, section, _, name = words
        if not _FILE.fullmatch(name) or name.endswith(".changes") or name == "reason":
            raise Error(f"the .changes lists {printable(name)!r}, which is not a valid name of a file", _HINT)
        if name not in sums or sums[name][1] != size:
            raise Error(f"the .changes has no SHA-256 for {name} with {size} bytes", _HINT)
        found[name] = Listed(name, int(size), sums[name][0], section)
    if found.keys() != sums.keys():
        raise Error("the .changes has checksums for other files than it lists", _HINT)
    if not 0 < len(found) <= MOST_FILES:
        raise Error(f"the .changes lists {len(found)} files, but an upload has 1 to {MOST_FILES}", _HINT)
    return tuple(found.values())


def binary(upload: Changes, file: str, text: bytes) -> Stanza:
    """The control file of one .deb of an upload; Error if it disagrees with that, or exceeds the limits."""
    fields = stanza(text, file)
    for field in ("Package", "Version", "Architecture", "Maintainer", "Description"):
        if not fields.get(field):
            raise Error(f"{file} has no field {field}", _HINT)
    name = _valid(_NAME, fields["Package"], f"{file} has the package")
    architecture = _valid(_NAME, fields["Architecture"], f"{file} has the architecture")
    source, source_version = _source(fields.get("Source", name), fields["Version"], file)
    if source != upload.source:
        raise Error(f"{file} has the source package {source}, but the .changes {upload.source}", _HINT)
    for what, version in (("it", fields["Version"]), ("its source", source_version)):
        if version != upload.version:
            raise Error(
                f"{file}: {what} has the version {printable(version)}, but the .changes {upload.version}",
                "build it again: each package must have the version of its source",
            )
    expected = f"{name}_{upload.version.rpartition(':')[2]}_{architecture}.deb"
    if file != expected:
        raise Error(f"{file} must be {expected} by its control file", _HINT)
    if name not in upload.binaries and name.removesuffix("-dbgsym") not in upload.binaries:
        raise Error(f"{file} has a package that the field Binary of the .changes does not list", _HINT)
    _modest(file, fields)
    return fields


def _modest(file: str, fields: Stanza) -> None:
    """Raise Error if a package has a field or relation that no package of this archive may have."""
    for field in ("Essential", "Protected", "Important"):
        if fields.get(field, "no") != "no":
            raise Error(f"{file} has {field}: {printable(fields[field])}", "no package of this archive may have that")
    if fields.get("Priority", "optional") not in ("optional", "extra"):
        raise Error(f"{file} has the priority {printable(fields['Priority'])}", "it must be optional in this archive")
    for field in ("Provides", "Replaces", "Conflicts", "Breaks"):
        for name in _related(fields.get(field, "")):
            # dpkg accepts capital letters there, and treats them like small ones.
            _valid(_NAME, name, f"{file} has in {field} the package")
            if field in ("Provides", "Replaces") and not name.startswith(_OURS):
                raise Error(
                    f"{file} has {field}: {name}",
                    f"a package of this archive may not replace Debian's packages, only {_OURS}-…",
                )
            if _LIFELINE.fullmatch(name):
                raise Error(f"{file} has {field}: {name}", "machines need that package for their updates")


def _related(value: str) -> tuple[str, ...]:
    """The names of packages in a field such as Provides."""
    items = (item.strip() for relation in relations(value) for item in relation.split("|"))
    return tuple(re.split(r"[ (:\[<]", item, maxsplit=1)[0] for item in items)


def provided(fields: Stanza) -> tuple[str, ...]:
    """The names by which a package is found: its own, and those that it provides."""
    return fields["Package"], *_related(fields.get("Provides", ""))


def source(upload: Changes, file: str, text: bytes) -> Stanza:
    """A .dsc of an upload, without its signature; Error if it disagrees with the .changes (dsc(5))."""
    fields = stanza(text, file)
    if (fields.get("Source"), fields.get("Version")) != (upload.source, upload.version):
        raise Error(
            f"{file} belongs to {printable(fields.get('Source', ''))} {printable(fields.get('Version', ''))},"
            f" but the .changes to {upload.source} {upload.version}",
            _HINT,
        )
    there = {one.name for one in upload.files}
    for field in ("Files", "Checksums-Sha1", "Checksums-Sha256"):
        for line in fields.get(field, "").split("\n")[1:]:
            words = line.split()
            if len(words) != 3 or words[2] not in there:
                raise Error(f"{file} lists a file that the .changes does not list: {printable(line.strip())}", _HINT)
    return fields


def claimed(fields: Stanza) -> tuple[str, ...]:
    """The packages that a .dsc lists as built from its source."""
    return tuple(name for part in fields.get("Binary", "").split(",") if (name := part.strip()))


def buildinfo(upload: Changes, file: str, text: bytes) -> None:
    """Raise Error if a .buildinfo of packages is of another source than the upload (deb-buildinfo(5))."""
    fields = stanza(text, file)
    if "Source" in fields:
        of, version = _source(fields["Source"], fields.get("Version", upload.version), file)
        if (of, version) != (upload.source, upload.version):
            raise Error(
                f"{file} belongs to {of} {version}, but the .changes to {upload.source} {upload.version}", _HINT
            )


def kind(upload: Changes, file: str) -> str:
    """The kind of a file in an upload of packages: deb, dsc, buildinfo or tar; Error if it is none of these."""
    for suffix in ("deb", "dsc", "buildinfo"):
        if file.endswith(f".{suffix}"):
            return suffix
    without_epoch = upload.version.rpartition(":")[2]
    for start in (f"{upload.source}_{without_epoch}", f"{upload.source}_{without_epoch.rpartition('-')[0]}"):
        if file.startswith(start) and _TARBALL.fullmatch(file.removeprefix(start)):
            return "tar"
    raise Error(f"{file} is neither a package nor a part of the source package {upload.source}", _HINT)


@dataclass(frozen=True, slots=True)
class Owners:
    """Package -> sources that have it in any suite, and package -> sources to which the operator has given it."""

    known: Mapping[str, frozenset[str]]
    given: Mapping[str, frozenset[str]]

    def notes(self, source_: str, names: Iterable[str]) -> tuple[str, ...]:
        """Lines to log if a source was given names of other sources; Error for a name that it was not given."""
        found = []
        for name in dict.fromkeys(names):
            others = self.known.get(name, frozenset()) - {source_}
            if name in reserved.NAMES and source_ != reserved.SOURCE:
                others |= {reserved.SOURCE}
            if name in self.given:
                if source_ not in self.given[name]:
                    others = self.given[name]
                elif others:
                    found.append(f"{name}: {source_} may upload it, although {' '.join(sorted(others))} did")
                    continue
            if others:
                raise Error(
                    f"{name} belongs to the source package {' '.join(sorted(others))}, not to {source_}",
                    f"choose another name; or the archive's operator adds the line"
                    f" '{name} {source_}' to conf/overrides",
                )
        return tuple(found)


def holders(text: str) -> dict[str, frozenset[str]]:
    """Package -> its sources, from lines "PACKAGE SOURCE" as reprepro lists what it holds."""
    found: dict[str, frozenset[str]] = {}
    for package, source_ in (line.split(" ") for line in text.splitlines()):
        found[package] = found.get(package, frozenset()) | {source_}
    return found


def pairs(text: str, what: str) -> dict[str, frozenset[str]]:
    """Package -> sources, from lines "PACKAGE SOURCE" with comments; Error at the first that is not one."""
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not all(_NAME.fullmatch(word) for word in words):
            raise Error(f"{what}, line {number}: {printable(line)!r} is not PACKAGE SOURCE", "give two package names")
        lines.append(" ".join(words))
    return holders("\n".join(lines))


def written(suite: str, debs: Mapping[str, Stanza], digests: Mapping[str, Digest], date: str) -> str:
    """Make a .changes for .debs of one source that have none (deb-changes(5)).

    `debs` is file name -> control file, `digests` file name -> hashes. The .debs are listed as dpkg-genchanges does,
    without anything on how they were built.
    """
    first = next(iter(debs.values()))
    source, version = origin(first)
    names = sorted(debs)

    def lines(values: Iterable[str]) -> str:
        return "".join(f"\n {value}" for value in values)

    def sums(algorithm: str) -> str:
        return lines(f"{digests[n].hashes[algorithm]} {digests[n].size} {n}" for n in names)

    return deb822.render(
        (
            ("Format", "1.8"),
            ("Date", date),
            ("Source", source),
            ("Binary", " ".join(sorted({fields["Package"] for fields in debs.values()}))),
            ("Architecture", " ".join(sorted({fields["Architecture"] for fields in debs.values()}))),
            ("Version", version),
            ("Distribution", suite),
            ("Urgency", "medium"),
            ("Maintainer", first["Maintainer"]),
            ("Changed-By", first["Maintainer"]),
            (
                "Description",
                lines(f"{debs[n]['Package']} - {debs[n]['Description'].partition(chr(10))[0]}" for n in names),
            ),
            (
                "Changes",
                lines(
                    (
                        f"{source} ({version}) {suite}; urgency=medium",
                        ".",
                        "  * Added as they are.",
                    )
                ),
            ),
            ("Checksums-Sha1", sums("sha1")),
            ("Checksums-Sha256", sums("sha256")),
            (
                "Files",
                lines(
                    f"{digests[n].hashes['md5']} {digests[n].size}"
                    f" {_word(debs[n], 'Section', 'misc')} {_word(debs[n], 'Priority', 'optional')} {n}"
                    for n in names
                ),
            ),
        )
    )


def origin(fields: Stanza) -> tuple[str, str]:
    """Name and version of the source package of a .deb, by its control file."""
    what = printable(fields.get("Package", "the package"))
    for field in ("Package", "Version", "Architecture", "Maintainer", "Description"):
        if not fields.get(field):
            raise Error(f"{what} has no field {field}", _HINT)
    return _source(fields.get("Source", fields["Package"]), fields["Version"], what)


def file_name(fields: Stanza) -> str:
    """The name of a .deb by its control file, as dpkg-deb(1) gives it: without the epoch."""
    name = f"{fields['Package']}_{fields['Version'].rpartition(':')[2]}_{fields['Architecture']}.deb"
    return _valid(_FILE, name, "the package has the file name")


def relisted(text: str, name: str, digest: Digest) -> str:
    """The text of a .changes or .buildinfo with new size and hashes of a file, as debsign(1) writes it."""
    by_length = {len(value): value for value in digest.hashes.values()}
    line = re.compile(rf"^ ([0-9a-f]+) [0-9]+((?: \S+ \S+)?) {re.escape(name)}$", re.MULTILINE)
    return line.sub(lambda found: f" {by_length[len(found[1])]} {digest.size}{found[2]} {name}", text)


def _word(fields: Stanza, field: str, default: str) -> str:
    value = fields.get(field, default)
    if not re.fullmatch(r"[a-z0-9/+.-]+", value):
        raise Error(f"{printable(fields['Package'])} has the {field.lower()} {printable(value)!r}", _HINT)
    return value


def _source(value: str, version: str, what: str) -> tuple[str, str]:
    """Name and version of a source package, from a field Source, and from `version` if that has none."""
    match = re.fullmatch(r"(\S+)(?: \((\S+)\))?", value)
    if match is None:
        raise Error(f"{what} has the source {printable(value)!r}", _HINT)
    return _valid(_NAME, match[1], f"{what} has the source"), match[2] or version


def _valid(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise Error(f"{what} {printable(value)!r}, which is not valid", _HINT)
    return value
