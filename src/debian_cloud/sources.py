# SPDX-License-Identifier: GPL-3.0-or-later
"""Where packages come from: apt sources, and a private apt that trusts nothing else."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

from . import deb822, names
from .errors import USAGE, Error
from .plan import Plan, Run, Write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

INDEXTARGETS: Final = (
    "apt-get", "indextargets", "--format",
    "$(CREATED_BY)|$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)|$(FILENAME)|$(TRUSTED)",
)  # fmt: skip
"""What to ask the machine's own apt; `Target` reads a line of the answer (apt-get(8), indextargets)."""

COMPONENTS: Final = ("main", "non-free-firmware")
"""What of Debian is read; an image takes from main alone, unless its Image-Components say more."""
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


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of sources.list(5), with the only keyring that may sign it.

    `expired`: its indexes are taken even when their Valid-Until has passed.
    """

    uri: str
    suites: tuple[str, ...]
    signed_by: str
    components: tuple[str, ...] = ("main",)
    expired: bool = False

    @property
    def copied(self) -> Source:
        """The same, with nothing read in place, where it could change after it was verified (apt-transport-file)."""
        return replace(self, uri=f"copy:{self.uri[5:]}") if self.uri.startswith("file:") else self


def names_a_user(uri: str) -> bool:
    """Whether a URI has a user or a password in it (RFC 3986, 3.2.1)."""
    return "@" in uri.partition("//")[2].partition("/")[0]


def targets(answer: str) -> tuple[Target, ...]:
    """The index files in the answer to INDEXTARGETS."""
    # Not splitlines: an archive's name may have what ends a line to Python, and then a line of another archive's.
    lines = (line.split("|") for line in answer.split("\n"))
    return tuple(Target(*parts) for parts in lines if len(parts) == len(fields(Target)))


def verified_images(known: Iterable[Target]) -> tuple[Target, ...]:
    """The indexes of images whose InRelease apt has verified."""
    return tuple(target for target in known if target.created_by == "Images" and target.trusted == "yes")


def debian(
    known: Iterable[Target], suite: str, *, mirror: str = "", security_mirror: str = "", expired: bool = False
) -> tuple[Source, ...]:
    """Debian's sources of a suite: by the mirrors given, else by those the machine's own apt uses."""
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
            f"no mirror of {suite}'s security updates is known, and an image without them is not made",
            "add Debian's security suite to this machine's apt, or give --security-mirror URL",
            USAGE,
        )
    return (
        Source(uri, (suite, f"{suite}-updates"), key, COMPONENTS, expired),
        Source(security, (f"{suite}-security",), key, COMPONENTS, expired),
    )


def archive(known: Iterable[Target], suite: str, *, url: str = "", keyring: str = "") -> Source:
    """The archive of configurations: the one given, else the one whose keyring package is installed."""
    if url and not keyring:
        raise Error("--archive needs --keyring", "--keyring FILE: the key that signs the archive's InRelease", USAGE)
    if not url:
        uris = sorted({target.uri for target in verified_images(known) if target.codename == suite})
        if len(uris) > 1:
            raise Error(
                f"this machine's apt knows several archives of image configurations: {', '.join(uris)}",
                "choose one with --archive URL --keyring FILE",
                USAGE,
            )
        if not uris:
            raise Error(
                f"this machine's apt knows no archive of image configurations for {suite}",
                "install the archive's debian-cloud-archive-keyring package, or give --archive URL --keyring FILE",
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


def as_lines(sources: Iterable[Source]) -> str:
    """The same in one-line style, as mmdebstrap(1) takes it."""

    def line(source: Source, suite: str) -> str:
        expired = " check-valid-until=no" if source.expired else ""
        # In this style apt decodes what is quoted by "%" once more.
        uri = source.uri.replace("%", "%25")
        return f"deb [signed-by={source.signed_by}{expired}] {uri} {suite} {' '.join(source.components)}\n"

    return "".join(line(source, suite) for source in sources for suite in source.suites)


def apt_conf(root: Path, architecture: str) -> str:
    """Configuration of a private apt below `root`.

    It is read after the machine's own (`apt-get -c`), so that its way to the
    network holds, and takes back whatever loosens verification there.
    """
    return f"""\
Dir::State "{root}/state";
Dir::State::lists "{root}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{root}/cache";
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
"""A line of apt.conf(5) by which an apt fetches release files, and no packages' indexes."""

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
"""Lines of apt.conf(5) by which an apt fetches the lists of all files, and no packages' indexes."""


def update(root: Path, sources: Iterable[Source], architecture: str, more: str = "") -> Plan:
    """Make or refresh the private apt below `root`; any failure of any source fails it.

    `more` are lines of apt.conf(5) besides.
    """
    return (
        Write("configure apt", f"{root}/apt.conf", apt_conf(root, architecture) + more),
        Write(
            "set sources",
            f"{root}/sources.list.d/debian-cloud.sources",
            as_deb822(source.copied for source in sources),
            # The machine's own sources may have a password.
            0o600,
        ),
        Run("make folders", ("mkdir", "-p", f"{root}/state", f"{root}/lists/partial", f"{root}/cache")),
        Run(
            "verify package indexes",
            ("apt-get", "-c", f"{root}/apt.conf", "-q", "--error-on=any", "update"),
        ),
    )
