# SPDX-License-Identifier: GPL-3.0-or-later
"""A .buildinfo in other formats: one module for each; the directory is the registry.

A projection's module has `SBOM` (whether it is a bill of materials), `SUFFIX` (of the names of its files) and
`document(buildinfo) -> Document`. The same .buildinfo gives the same bytes: no clock, no random number, everything
sorted.

Ids are uuid5 of the content. A builder is named by its key (`openpgp4fpr:`), not by a web address.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import quote

from debian_cloud.errors import USAGE, Error, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.resolution import Package

Document = dict[str, object]
"""A document, to be written as JSON."""

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "debian-cloud")
"""The namespace of the ids of documents (RFC 9562, 5.5)."""


class Projection(Protocol):
    """The interface of a projection's module."""

    SBOM: bool
    SUFFIX: str

    def document(self, buildinfo: Buildinfo) -> Document:
        """The complete document about one image."""


def names() -> tuple[str, ...]:
    """The names of all projections, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find(name: str) -> Projection:
    """The module of one projection; Error suggests another name if this one is unknown."""
    if name not in names():
        raise Error(f"unknown projection {name}", did_you_mean(name, names()), USAGE)
    return cast("Projection", importlib.import_module(f"{__name__}.{name}"))


def text(document: Mapping[str, object]) -> str:
    """A document as JSON (RFC 8259)."""
    return json.dumps(document, indent=2) + "\n"


def purl(package: Package, suite: str) -> str:
    """A package's URL (package-url/purl-spec, and its type deb)."""
    # The specification leaves colons as they are, and encodes the plus sign.
    name, version = quote(package.name, safe=""), quote(package.version, safe=":")
    return f"pkg:deb/debian/{name}@{version}?arch={package.architecture}&distro={quote(suite, safe='')}"


def identity(kind: str, document: Mapping[str, object]) -> str:
    """The URN of a document, different for each kind and content (RFC 9562, 4)."""
    return uuid.uuid5(_NAMESPACE, f"{kind}/{json.dumps(document, sort_keys=True)}").urn


def time(epoch: int) -> str:
    """Seconds since 1970 as a date and time of RFC 3339, in UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
