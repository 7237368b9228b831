# SPDX-License-Identifier: GPL-3.0-or-later
"""Bills of materials and statements, read by the reference implementations of their formats."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion  # type: ignore[import]
from cyclonedx.validation.json import JsonStrictValidator  # type: ignore[import]
from google.protobuf import json_format  # type: ignore[import]
from in_toto_attestation.predicates.link.v0 import link_pb2  # type: ignore[import]
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2  # type: ignore[import]
from in_toto_attestation.v1 import statement_pb2  # type: ignore[import]
from in_toto_attestation.v1.statement import Statement  # type: ignore[import]
from packageurl import PackageURL  # type: ignore[import]
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser  # type: ignore[import]
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document  # type: ignore[import]

from debian_cloud import projections
from debian_cloud.errors import Error
from debian_cloud.image.buildinfo import Buildinfo
from debian_cloud.image.resolution import Package
from debian_cloud.projections import provenance
from debian_cloud.text import openpgp
from tests.command import debian_cloud, refused
from tests.samples import described

PACKAGES = (
    Package("zlib1g", "1:1.3.dfsg+really1.3.1-1+b1", "amd64", 88, "1" * 64),
    Package("libstdc++6", "14.2.0-19", "amd64", 700000, "2" * 64),
    # Differs from the one above only in characters that an id of SPDX cannot contain.
    Package("libstdc-.6", "14.2.0-19~bpo12+1", "all", 700000, "3" * 64),
)
LOCK = replace(Buildinfo.parse(described(), "x.buildinfo"), packages=PACKAGES)
STEM = "debian-13-ec2-amd64-20261121.0"
SUBJECTS = {f"{STEM}.qcow2": {"sha256": "a" * 64, "sha512": "b" * 128}, f"{STEM}.raw": {"sha256-blocks": "a" * 64}}
BUILDINFO = {f"{STEM}.buildinfo": {"sha256": "c" * 64}}
SIGNER = "D" * 40

Json = dict[str, Any]


def projected(name: str, of: Buildinfo = LOCK) -> Json:
    found: Json = json.loads(projections.text(projections.find(name).document(of)))
    return found


def spdx_findings(document: Json) -> list[str]:
    parsed = JsonLikeDictParser().parse(document)
    return [message.validation_message for message in validate_full_spdx_document(parsed)]


def cyclonedx_findings(document: Json) -> object:
    found: object = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    return found


@pytest.mark.parametrize("name", projections.names())
def test_the_same_data_give_the_same_bytes_in_whatever_order_they_come(name: str) -> None:
    document = projections.find(name).document
    turned = replace(
        LOCK, packages=LOCK.packages[::-1], digests=dict(reversed(LOCK.digests.items())), releases=LOCK.releases[::-1]
    )
    assert projections.text(document(LOCK)) == projections.text(document(turned))


@pytest.mark.parametrize("name", projections.names())
def test_nothing_but_the_format_s_own_names_and_the_data_s_has_a_host(name: str) -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", projections.text(projections.find(name).document(LOCK))))
    assert hosts <= {"in-toto.io", "slsa.dev", "debian.example"}


def test_the_suffixes_are_told_apart() -> None:
    assert projections.names() == ("cyclonedx", "provenance", "spdx")
    assert [projections.find(name).SUFFIX for name in projections.names()] == [
        "cdx.json",
        "intoto.json",
        "spdx.json",
    ]
    with pytest.raises(Error, match="unknown projection spd"):
        projections.find("spd")


def test_spdx_is_valid_and_says_it_all() -> None:
    document = projected("spdx")
    assert spdx_findings(document) == []
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["creationInfo"]["created"] == "2026-11-21T01:36:07Z"
    assert document["documentNamespace"].startswith("urn:uuid:")
    packages = {package["SPDXID"]: package for package in document["packages"]}
    assert len(packages) == len(document["packages"]) == 1 + 2 + 3
    relations = [
        (r["spdxElementId"], r["relationshipType"], packages[r["relatedSpdxElement"]]["name"])
        for r in document["relationships"]
    ]
    assert [name for a, kind, name in relations if (a, kind) == ("SPDXRef-DOCUMENT", "DESCRIBES")] == [STEM]
    contained = sorted(name for _, kind, name in relations if kind == "CONTAINS")
    assert contained == ["libstdc++6", "libstdc-.6", "zlib1g"]
    (zlib,) = [package for package in packages.values() if package["name"] == "zlib1g"]
    assert zlib["checksums"] == [{"algorithm": "SHA256", "checksumValue": "1" * 64}]
    assert zlib["versionInfo"] == "1:1.3.dfsg+really1.3.1-1+b1"
    (disk,) = [package for package in packages.values() if package["name"] == f"{STEM}.qcow2"]
    assert disk["checksums"] == [{"algorithm": "SHA256", "checksumValue": "a" * 64}]
    (disk,) = [package for package in packages.values() if package["name"] == f"{STEM}.raw"]
    assert "checksums" not in disk
    assert disk["comment"] == f"sha256-blocks: {'a' * 64}"


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(documentNamespace="no uri"),
        lambda d: d["packages"][3].update(SPDXID="SPDXRef-libstdc++6"),
        lambda d: d["packages"][3]["checksums"][0].update(checksumValue="1"),
        lambda d: d["relationships"].clear(),
    ],
)
def test_the_reader_of_spdx_finds_damage(damage: Callable[[Json], None]) -> None:
    document = projected("spdx")
    damage(document)
    assert spdx_findings(document)


def test_cyclonedx_is_valid_and_says_it_all() -> None:
    document = projected("cyclonedx")
    assert cyclonedx_findings(document) is None
    assert document["specVersion"] == "1.6"
    assert document["metadata"]["timestamp"] == "2026-11-21T01:36:07Z"
    assert document["serialNumber"].startswith("urn:uuid:")
    components = {component["name"]: component for component in document["components"]}
    assert [*components] == ["libstdc++6", "libstdc-.6", "zlib1g"]
    assert components["zlib1g"]["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    image = document["metadata"]["component"]
    qcow2, raw = image["components"]
    assert (qcow2["name"], qcow2["hashes"]) == (f"{STEM}.qcow2", [{"alg": "SHA-256", "content": "a" * 64}])
    assert (raw["name"], raw["properties"]) == (
        f"{STEM}.raw",
        [{"name": "debian-cloud:sha256-blocks", "value": "a" * 64}],
    )
    assert "hashes" not in raw
    references = [component["bom-ref"] for component in components.values()]
    assert document["dependencies"] == [{"ref": image["bom-ref"], "dependsOn": references}]
    assert len({*references, image["bom-ref"]}) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(serialNumber="urn:uuid:1"),
        lambda d: d["components"][0].update(type="deb"),
        lambda d: d["components"][0]["hashes"][0].update(content="1"),
        lambda d: d.update(serial="1"),
    ],
)
def test_the_reader_of_cyclonedx_finds_damage(damage: Callable[[Json], None]) -> None:
    document = projected("cyclonedx")
    damage(document)
    assert cyclonedx_findings(document) is not None


def test_other_data_make_another_document() -> None:
    other = replace(LOCK, packages=(replace(PACKAGES[0], sha256="4" * 64), *PACKAGES[1:]))
    ids = [
        *(projected("spdx", of)["documentNamespace"] for of in (LOCK, other)),
        *(projected("cyclonedx", of)["serialNumber"] for of in (LOCK, other)),
    ]
    assert len(set(ids)) == 4
    assert all(uuid.UUID(urn.removeprefix("urn:uuid:")).version == 5 for urn in ids)


@pytest.mark.parametrize("package", PACKAGES, ids=[package.name for package in PACKAGES])
def test_a_package_s_url_is_the_one_of_the_specification(package: Package) -> None:
    url = projections.purl(package, "trixie")
    read = PackageURL.from_string(url)
    assert (read.type, read.namespace, read.name) == ("deb", "debian", package.name)
    assert read.version == package.version
    assert read.qualifiers == {"arch": package.architecture, "distro": "trixie"}
    assert read.to_string() == url


def in_toto(document: Json) -> Any:
    """The statement as protobuf; a field that the specification does not have is an error."""
    statement = json_format.ParseDict(document, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    return statement


def test_the_builder_s_statement_is_slsa_provenance() -> None:
    document = json.loads(projections.text(provenance.built(LOCK, SUBJECTS, SIGNER, BUILDINFO)))
    assert in_toto(document).predicate_type == "https://slsa.dev/provenance/v1"
    predicate = json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
    definition = predicate.build_definition
    assert json_format.MessageToDict(definition.external_parameters) == {
        "config": "ec2",
        "configVersion": LOCK.config_version,
        "suite": "trixie",
        "architecture": "amd64",
        "serial": "20261121.0",
        "formats": ["qcow2", "raw"],
    }
    assert definition.internal_parameters["plan"] == "1" * 64
    found = {dependency.uri: dependency.digest["sha256"] for dependency in definition.resolved_dependencies}
    assert found == {
        **{projections.purl(package, "trixie"): package.sha256 for package in (*PACKAGES, *LOCK.tools)},
        "http://debian.example/debian/dists/trixie/": "e" * 64,
    }
    assert definition.build_type == f"urn:uuid:{uuid.uuid5(projections._NAMESPACE, 'debian-cloud build, 1')}"
    assert predicate.run_details.builder.id == f"openpgp4fpr:{SIGNER}"
    assert [item.name for item in predicate.run_details.byproducts] == [f"{STEM}.buildinfo"]


def test_what_a_person_changed_is_an_external_parameter() -> None:
    document: Any = provenance.built(replace(LOCK, changes=("add vim",)), SUBJECTS)
    assert document["predicate"]["buildDefinition"]["externalParameters"]["changes"] == ["add vim"]


def test_a_rebuilder_s_statement_is_a_link_of_the_step_rebuild() -> None:
    document = json.loads(projections.text(provenance.rebuilt(LOCK, SUBJECTS, BUILDINFO)))
    assert in_toto(document).predicate_type == "https://in-toto.io/attestation/link/v0.3"
    link = json_format.ParseDict(document["predicate"], link_pb2.Link())
    assert link.name == "rebuild"
    assert (link.materials[0].name, link.materials[0].digest["sha256"]) == (f"{STEM}.buildinfo", "c" * 64)
    assert len(link.materials) == 1 + 3 + len(LOCK.tools) + 1


def test_a_field_that_is_not_in_toto_s_is_found() -> None:
    document: Json = dict(provenance.rebuilt(LOCK, SUBJECTS, BUILDINFO))
    document["predicate"] = {**document["predicate"], "stepName": "x"}
    with pytest.raises(json_format.ParseError, match="stepName"):
        json_format.ParseDict(document["predicate"], link_pb2.Link())


@pytest.mark.parametrize(
    "subjects",
    [
        {f"{STEM}.qcow2": {"sha256": "0" * 64}},
        {f"{STEM}.qcow2": {"sha512": "b" * 128}},
        {f"{STEM}.raw": {"sha256": "a" * 64}},
        {f"{STEM}.iso": {"sha256": "a" * 64}},
    ],
)
def test_a_statement_is_about_the_buildinfo_s_files_alone(subjects: provenance.Digests) -> None:
    with pytest.raises(Error, match="is not the file that the"):
        provenance.built(LOCK, subjects)
    with pytest.raises(Error, match="is not the file that the"):
        provenance.rebuilt(LOCK, subjects, BUILDINFO)


def test_a_statement_is_read_back() -> None:
    for document, kind in (
        (provenance.built(LOCK, SUBJECTS, SIGNER), provenance.BUILT),
        (provenance.rebuilt(LOCK, SUBJECTS, BUILDINFO), provenance.REBUILT),
    ):
        assert provenance.parse(projections.text(document), "x") == provenance.Statement(kind, SUBJECTS)


def _without_sha256(document: Json) -> None:
    del document["subject"][0]["digest"]["sha256"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda d: d.update(predicateType="https://slsa.dev/provenance/v0.2"),
        lambda d: d["predicate"].update(name="build"),
        lambda d: d.update(subject=[]),
        lambda d: d.update(subject=7),
        lambda d: d["subject"].append(d["subject"][0]),
        lambda d: d["subject"][0]["digest"].update(sha256="A" * 64),
        lambda d: d["subject"][0]["digest"].update(md5="a" * 32),
        _without_sha256,
        lambda d: d.pop("predicate"),
    ],
)
def test_what_is_no_such_statement_is_refused(damage: Callable[[Json], None]) -> None:
    document: Json = json.loads(projections.text(provenance.rebuilt(LOCK, SUBJECTS, BUILDINFO)))
    damage(document)
    with pytest.raises(Error, match=r"x\.json is not a statement about an image"):
        provenance.parse(json.dumps(document), "x.json")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"_type"', '"subject": [], "_type"'),
        ('"sha256"', f'"sha256": "{"0" * 64}", "sha256"'),
        ('"name": "', '"name": "../'),
        ('"name": "', '"name": "\\u001b[2J'),
        ('"name": "debian-13', '"name": 7, "x": "debian-13'),
    ],
)
def test_what_two_readers_may_read_in_two_ways_is_no_statement(old: str, new: str) -> None:
    text = projections.text(projections.find("provenance").document(Buildinfo.parse(described(), "x")))
    assert provenance.parse(text, "x.json").kind == provenance.BUILT
    with pytest.raises(Error, match="not a statement about an image"):
        provenance.parse(text.replace(old, new, 1), "x.json")


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "[" * 100000])
def test_what_is_no_json_is_no_statement(text: str) -> None:
    with pytest.raises(Error, match="not a statement about an image"):
        provenance.parse(text, "x.json")


@pytest.mark.parametrize("name", ["spdx", "cyclonedx"])
def test_the_verb_prints_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{STEM}.buildinfo"
    path.write_text(described())
    done = debian_cloud("sbom", path, "--format", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == projections.text(projections.find(name).document(Buildinfo.parse(described(), "x")))


@pytest.mark.parametrize("suffix", ["qcow2", "raw", "image", "tar.xz"])
def test_the_verb_finds_the_buildinfo_beside_the_image(tmp_path: Path, suffix: str) -> None:
    image = tmp_path / f"{STEM}.{suffix}"
    image.write_bytes(b"\xff")
    refused(debian_cloud("sbom", image), 2, f"{image} has no .buildinfo beside it", "hint")
    (tmp_path / "other.buildinfo").write_text("")
    (tmp_path / f"{STEM}.buildinfo").write_text(described())
    done = debian_cloud("sbom", image)
    assert done.returncode == 0, done.stderr
    assert done.stdout == projections.text(projections.find("spdx").document(Buildinfo.parse(described(), "x")))


def document_of(text: str) -> bytes:
    """A text with a signature by an unknown key; the signature is not verified here."""
    packet = b"\xc2\x0c\x04\x01\x16\x08" + bytes(8)
    return openpgp.Cleartext(text.removesuffix("\n").encode(), (packet,)).document()


def test_the_verb_prints_spdx_of_a_signed_file_by_default(tmp_path: Path) -> None:
    path = tmp_path / "signed"
    path.write_bytes(document_of(described()))
    done = debian_cloud("sbom", path)
    assert done.stdout == projections.text(projections.find("spdx").document(Buildinfo.parse(described(), "x")))


def test_the_verb_refuses_what_is_no_buildinfo(tmp_path: Path) -> None:
    path = tmp_path / "x"
    refused(debian_cloud("sbom", path), 2, "cannot be read", "hint")
    path.write_bytes(b"\x7fELF\xff\x00")
    refused(debian_cloud("sbom", path), 2, "is not UTF-8 text")
    path.write_text(described()[: len(described()) // 2])
    refused(debian_cloud("sbom", path), 2, "is not the .buildinfo of an image", "hint")
    path.write_text(described().replace("Source: debian-cloud-config-ec2", "Source: debian-cloud-config-../x"))
    refused(debian_cloud("sbom", path), 2, "not a valid name")
    evil = described().replace("ec2", "evil")
    path.write_bytes(f"{evil}\n".encode() + document_of(described()))
    refused(debian_cloud("sbom", path), 2, "is neither plain nor signed text", "hint")
    done = debian_cloud("sbom", path, "--format", "provenance")
    assert done.returncode == 2
    assert "choose from 'cyclonedx', 'spdx'" in done.stderr
