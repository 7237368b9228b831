# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a mirror: the sources, the suites, and what must be carried."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.mirror.selection import EVERYTHING
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from debian_cloud.mirror.selection import Selection

TIMEOUT: Final = 60
"""Default of `Request.timeout`, in seconds."""
_SOURCE: Final = re.compile(r"(?P<scheme>rsync|https?)://(?P<host>[^/]+)(?P<path>/.*)?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9:/@._~%+,=\[\]-]*")
_LEADS_UP: Final = re.compile(r"/\.\.?(/|$)|[^:]//")
_WORD: Final = re.compile(r"[A-Za-z0-9_+~][A-Za-z0-9._+~-]{0,99}")


@dataclass(frozen=True, slots=True)
class Source:
    """The tree to mirror: `url` has no slash at its end.

    For rsync, `module` is the module's address, and `below` the tree's path in it.
    """

    url: str
    scheme: str
    module: str = ""
    below: str = ""

    @property
    def host(self) -> str:
        """The host and port, without user and password."""
        return self.url.split("/", 3)[2].rpartition("@")[2]

    @property
    def shown(self) -> str:
        """The address without its password, for a message or a trace."""
        return re.sub("//([^/:@]*):[^/@]*@", r"//\1@", self.url)


@dataclass(frozen=True, slots=True)
class Request:
    """A run: `sources` are tried in their order; `timeout` is in seconds, `bandwidth` in KiB per second.

    A `bandwidth` of 0 is no limit. `removals` is the greatest number of files that may be removed; -1 is any number.
    With `dry_run`, the run ends when it knows what it would fetch; with `wait`, it begins when another one has ended.
    """

    sources: tuple[Source, ...]
    dest: Path
    keyring: Path
    suites: tuple[str, ...]
    signers: int = 1
    selection: Selection = EVERYTHING
    closures: bool = False
    dry_run: bool = False
    wait: bool = False
    verify_all: bool = False
    timeout: int = TIMEOUT
    bandwidth: int = 0
    removals: int = -1


def source(text: str) -> Source:
    """Parse the address of a source; Error if it is none, or could lead out of the tree."""
    match = _SOURCE.fullmatch(text)
    if not match:
        raise _no_source(text)
    if not _PLAIN.fullmatch(text) or _LEADS_UP.search(text.rstrip("/")):
        raise Error(f"the source has invalid characters or parts: {printable(text)}", "give its plain address", USAGE)
    url, scheme = text.rstrip("/"), match["scheme"]
    if scheme != "rsync":
        return Source(url, scheme)
    module, _, below = (match["path"] or "").strip("/").partition("/")
    if not module:
        raise _no_source(text)
    return Source(url, scheme, f"rsync://{match['host']}/{module}", below)


def suite(text: str) -> str:
    """Return the name of a suite; Error if it may not be a part of a path."""
    if not _WORD.fullmatch(text):
        raise Error(f"{printable(repr(text))} is not the name of a suite", "for example: --suite trixie", USAGE)
    return text


def words(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return the values of a repeatable option, each once; Error if one cannot be in an index."""
    for text in given:
        if not _WORD.fullmatch(text):
            what = printable(repr(text))
            raise Error(f"{what} is not a value of {option}", "debian-cloud list --images shows the images", USAGE)
    return tuple(dict.fromkeys(given))


def _no_source(text: str) -> Error:
    return Error(
        f"{printable(repr(text))} is not a source", "give rsync://host/module/path or http://host/path", USAGE
    )
