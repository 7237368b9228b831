# SPDX-License-Identifier: GPL-3.0-or-later
"""CycloneDX 1.6 as JSON (ECMA-424; cyclonedx.org/docs/1.6/json).

The image is the document's subject and contains its files; the document's components are the packages. The document
states that the list is complete. A .buildinfo states no licences, and unknown values have no field here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud import formats
from debian_cloud.projections import identity, purl, time

if TYPE_CHECKING:
    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.projections import Document

SBOM: Final = True
SUFFIX: Final = "cdx.json"


def document(buildinfo: Buildinfo) -> Document:
    """The bill of materials of one image."""
    components: list[Document] = []
    for package in sorted(buildinfo.packages, key=lambda package: (package.name, package.architecture)):
        url = purl(package, buildinfo.id.suite)
        components.append(
            {
                "type": "library",
                "bom-ref": url,
                "name": package.name,
                "version": package.version,
                "hashes": [{"alg": "SHA-256", "content": package.sha256}],
                "purl": url,
            }
        )
    tool, _, version = buildinfo.builder.partition(" ")
    image: Document = {
        "type": "operating-system",
        "bom-ref": buildinfo.stem,
        "name": buildinfo.stem,
        "version": buildinfo.id.serial,
        "components": [
            {"type": "file", "bom-ref": name, "name": name} | _hashes(buildinfo.algorithm(name), digest)
            for name, (digest, _) in sorted(buildinfo.digests.items())
        ],
    }
    content: Document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time(buildinfo.epoch),
            "tools": {"components": [{"type": "application", "name": tool, "version": version}]},
            "component": image,
        },
        "components": components,
        "dependencies": [{"ref": buildinfo.stem, "dependsOn": [component["bom-ref"] for component in components]}],
        "compositions": [{"aggregate": "complete", "assemblies": [buildinfo.stem]}],
    }
    return {**content, "serialNumber": identity("cyclonedx", content)}


def _hashes(algorithm: formats.Algorithm, digest: str) -> Document:
    """The hash of a file; CycloneDX has no name for that of blocks, so it is a property."""
    if algorithm == formats.SHA256:
        return {"hashes": [{"alg": "SHA-256", "content": digest}]}
    return {"properties": [{"name": f"debian-cloud:{algorithm}", "value": digest}]}
