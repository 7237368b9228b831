# SPDX-License-Identifier: GPL-3.0-or-later
"""SPDX 2.3 as JSON (spdx.github.io/spdx-spec/v2.3; ISO/IEC 5962 is 2.2.1).

The image is an SPDX package that contains the packages it was made of. Each of its files is a package too, generated
from the image, because SPDX requires the SHA-1 of what it calls a file. A .buildinfo states no licences: each .deb
has its own, in its /usr/share/doc (Debian Policy 12.5), and here they are NOASSERTION.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from debian_cloud import formats
from debian_cloud.projections import identity, purl, time

if TYPE_CHECKING:
    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.projections import Document

SBOM: Final = True
SUFFIX: Final = "spdx.json"

_DOCUMENT: Final = "SPDXRef-DOCUMENT"
_IMAGE: Final = "SPDXRef-Image"


def document(buildinfo: Buildinfo) -> Document:
    """The bill of materials of one image."""
    files: list[Document] = [
        {
            **_package(f"SPDXRef-File-{_word(name)}", name, buildinfo.id.serial, "FILE"),
            "packageFileName": name,
            **_checksum(buildinfo.algorithm(name), digest),
        }
        for name, (digest, _) in sorted(buildinfo.digests.items())
    ]
    debs: list[Document] = [
        {
            # Ids have no plus sign, but names may: the digest makes ids unique.
            **_package(f"SPDXRef-{_word(p.name)}-{p.sha256[:12]}", p.name, p.version, "INSTALL"),
            "packageFileName": p.deb,
            "checksums": [{"algorithm": "SHA256", "checksumValue": p.sha256}],
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": purl(p, buildinfo.id.suite),
                }
            ],
        }
        for p in sorted(buildinfo.packages, key=lambda package: (package.name, package.architecture))
    ]
    content: Document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": buildinfo.stem,
        "creationInfo": {
            "created": time(buildinfo.epoch),
            "creators": [f"Tool: {buildinfo.builder.replace(' ', '-')}"],
        },
        "packages": [_package(_IMAGE, buildinfo.stem, buildinfo.id.serial, "OPERATING-SYSTEM"), *files, *debs],
        "relationships": [
            _relation(_DOCUMENT, "DESCRIBES", _IMAGE),
            *(_relation(file["SPDXID"], "GENERATED_FROM", _IMAGE) for file in files),
            *(_relation(_IMAGE, "CONTAINS", deb["SPDXID"]) for deb in debs),
        ],
    }
    return {**content, "documentNamespace": identity("spdx", content)}


def _package(spdx_id: str, name: str, version: str, purpose: str) -> Document:
    return {
        "SPDXID": spdx_id,
        "name": name,
        "versionInfo": version,
        "primaryPackagePurpose": purpose,
        "filesAnalyzed": False,
        "downloadLocation": "NOASSERTION",
        "supplier": "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    }


def _checksum(algorithm: formats.Algorithm, digest: str) -> Document:
    """The checksum of a file; SPDX has no name for that of blocks, so it is in the comment."""
    if algorithm == formats.SHA256:
        return {"checksums": [{"algorithm": "SHA256", "checksumValue": digest}]}
    return {"comment": f"{algorithm}: {digest}"}


def _relation(element: object, kind: str, related: object) -> Document:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)
