# SPDX-License-Identifier: GPL-3.0-or-later
"""Where packages come from: apt sources, and a private apt that trusts nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.image import config
from debian_cloud.plan import Plan, Run, Write
from debian_cloud.text import deb822
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FIELDS: Final = ("Types", "URIs", "Suites", "Components", "Signed-By", "Enabled", "Architectures")
"""Fields accepted in a user's .sources file (sources.list(5)); other fields could disable its verification."""
_REQUIRED: Final = _FIELDS[:5]
ADDRESS: Final = re.compile(r"(?:https?://|file:/)(?:[A-Za-z0-9._~:/+,=-]|%(?!00)[0-9A-Fa-f]{2})+")
"""A plain address in a .sources file; as in apt, "%" and two digits are a byte other than NUL (RFC 3986, 2.1)."""
_LINE: Final = re.compile(r"#.*|(?P<field>[A-Za-z][A-Za-z0-9-]*):.*|[ \t].*|")
_KEY: Final = ("-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----")

INDEXTARGETS: Final = (
    "apt-get", "indextargets", "--format",
    "$(CREATED_BY)|$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)|$(FILENAME)|$(TRUSTED)|$(SOURCESENTRY)",
)  # fmt: skip
"""Command that queries the machine's own apt; `Target` parses a line of its output (apt-get(8), indextargets)."""

COMPONENTS: Final = config.COMPONENTS
"""Debian's components that are read: all, so that the component of a package that an image may not take is known."""
ARCHIVE_COMPONENTS: Final = ("main", "contrib")
"""Contrib has the configurations that need more than main (Debian Policy 2.2.2)."""

WITHOUT_SECURITY: Final = ("sid", "unstable", "experimental")
"""Suites that have no security suite beside them."""


@dataclass(frozen=True, slots=True)
class Target:
    """One index file that the machine's own apt knows."""

    created_by: str
    origin: str
    label: str
    codename: str
    uri: str
    filename: str
    trusted: str
    entry: str = ""
    """The file and line of sources.list(5) from which apt has it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of sources.list(5), with the only keyring that may sign it.

    With `expired`, its indexes are accepted even after their Valid-Until.
    """

    uri: str
    suites: tuple[str, ...]
    signed_by: str
    components: tuple[str, ...] = ("main",)
    expired: bool = False

    @property
    def folder(self) -> str:
        """The path of a source on this machine, percent-encoded as in its URI; "" for any other source."""
        return self.uri[5:] if self.uri.startswith("file:") else ""

    @property
    def local(self) -> bool:
        """Whether the source is on this machine, so that apt reads it without a network."""
        return self.uri.startswith(("file:", "copy:"))

    @property
    def copied(self) -> Source:
        """The same source with copied files, because files could change after verification (apt-transport-file)."""
        return replace(self, uri=f"copy:{self.uri[5:]}") if self.uri.startswith("file:") else self


def others(text: str, name: str) -> tuple[tuple[Source, tuple[str, ...]], ...]:
    """The enabled sources in a .sources file, each with its architectures if they are restricted.

    `signed_by` is the value in the file: a path, or the key itself in its armour. Error, always with status USAGE, if
    anything would be accepted without a signature by the source's own key, or apt could read the file differently.
    """
    try:
        found = [_other(stanza) for stanza in _stanzas(text)]
    except Error as error:
        raise Error(f"--source {printable(name)}: {printable(error.message)}", error.hint or _SHAPE, USAGE) from None
    enabled = tuple(source for source in found if source)
    if not enabled:
        raise Error(f"--source {printable(name)} has no enabled source", _SHAPE, USAGE)
    return enabled


def as_change(source: Source) -> tuple[str, ...]:
    """The lines for a source that the user added in an image's list of changes, one for each suite."""
    return tuple(f"{source.uri} {suite} {','.join(source.components)}" for suite in source.suites)


_SHAPE: Final = "give a file in DEB822-STYLE FORMAT (sources.list(5)) with a Signed-By in each stanza"


def _stanzas(text: str) -> tuple[deb822.Stanza, ...]:
    """The stanzas of a .sources file; Error if a field is repeated, or a line has another format."""
    seen: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        match = _LINE.fullmatch(line.removesuffix("\r"))
        if not match:
            raise Error(f"line {number} is not a field and its value: {line[:60]!r}")
        if not line.strip():
            seen.clear()
        if field := (match["field"] or "").lower():
            if field in seen:
                raise Error(f"a stanza has the field {match['field']} twice", "remove one of them")
            seen.add(field)
    return deb822.parse(text)


def _other(stanza: deb822.Stanza) -> tuple[Source, tuple[str, ...]] | None:
    known = {field.lower(): field for field in _FIELDS}
    fields = {known.get(field.lower(), field): value for field, value in stanza.items()}
    for field in fields:
        if field not in _FIELDS:
            raise Error(f"the field {field} is not accepted", f"accepted: {', '.join(_FIELDS)}")
    for field in _REQUIRED:
        if not fields.get(field, "").strip():
            raise Error(f"a stanza has no field {field}")
    words = {field: tuple(value.split()) for field, value in fields.items()}
    if words.get("Enabled", ("yes",)) not in (("yes",), ("no",)):
        raise Error(f"Enabled is {fields['Enabled']!r}", "it must be yes or no")
    if not {"deb"} <= {*words["Types"]} <= {"deb", "deb-src"}:
        raise Error(f"Types is {fields['Types']!r}", "it must be deb, or deb deb-src")
    if len(words["URIs"]) != 1 or not ADDRESS.fullmatch(words["URIs"][0]):
        raise Error(
            "URIs is not one plain address",
            "give https://…, http://… or file:/…; each address needs a stanza of its own",
        )
    for suite in words["Suites"]:
        if suite.endswith("/"):
            raise Error(f"Suites is {suite}, a flat archive", "a source has dists/SUITE/InRelease and components")
        names.word(suite, "suite")
    for component in words["Components"]:
        names.word(component, "component")
    for arch in words.get("Architectures", ()):
        names.word(arch, "architecture")
    source = Source(words["URIs"][0], words["Suites"], _signed_by(fields["Signed-By"]), words["Components"])
    return (source, words.get("Architectures", ())) if words.get("Enabled", ("yes",)) == ("yes",) else None


def _signed_by(value: str) -> str:
    """The path of a keyring, or armoured keys."""
    first, *lines = value.split("\n")
    key = [line.strip() for line in (first, *lines) if line.strip()]
    if key[0] == _KEY[0] and key[-1] == _KEY[1]:
        return "".join(f"{'' if line == '.' else line}\n" for line in key)
    if lines or not value.startswith("/") or len(value.split()) != 1:
        raise Error(
            f"Signed-By is neither one path nor a key: {key[0][:60]!r}",
            "give the absolute path of a keyring, or the armoured key itself",
        )
    return value


def names_a_user(uri: str) -> bool:
    """Whether a URI has a user or a password in it (RFC 3986, 3.2.1)."""
    return "@" in uri.partition("//")[2].partition("/")[0]


def targets(answer: str) -> tuple[Target, ...]:
    """The index files in the output of INDEXTARGETS."""
    # Not splitlines(): an archive's name may have what Python takes as a line end, and forge a line of another
    # archive.
    lines = (line.split("|") for line in answer.split("\n"))
    return tuple(Target(*parts) for parts in lines if len(parts) == len(fields(Target)))


def verified_images(known: Iterable[Target]) -> tuple[Target, ...]:
    """The indexes of images whose InRelease apt has verified."""
    return tuple(target for target in known if target.created_by == "Images" and target.trusted == "yes")


def archives(known: Iterable[Target]) -> tuple[Target, ...]:
    """One index of each archive of images that apt has verified: of images, or of the keyring package's source.

    So an archive is known before its first image is published, and after its last one was withdrawn.
    """
    found = {
        (target.uri, target.codename): target
        for target in known
        if target.trusted == "yes"
        and (target.created_by == "Images" or target.entry.rpartition(":")[0].endswith(names.ARCHIVE_SOURCES))
    }
    return (*found.values(),)


def unknown(known: Iterable[Target], what: str, *, installed: bool, status: int = USAGE) -> Error:
    """The Error that apt has no index of images; with `installed`, the archive's keyring package is installed."""
    if there := sorted({target.uri for target in archives(known)}):
        return Error(f"{what}: {', '.join(there)} publishes none", "run `apt-get update` to ask again", status)
    return Error(what, _ask(installed=installed), status)


_READ: Final = ", then run `apt-get update`; or create an archive of your own: debian-cloud-archive init DIR --own"


def _ask(*, installed: bool, otherwise: str = _READ) -> str:
    if installed:
        return f"run `apt-get update`: {names.KEYRING_PACKAGE} is installed, but apt did not read its archive yet"
    return f"install the archive's {names.KEYRING_PACKAGE} package{otherwise}"


def debian(
    known: Iterable[Target], suite: str, *, mirror: str = "", security_mirror: str = "", expired: bool = False
) -> tuple[Source, ...]:
    """Debian's sources of a suite, on the given mirrors, or else on those that the machine's own apt uses."""
    known = [target for target in known if target.created_by == "Packages" and target.origin == "Debian"]

    def used(label: str) -> str:
        return next((target.uri for target in known if target.label == label), "")

    uri = mirror or used("Debian")
    if not uri:
        raise Error(
            "this machine's apt knows no Debian mirror", "run `apt-get update` first, or give --mirror URL", USAGE
        )
    key = names.DEBIAN_KEYRING
    if suite in WITHOUT_SECURITY:
        return (Source(uri, (suite,), key, COMPONENTS, expired),)
    security = security_mirror or used("Debian-Security")
    if not security:
        raise Error(
            f"no mirror of {suite}'s security updates is known, and an image needs them",
            "add Debian's security suite to this machine's apt, or give --security-mirror URL",
            USAGE,
        )
    return (
        Source(uri, (suite, f"{suite}-updates"), key, COMPONENTS, expired),
        Source(security, (f"{suite}-security",), key, COMPONENTS, expired),
    )


def archive(
    known: Iterable[Target], suite: str, *, url: str = "", keyring: str = "", installed: bool = False
) -> Source:
    """The archive of configurations: the one given, or else the one whose keyring package is installed.

    It is used even for a suite that the machine does not follow. With `installed`, the package is installed.
    """
    if url and not keyring:
        raise Error("--archive needs --keyring", "--keyring FILE: the key that signs the archive's InRelease", USAGE)
    if not url:
        read = archives(known)
        uris = sorted({target.uri for target in read if target.codename == suite} or {target.uri for target in read})
        if len(uris) > 1:
            raise Error(
                f"this machine's apt knows several archives of image configurations: {', '.join(uris)}",
                "choose one with --archive URL --keyring FILE",
                USAGE,
            )
        if not uris:
            raise Error(
                f"this machine's apt knows no archive of image configurations for {suite}",
                _ask(
                    installed=installed,
                    otherwise=", give --archive URL --keyring FILE,"
                    " or create one: debian-cloud-archive init DIR --own",
                ),
                USAGE,
            )
        url = uris[0]
    return Source(url, (suite,), keyring or names.ARCHIVE_KEYRING, ARCHIVE_COMPONENTS)


def as_deb822(sources: Iterable[Source], types: str = "deb") -> str:
    """The text of a .sources file (sources.list(5), DEB822-STYLE FORMAT)."""
    return "\n".join(
        deb822.render(
            (
                ("Types", types),
                ("URIs", source.uri),
                ("Suites", " ".join(source.suites)),
                ("Components", " ".join(source.components)),
                ("Signed-By", source.signed_by),
                *((("Check-Valid-Until", "no"),) if source.expired else ()),
            )
        )
        for source in sources
    )


BINARY_CACHE: Final = "pkgcache.bin"
"""Name of apt's binary cache in the directory `cache` of a private apt. With srcpkgcache.bin it would be there twice,
since a private apt has no installed packages."""


def apt_conf(root: Path, architecture: str) -> str:
    """Configuration of a private apt below `root`.

    It is read after the machine's own configuration (`apt-get -c`), so that the machine's network settings apply, and
    it reverts all settings there that weaken verification.
    """
    return f"""\
Dir::State "{root}/state";
Dir::State::lists "{root}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{root}/cache";
Dir::Cache::pkgcache "{BINARY_CACHE}";
Dir::Cache::srcpkgcache "";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{root}/sources.list.d";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::Trusted "/dev/null";
Dir::Etc::TrustedParts "/dev/null";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::List-Cleanup "true";
#clear APT::Hashes;
#clear Acquire::Min-ValidTime;
#clear Acquire::Max-ValidTime;
#clear Acquire::Max-FutureTime;
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
#clear Acquire::AllowReleaseInfoChange;
Acquire::AllowReleaseInfoChange "false";
Acquire::Check-Valid-Until "true";
Acquire::Check-Date "true";
Acquire::Languages "none";
Acquire::GzipIndexes "false";
Acquire::IndexTargets::deb::Images::DefaultEnabled "false";
Acquire::IndexTargets::deb::Images-Status::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::AllowUnsizedPackages "false";
#clear Acquire::gpgv::Options;
#clear APT::Key::gpgvcommand;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


NO_PACKAGES: Final = 'Acquire::IndexTargets::deb::Packages::DefaultEnabled "false";\n'
"""Line of apt.conf(5) that makes apt fetch release files, and no package indexes."""

CONTENTS: Final = f"""\
{NO_PACKAGES}\
Acquire::IndexTargets::deb::Contents {{
    MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)";
    ShortDescription "Contents-$(ARCHITECTURE)";
    Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Contents";
    KeepCompressed "true";
    KeepCompressedAs "gz";
    Optional "true";
}};
"""
"""Lines of apt.conf(5) that make apt fetch the lists of all files, and no package indexes."""


IMAGES: Final = NO_PACKAGES + "".join(
    f"""\
Acquire::IndexTargets::deb::{name} {{
    MetaKey "$(COMPONENT)/images/{name}";
    ShortDescription "{name}";
    Description "$(RELEASE)/$(COMPONENT) {name}";
    DefaultEnabled "true";
    Optional "true";
    KeepCompressed "false";
}};
"""
    for name in ("Images", "Images-Status")
)
"""Lines of apt.conf(5) that make apt fetch an archive's indexes of images, and no package indexes."""


def update(
    root: Path, sources: Iterable[Source], architecture: str, more: str = "", *, offline: bool = False
) -> Plan:
    """A plan that creates or refreshes the private apt below `root`; it fails if any source fails.

    `more` are additional lines of apt.conf(5). With `offline`, only sources on this machine are read anew; what the
    private apt has of the others stays.
    """
    sources = tuple(sources)
    local = tuple(source.copied for source in sources if source.local)
    return (
        Write("configure apt", f"{root}/apt.conf", apt_conf(root, architecture) + more),
        Write(
            "set sources",
            f"{root}/sources.list.d/debian-cloud.sources",
            as_deb822(source.copied for source in sources),
            # A URI of the machine's own sources may contain a password.
            0o600,
        ),
        Run("make directories", ("mkdir", "-p", f"{root}/state", f"{root}/lists/partial", f"{root}/cache")),
        *((_verify(root),) if not offline else _verify_local(root, local) if local else ()),
    )


def _verify(root: Path, *options: str) -> Run:
    return Run(
        "verify package indexes",
        # Without this option, update makes apt's binary cache anew even if no index has changed.
        (
            *("apt-get", "-c", f"{root}/apt.conf", "-o", "pkgCacheFile::Generate=false", *options),
            *("-q", "--error-on=any", "update"),
        ),
    )


def _verify_local(root: Path, sources: Iterable[Source]) -> Plan:
    """The steps that read only these sources anew. The private apt's own files stay as they are without this."""
    place = f"{root}/local.list.d"
    return (
        Write("set sources on this machine", f"{place}/debian-cloud.sources", as_deb822(sources), 0o600),
        _verify(root, "-o", f"Dir::Etc::SourceParts={place}", "-o", "APT::Get::List-Cleanup=false"),
    )
