# SPDX-License-Identifier: GPL-3.0-or-later
"""An image's closure: complete, signed, small beside others, and the only source that `rebuild` uses."""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from debian_cloud.host import sign
from debian_cloud.host.checksums import Digest
from debian_cloud.image.buildinfo import Buildinfo, Draft
from debian_cloud.projections import provenance
from debian_cloud.text import deb822
from tests import throwaway
from tests.command import debian_cloud, refused, step
from tests.conftest import World
from tests.throwaway import FINE, Archive, configuration


@dataclass(frozen=True, slots=True)
class Kept:
    """An archive, the .buildinfo of an image as a build writes it, and the closure."""

    archive: Archive
    buildinfo: Path
    closure: Path
    said: str

    @property
    def arguments(self) -> list[str]:
        home = self.archive.folder / "gnupg"
        return ["--pool", str(self.archive.folder / "kept"), "--homedir", str(home), *self.archive.sources]

    def rebuild(self, *arguments: str | Path, buildinfo: Path | None = None) -> subprocess.CompletedProcess[str]:
        where = ["--closure", str(self.closure), "--keyring", str(self.archive.keyring), "--quiet", "--unsigned"]
        return debian_cloud("rebuild", buildinfo or self.buildinfo, *where, *arguments)


@pytest.fixture(scope="module")
def made() -> Iterator[Kept]:
    with throwaway.folder() as top:
        archive = throwaway.archive(top, configuration(top / "debs", "fine", FINE, depends="nano"))
        plan = debian_cloud("plan", "fine", *archive.sources).stdout
        facts = re.search("> facts <<'END'\n(.*?)\nEND", plan, re.S)
        assert facts is not None
        known = Draft.parse(facts[1])
        digests = {f"{known.buildinfo.stem}.qcow2": Digest(1, {"sha256": "a" * 64})}
        buildinfo = top / f"{known.buildinfo.stem}.buildinfo"
        buildinfo.write_text(known.buildinfo.sealed(digests).render(()))
        kept = Kept(archive, buildinfo, top / "closure", "")
        done = step("closure", buildinfo, kept.closure, *kept.arguments)
        assert done.returncode == 0, done.stderr
        yield Kept(archive, buildinfo, kept.closure, done.stdout)


@pytest.fixture
def kept(made: Kept, tmp_path: Path) -> Iterator[Kept]:
    """The same, restored after the test."""
    copy = made.closure.with_name("copy")
    subprocess.run(["cp", "-a", made.closure, copy], check=True)
    yield made
    shutil.rmtree(made.closure)
    copy.rename(made.closure)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_it_has_each_package_and_what_signed_indexes_say_of_it(made: Kept) -> None:
    kept = Buildinfo.parse(made.buildinfo.read_text(), "x")
    # The packages that it was made with are in it, too.
    assert {"mtools"} < {package.name for package in kept.tools}
    locked = (*kept.packages, *kept.tools)
    index = made.closure / "dists" / "trixie" / "main" / "binary-amd64" / "Packages"
    listed = {stanza["Package"]: stanza for stanza in deb822.parse(index.read_text())}
    assert listed.keys() == {package.name for package in locked}
    assert len(listed) > 80
    for package in locked:
        stanza = listed[package.name]
        assert (stanza["Version"], stanza["SHA256"]) == (package.version, package.sha256)
        assert sha256((made.closure / stanza["Filename"]).read_bytes()) == package.sha256
    release = (made.closure / "dists" / "trixie" / "InRelease").read_text()
    assert f" {sha256(index.read_bytes())} {index.stat().st_size} main/binary-amd64/Packages" in release
    # It lists all other files for mirrors; those that the archive may sign again have no hash.
    text = sign.verified(made.archive.keyring, made.closure / "dists" / "trixie" / "InRelease").content.decode()
    (fields,) = deb822.parse(text)
    assert fields["Closure"] == f"closures/trixie/fine/amd64/{kept.id.serial}"
    rows = {row.split()[2]: row.split()[:2] for row in fields["Closure-Files"].strip().split("\n")}
    files = {str(f.relative_to(made.closure)): f for f in made.closure.rglob("*") if f.is_file()}
    assert rows.keys() == {name for name in files if not name.startswith("dists/")}
    own = [name for name, row in rows.items() if row == ["-", "-"]]
    assert own == ["evidence/3/InRelease"]
    for name, (digest, size) in rows.items():
        assert name in own or (digest, int(size)) == (sha256(files[name].read_bytes()), files[name].stat().st_size)
    subprocess.run(
        ["gpgv", "--quiet", "--keyring", made.archive.keyring, made.closure / "dists" / "trixie" / "InRelease"],
        check=True,
    )


def test_its_evidence_is_whole(made: Kept) -> None:
    """The evidence leads from each package to an index, to a release file, to a key."""
    listed: set[str] = set()
    releases = sorted((made.closure / "evidence").iterdir())
    assert len(releases) == len(Buildinfo.parse(made.buildinfo.read_text(), "x").releases) == 4
    for folder in releases:
        release = (folder / "InRelease").read_text()
        for index in folder.glob("*_Packages.xz"):
            content = lzma.decompress(index.read_bytes())
            path = index.name.removesuffix(".xz").replace("_", "/")
            assert f" {sha256(content)} {len(content):>8} {path}\n".replace(" ", "") in release.replace(" ", "")
            listed |= set(re.findall("^SHA256: (.*)", content.decode(), re.M))
    assert {package.sha256 for package in Buildinfo.parse(made.buildinfo.read_text(), "x").packages} <= listed


def test_another_serial_costs_what_is_new(made: Kept) -> None:
    number, total, new = (int(word) for word in re.findall("[0-9]+", made.said))
    assert number > 80
    assert new > total
    closure = made.closure.with_name("second")
    done = step("closure", made.buildinfo, closure, *made.arguments)
    assert done.returncode == 0, done.stderr
    assert re.findall("[0-9]+", done.stdout)[:2] == [str(number), str(total)]
    assert re.findall("[0-9]+", done.stdout)[2] == "0"
    deb = next(closure.glob("pool/nano_*.deb"))
    assert deb.samefile(made.closure / "pool" / deb.name)
    shutil.rmtree(closure)


def test_it_is_never_rewritten(made: Kept) -> None:
    done = step("closure", made.buildinfo, made.closure, *made.arguments)
    refused(done, 2, "exists already")


def test_what_no_signed_source_has_is_not_kept(made: Kept, tmp_path: Path) -> None:
    text = made.buildinfo.read_text()
    start = text.index("Packages-Sha256:")
    for pattern, by in (("( nano )[^ ]+", r"\g<1>0.1-1"), ("[0-9a-f]{64}( [0-9]+ nano )", f"{'0' * 64}\\1")):
        edited = tmp_path / "x.buildinfo"
        edited.write_text(text[:start] + re.sub(pattern, by, text[start:], count=1))
        done = step("closure", edited, made.closure.with_name("third"), *made.arguments)
        refused(done, 1, "no signed source has nano")
        assert not made.closure.with_name("third").exists()
        assert not list(made.closure.parent.glob(".third*"))


def test_what_a_snapshot_has_is_kept_of_an_image_of_it(made: Kept, tmp_path: Path) -> None:
    archive = made.archive
    command: list[str | Path] = ["debian-cloud-archive", "snapshot", archive.folder]
    identifier = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    before = archive.folder.with_name("public")
    shutil.copytree(archive.public, before, symlinks=True)
    archive.add(configuration(tmp_path / "new", "fine", {**FINE, "Version": "2.0"}, depends="nano"))
    try:
        done = step("closure", made.buildinfo, made.closure.with_name("third"), *made.arguments)
        refused(done, 1, "no signed source has debian-cloud-config-fine 1.0")
        # An image made from the snapshot names it as its source.
        address = f"file:{archive.public}"
        edited = tmp_path / "x.buildinfo"
        edited.write_text(made.buildinfo.read_text().replace(f"{address} ", f"{address}/snap/{identifier} "))
        done = step("closure", edited, made.closure.with_name("third"), *made.arguments)
    finally:
        shutil.rmtree(archive.public)
        before.rename(archive.public)
    assert done.returncode == 0, done.stderr
    assert made.closure.with_name("third").joinpath("pool/debian-cloud-config-fine_1.0_amd64.deb").exists()
    shutil.rmtree(made.closure.with_name("third"))


def test_a_missing_deb_ends_the_rebuild(kept: Kept, tmp_path: Path) -> None:
    next(kept.closure.glob("pool/nano_*.deb")).unlink()
    refused(kept.rebuild("--output", tmp_path), 1, "nano")
    assert not list(tmp_path.iterdir())


def test_a_changed_deb_ends_the_rebuild(kept: Kept, tmp_path: Path) -> None:
    deb = next(kept.closure.glob("pool/nano_*.deb"))
    content = bytearray(deb.read_bytes())
    content[-1] ^= 1
    deb.write_bytes(content)
    refused(kept.rebuild("--output", tmp_path), 1, "Hash Sum mismatch")
    assert not list(tmp_path.iterdir())


def test_a_changed_index_ends_the_rebuild(kept: Kept, tmp_path: Path) -> None:
    # At another address: of this one, apt keeps the index that it has verified.
    kept = replace(kept, closure=shutil.copytree(kept.closure, kept.closure.with_name("changed")))
    index = kept.closure / "dists" / "trixie" / "main" / "binary-amd64" / "Packages"
    index.write_text(index.read_text().replace("Package: nano\n", "Package: nana\n"))
    refused(kept.rebuild("--output", tmp_path), 1, "Hash Sum mismatch")
    assert not list(tmp_path.iterdir())
    shutil.rmtree(kept.closure)


def test_another_key_ends_the_rebuild(kept: Kept, tmp_path: Path) -> None:
    where = ["--closure", str(kept.closure), "--keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"]
    done = debian_cloud("rebuild", kept.buildinfo, *where, "--unsigned", "--output", tmp_path)
    refused(done, 1, "apt-get failed")
    # The message of gpgv, or that of sqv, from Debian 13 on.
    assert re.search("NO_PUBKEY|Missing key", done.stderr)


def test_a_closure_of_another_image_ends_the_rebuild(kept: Kept, tmp_path: Path) -> None:
    edited = tmp_path / "x.buildinfo"
    edited.write_text(re.sub("^Source: .*|debian-13-fine", r"\g<0>r", kept.buildinfo.read_text(), flags=re.M))
    refused(kept.rebuild(buildinfo=edited), 1, "no image configuration finer", "belongs to another image")


def test_an_edited_buildinfo_ends_the_rebuild(kept: Kept, tmp_path: Path) -> None:
    edited = tmp_path / "x.buildinfo"
    text = kept.buildinfo.read_text()
    start = text.index("Packages-Sha256:")
    edited.write_text(text[:start] + re.sub(" [0-9a-f]{64}( [0-9]+ nano )", f" {'0' * 64}\\1", text[start:], count=1))
    refused(kept.rebuild(buildinfo=edited), 1, "only in the lock: nano")
    edited.write_text("".join(line for line in text.splitlines(keepends=True) if " nano " not in line))
    refused(kept.rebuild(buildinfo=edited), 1, "cannot be installed")


def test_the_archive_kept_what_its_images_were_made_of(world: World) -> None:
    images = sorted((world.public / "images").glob("*/*/*/*.*"))
    closures = sorted((world.public / "closures").glob("*/*/*/*.*"))
    assert len(images) > 2
    assert [str(path).replace("/images/", "/closures/") for path in images] == [str(path) for path in closures]


@pytest.mark.thorough
def test_a_published_image_is_made_again_from_its_closure(world: World, container: Path, tmp_path: Path) -> None:
    folder = world.public / "images" / "trixie" / "container" / "amd64" / "current"
    (record,) = folder.glob("*.image")
    said = tmp_path / "statement.asc"
    speak: list[str | Path] = ["--statement", said, "--homedir", world.folder / "maintainer"]
    done = debian_cloud("rebuild", record, *world.sources, "--output", tmp_path, "--quiet", *speak)
    assert done.returncode == 0, done.stderr
    signers = ", ".join(throwaway.fingerprints_of(world.keyring))
    assert (
        done.stdout == f"{container.name}: the same bytes\n{container.name[:-7]}.buildinfo is signed by {signers}\n"
    )
    assert (tmp_path / container.name).read_bytes() == container.read_bytes()
    signed = sign.verified(world.folder / "maintainer" / "maintainer.asc", said)
    statement = provenance.parse(signed.content.decode(), "x")
    assert statement.kind == provenance.REBUILT
    assert statement.subjects[container.name]["sha256"] == sha256(container.read_bytes())
