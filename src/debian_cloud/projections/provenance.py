# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements about how an image was made: in-toto, unsigned (in-toto/attestation, spec/v1).

`built` is the builder's statement: SLSA provenance (slsa.dev/spec/v1.0/provenance). `rebuilt` is the statement of a
rebuilder who made the same bytes again from the .buildinfo: a link of the step `rebuild`, as rebuilderd writes
(in-toto/attestation, spec/predicates/link). The signature, which is made elsewhere, shows whose statement it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from debian_cloud.errors import Error
from debian_cloud.formats import BLOCKS, SHA256
from debian_cloud.projections import purl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.projections import Document

    Digests = Mapping[str, Mapping[str, str]]
    """File name -> algorithm (`sha256`, `sha512`) -> hexadecimal digest."""

SBOM: Final = False
SUFFIX: Final = "intoto.json"

STATEMENT: Final = "https://in-toto.io/Statement/v1"
BUILT: Final = "https://slsa.dev/provenance/v1"
REBUILT: Final = "https://in-toto.io/attestation/link/v0.3"

# SLSA requires a URI that says how externalParameters are to be read. It is not a web page, but always the uuid5 of
# "debian-cloud build, 1" in the project's namespace.
BUILD_TYPE: Final = "urn:uuid:e40e407d-0c71-50d6-83b6-0f68c03561ef"
_STEP: Final = "rebuild"

_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.~_-]{0,254}")
_HEX: Final = {name: re.compile(f"[0-9a-f]{{{n}}}") for name, n in ((SHA256, 64), (BLOCKS, 64), ("sha512", 128))}


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of either kind: `kind` is BUILT or REBUILT, `subjects` are its files."""

    kind: str
    subjects: Digests


def document(buildinfo: Buildinfo) -> Document:
    """The builder's statement from only the .buildinfo: no SHA-512, no key."""
    return built(buildinfo, digests(buildinfo))


def built(buildinfo: Buildinfo, subjects: Digests, signer: str = "", byproducts: Digests | None = None) -> Document:
    """The builder's statement that it made these files; `signer` is the fingerprint of its key.

    `byproducts` are the other files that the build wrote, mainly the .buildinfo.
    """
    tool, _, version = buildinfo.builder.partition(" ")
    return _statement(
        BUILT,
        buildinfo,
        subjects,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "config": buildinfo.id.config,
                    "configVersion": buildinfo.config_version,
                    "suite": buildinfo.id.suite,
                    "architecture": buildinfo.id.architecture,
                    "serial": buildinfo.id.serial,
                    "formats": sorted(buildinfo.formats),
                    **({"changes": list(buildinfo.changes)} if buildinfo.changes else {}),
                },
                "internalParameters": {"plan": buildinfo.plan, "SOURCE_DATE_EPOCH": str(buildinfo.epoch)},
                "resolvedDependencies": _materials(buildinfo),
            },
            "runDetails": {
                # A key is trusted here, not a web address.
                "builder": {
                    "id": f"openpgp4fpr:{signer}" if signer else f"pkg:deb/debian/{tool}@{quote(version)}",
                    "version": {tool: version},
                },
                # No startedOn and finishedOn: the result depends on the inputs, not on the time.
                "metadata": {"invocationId": buildinfo.stem},
                "byproducts": _resources(byproducts or {}),
            },
        },
    )


def rebuilt(buildinfo: Buildinfo, subjects: Digests, itself: Digests) -> Document:
    """A rebuilder's statement that it made `subjects` again from the .buildinfo whose digests are `itself`."""
    return _statement(
        REBUILT,
        buildinfo,
        subjects,
        {
            "name": _STEP,
            "command": ["debian-cloud", "rebuild", *sorted(itself)],
            "materials": [*_resources(itself), *_materials(buildinfo)],
            "byproducts": {"return-value": 0},
            "environment": {"SOURCE_DATE_EPOCH": str(buildinfo.epoch)},
        },
    )


def parse(text: str, name: str) -> Statement:
    """Parse a statement of either kind; Error if it is not one. `name` is the file's.

    Its signature must be verified first.
    """
    try:
        said = json.loads(text, object_pairs_hook=_once)
        kind = said["predicateType"]
        if said["_type"] != STATEMENT or kind not in (BUILT, REBUILT):
            raise ValueError(kind)
        if kind == REBUILT and said["predicate"]["name"] != _STEP:
            raise ValueError(said["predicate"]["name"])
        subjects = {subject["name"]: dict(subject["digest"]) for subject in said["subject"]}
        if not subjects or len(subjects) != len(said["subject"]) or not all(map(_FILE.fullmatch, subjects)):
            raise ValueError("subject")
        for digests in subjects.values():
            if not {SHA256, BLOCKS} & {*digests} or not all(_HEX[a].fullmatch(digests[a]) for a in digests):
                raise ValueError(digests)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Error(
            f"{name} is not a statement about an image",
            "give an in-toto statement of a build or a rebuild, with the SHA-256 of each file",
        ) from None
    return Statement(kind, subjects)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; ValueError if a name is repeated: some readers take its first value, and others the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(pairs[0][0])
    return found


def _statement(kind: str, buildinfo: Buildinfo, subjects: Digests, predicate: Document) -> Document:
    """A statement about files; Error if one of them is not a file that the .buildinfo describes."""
    for name, digests in subjects.items():
        if name not in buildinfo.digests or digests.get(buildinfo.algorithm(name)) != buildinfo.digests[name][0]:
            raise Error(f"{name} is not the file that the .buildinfo of {buildinfo.stem} describes", "build it again")
    return {"_type": STATEMENT, "subject": _resources(subjects), "predicateType": kind, "predicate": predicate}


def digests(buildinfo: Buildinfo) -> Digests:
    """The digest of each file that the .buildinfo describes."""
    return {name: {buildinfo.algorithm(name): digest} for name, (digest, _) in buildinfo.digests.items()}


def _materials(buildinfo: Buildinfo) -> list[Document]:
    """The image's packages, the packages that made it, and the signed release files that list them."""
    both = (*buildinfo.packages, *buildinfo.tools)
    packages = sorted(both, key=lambda package: (package.name, package.architecture))
    debs: list[Document] = [
        {"uri": purl(package, buildinfo.id.suite), "digest": {"sha256": package.sha256}} for package in packages
    ]
    lists: list[Document] = [
        {
            "name": f"release file of {release.suite}",
            "uri": f"{release.uri.rstrip('/')}/dists/{release.suite}/",
            "digest": {"sha256": release.sha256},
            "annotations": {"signers": list(release.signers)},
        }
        for release in sorted(buildinfo.releases, key=lambda release: (release.uri, release.suite))
    ]
    return debs + lists


def _resources(digests: Digests) -> list[Document]:
    return [{"name": name, "digest": dict(sorted(digests[name].items()))} for name in sorted(digests)]
