# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages that are not in Debian's main: the reason is reported, and another signed archive may be a source."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from debian_cloud import names
from debian_cloud.errors import USAGE, Error, slip
from debian_cloud.host.checksums import Digest
from debian_cloud.image import index, metadata, sources
from debian_cloud.image.buildinfo import Buildinfo, Draft
from debian_cloud.image.resolution import Package
from debian_cloud.packages import evidence
from tests import gnupg, throwaway
from tests.command import debian_cloud, refused, step
from tests.throwaway import FINE, Archive, configuration

TREE = {"Image-Format": "tar.xz"}
"""An image that takes less time to build than a disk."""


@dataclass(frozen=True)
class Other:
    """A signed archive of an unknown party, with a .sources file in two forms."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"file:{self.folder}/public"

    @property
    def keyring(self) -> Path:
        return self.folder / "key.gpg"

    @property
    def by_path(self) -> Path:
        return self.folder / "path.sources"

    @property
    def by_key(self) -> Path:
        """A .sources file that contains the key, as most do."""
        return self.folder / "key.sources"


def package(folder: Path, name: str, version: str, **fields: str) -> Path:
    tree = folder / f"{name}_{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = {"Package": name, "Version": version, "Architecture": "amd64", "Maintainer": "X <x@localhost>"}
    control |= {field.replace("_", "-"): value for field, value in fields.items()} | {"Description": "x"}
    (tree / "DEBIAN" / "control").write_text("".join(f"{field}: {value}\n" for field, value in control.items()))
    (tree / "opt" / name).mkdir(parents=True)
    (tree / "opt" / name / "x").write_text(name)
    built = folder / "public" / "pool" / f"{name}_{version}_amd64.deb"
    built.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, built], stdout=subprocess.DEVNULL, check=True)
    return built


def other(folder: Path) -> Other:
    """Make the archive, with packages of its own and some that it must not provide."""
    made = Other(folder)
    package(folder, "docker-ce", "5:28.0-1", Depends="containerd.io")
    package(folder, "containerd.io", "1.7-1")
    package(folder, "nano", "99")
    package(folder, "debian-cloud-config-fine", "99", **TREE)
    package(folder, "everybodys", "1", Essential="yes")
    home = folder / "home"
    gnupg.new_key(home, "Other <o@localhost>")
    made.keyring.write_bytes(gnupg.gpg(home, "--export"))
    armoured = gnupg.gpg(home, "--armor", "--export").decode()
    publish(made)
    stanza = f"Types: deb\nURIs: {made.uri}\nSuites: stable\nComponents: extra\nArchitectures: amd64\n"
    made.by_path.write_text(f"# As its maker gives it.\n{stanza}Signed-By: {made.keyring}\n")
    key = "".join(f" {line or '.'}\n" for line in armoured.splitlines())
    made.by_key.write_text(f"{stanza}Signed-By:\n{key}")
    return made


def publish(made: Other) -> None:
    public = made.folder / "public"
    place = public / "dists/stable/extra/binary-amd64"
    place.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["apt-ftparchive", "packages", "pool"], cwd=public, stdout=subprocess.PIPE, check=True)
    (place / "Packages").write_bytes(listed.stdout)
    values = {"Origin": "Other", "Suite": "stable", "Codename": "stable", "Architectures": "amd64"}
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in values.items()]
    options.append("-oAPT::FTPArchive::Release::Components=extra")
    command = ["apt-ftparchive", *options, "release", "dists/stable"]
    release = subprocess.run(command, cwd=public, stdout=subprocess.PIPE, text=True, check=True).stdout
    throwaway.sign(made.folder / "home", release, public / "dists/stable/InRelease")


@dataclass(frozen=True)
class Both:
    """An archive of configurations, and the other one."""

    archive: Archive
    other: Other

    def show(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return debian_cloud("show", name, "--json", *arguments, *self.archive.sources)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with throwaway.folder() as top:
        (top / "other").mkdir()
        debs = (
            configuration(top / "debs", "fine", TREE, depends="base-files"),
            configuration(top / "debs", "docker", TREE, depends="base-files, docker-ce"),
            configuration(top / "debs", "nvidia", FINE, depends="nvidia-driver"),
            configuration(
                *(top / "debs", "zfs"),
                {**FINE, "Image-Components": "main contrib", "Section": "contrib/admin"},
                depends="zfsutils-linux",
            ),
        )
        yield Both(throwaway.archive(top, *debs), other(top / "other"))


# Reasons why a package is missing.


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("htopp", "htop"),
        ("zfs-dmks", "zfs-dkms"),
        ("vmi", "vim"),
        ("nosuchpkg", ""),
        ("docker-ce", ""),
        ("postgresql-contirb", "postgresql-contrib"),
        ("x", ""),
    ],
)
def test_a_slip_and_nothing_else(word: str, meant: str) -> None:
    known = ["node-sshpk", "docker-cli", "docker-clean", "zfs-dkms", "zfs-fuse", "vim", "htop", "postgresql-contrib"]
    assert slip(word, known) == meant


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("fine", ("--add", "zfs-dkms"), ("zfs-dkms is in Debian's contrib", "`Image-Components: main contrib`")),
        (
            "fine",
            ("--add", "htop,nvidia-driver"),
            (
                "nvidia-driver is in Debian's non-free, but configuration fine takes packages only from main",
                "`Image-Components: main contrib non-free non-free-firmware`",
                "debian-cloud new",
            ),
        ),
        ("nvidia", (), ("nvidia-driver is in Debian's non-free, but configuration nvidia",)),
        ("fine", ("--add", "docker-ce"), ("no signed source of trixie has the package docker-ce", "--source FILE")),
        ("fine", ("--add", "nosuchpkg"), ("has the package nosuchpkg", "Debian does not have it: add")),
        (
            "docker",
            (),
            (
                "configuration docker cannot be installed: debian-cloud-config-docker depends on docker-ce, which is",
                "--source FILE.sources",
            ),
        ),
    ],
)
def test_the_real_reason(both: Both, name: str, arguments: tuple[str, ...], said: tuple[str, ...]) -> None:
    done = both.show(name, *arguments)
    refused(done, 1, *said)
    assert "did you mean" not in done.stderr


@pytest.mark.thorough
def test_a_configuration_that_says_so_takes_from_contrib(both: Both) -> None:
    done = both.show("zfs", "--add", "zfs-dkms")
    assert done.returncode == 0, done.stderr
    assert "zfs-dkms" in {package["name"] for package in json.loads(done.stdout)["packages"]}
    plan = debian_cloud("plan", "zfs", *both.archive.sources).stdout
    assert re.search(r"^Suites: trixie trixie-updates trixie-backports\nComponents: main contrib$", plan, re.M)


# Another source.

GOOD = "Types: deb\nURIs: https://d.example/linux/debian\nSuites: trixie\nComponents: stable\nSigned-By: /etc/x.gpg\n"
KEY = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n -----END PGP PUBLIC KEY BLOCK-----"


def test_a_sources_file() -> None:
    text = GOOD.replace("deb\n", "deb deb-src\n") + "Enabled: yes\n\n# another\n" + GOOD + "Enabled: no\n"
    ((source, architectures),) = sources.others(text, "x")
    assert (source.uri, source.suites) == ("https://d.example/linux/debian", ("trixie",))
    assert (source.components, source.signed_by, source.expired) == (("stable",), "/etc/x.gpg", False)
    assert architectures == ()
    assert sources.as_change(source) == ("https://d.example/linux/debian trixie stable",)
    ((source, architectures),) = sources.others(
        GOOD.replace("Signed-By: /etc/x.gpg", KEY).replace("URIs", "uris") + "Architectures: amd64 arm64\n", "x"
    )
    assert architectures == ("amd64", "arm64")
    assert source.signed_by == ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no enabled source"),
        ("deb https://d.example/linux/debian trixie stable\n", "line 1 is not a field"),
        (GOOD.replace("Signed-By: /etc/x.gpg\n", ""), "has no field Signed-By"),
        (GOOD.replace("/etc/x.gpg", ""), "has no field Signed-By"),
        (GOOD.replace("/etc/x.gpg", "x.gpg"), "neither one path nor a key"),
        (GOOD.replace("/etc/x.gpg", "A" * 40), "neither one path nor a key"),
        (GOOD.replace("/etc/x.gpg", "/etc/x.gpg /etc/y.gpg"), "neither one path nor a key"),
        (GOOD.replace("Signed-By: /etc/x.gpg", KEY.partition("\n -----END")[0]), "neither one path nor a key"),
        (GOOD + "Trusted: yes\n", "the field Trusted is not accepted"),
        (GOOD + "allow-insecure: yes\n", "the field allow-insecure is not accepted"),
        (GOOD + "Check-Valid-Until: no\n", "the field Check-Valid-Until is not accepted"),
        (GOOD + "signed-by: /etc/y.gpg\n", "a stanza has the field signed-by twice"),
        (GOOD + "Enabled: perhaps\n", "Enabled is 'perhaps'"),
        (GOOD + "Enabled: no\n", "no enabled source"),
        (GOOD.replace("Types: deb", "Types: deb-src"), "Types is 'deb-src'"),
        (GOOD.replace("https:", "ftp:"), "not one plain address"),
        (GOOD.replace("https://d", "https://user:secret@d"), "not one plain address"),
        (GOOD.replace("debian\n", "debian https://e.example/\n"), "not one plain address"),
        (GOOD.replace("Suites: trixie\nComponents: stable", "Suites: ./\nComponents: x"), "a flat archive"),
        (GOOD.replace("Suites: trixie", "Suites: stable/updates"), "'stable/updates' is not a valid name"),
        (GOOD.replace("Components: stable\n", ""), "has no field Components"),
        (GOOD.replace("stable", "../x"), "'../x' is not a valid name"),
        (GOOD.replace("trixie", "trixie\x1b[2J"), "is not a valid name"),
    ],
)
def test_a_sources_file_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(Error, match=re.escape(said)) as error:
        sources.others(text, "x.sources")
    assert error.value.status == USAGE
    assert error.value.message.startswith("--source x.sources")
    assert error.value.hint
    assert "secret" not in error.value.message


def test_a_file_that_is_none(tmp_path: Path, both: Both) -> None:
    """A bad file is refused before anything is fetched."""
    refused(debian_cloud("plan", "fine", "--source", "/nowhere"), 2, "/nowhere cannot be read", "hint:")
    refused(debian_cloud("plan", "fine", "--source", both.other.keyring), 2, "is not UTF-8 text")
    missing = tmp_path / "x.sources"
    missing.write_text(GOOD.replace("/etc/x.gpg", "/nowhere.gpg"))
    refused(debian_cloud("plan", "fine", "--source", missing), 2, "keyring /nowhere.gpg cannot be read")


def resolved(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return {package["name"]: package["version"] for package in json.loads(done.stdout)["packages"]}


@pytest.mark.parametrize("form", ["by_path", "by_key"])
def test_it_adds_packages_and_replaces_none(both: Both, form: str) -> None:
    done = both.show("fine", "--add", "docker-ce,nano", "--source", getattr(both.other, form))
    found = resolved(done)
    assert json.loads(done.stdout)["config"]["version"] == "1.0"
    assert (found["docker-ce"], found["containerd.io"]) == ("5:28.0-1", "1.7-1")
    assert found["nano"] != "99"
    assert found["debian-cloud-config-fine"] == "1.0"
    assert "everybodys" not in found
    assert resolved(both.show("docker", "--source", both.other.by_key))["docker-ce"] == "5:28.0-1"


def test_it_is_not_taken_without_its_own_key(both: Both, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.sources"
    wrong.write_text(both.other.by_path.read_text().replace(str(both.other.keyring), str(both.archive.keyring)))
    done = both.show("fine", "--source", wrong)
    refused(done, 1, "NO_PUBKEY")
    wrong.write_text(both.other.by_path.read_text().replace("Architectures: amd64", "Architectures: arm64"))
    refused(both.show("fine", "--source", wrong), 2, "is for arm64, not for amd64")
    twice = ("--source", both.other.by_path, "--source", both.other.by_key)
    refused(both.show("fine", *twice), 2, "is given twice")


@dataclass(frozen=True)
class Kept:
    """The .buildinfo and the closure of an image."""

    buildinfo: Path
    closure: Path

    @property
    def lock(self) -> Buildinfo:
        return Buildinfo.parse(self.buildinfo.read_text(), "x")


@pytest.fixture(scope="module")
def kept(both: Both) -> Kept:
    """The .buildinfo as a build writes it, and the closure."""
    top = both.archive.folder.parent
    asked: list[str | Path] = ["fine", "--add", "docker-ce", "--source", both.other.by_key]
    done = debian_cloud("plan", *asked, *both.archive.sources)
    assert done.returncode == 0, done.stderr
    facts = re.search("> facts <<'END'\n(.*?)\nEND", done.stdout, re.S)
    assert facts is not None
    known = Draft.parse(facts[1])
    assert int(known.buildinfo.id.serial.partition(".")[2]) >= 1000
    digests = {f"{known.buildinfo.stem}.tar.xz": Digest(1, {"sha256": "a" * 64, "sha512": "b" * 128})}
    (record,) = index.parse(metadata.record(known, digests), strict=True)
    assert (record.official, record.others) == (False, (f"{both.other.uri} stable",))
    found = Kept(top / f"{known.buildinfo.stem}.buildinfo", top / "closure")
    found.buildinfo.write_text(known.buildinfo.sealed(digests).render(()))
    home = both.archive.folder / "gnupg"
    where: list[str | Path] = [found.buildinfo, found.closure, "--pool", top / "kept", "--homedir", home]
    refused(step("closure", *where, *both.archive.sources), 1, "no signed source has", "hint:")
    done = step("closure", *where, "--source", both.other.by_path, *both.archive.sources)
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.thorough
def test_the_buildinfo_names_it(both: Both, kept: Kept) -> None:
    assert kept.lock.changes == ("add docker-ce", f"source {both.other.uri} stable extra")
    assert kept.lock.others == ((both.other.uri, "stable"),)
    (release,) = (release for release in kept.lock.releases if release.uri == both.other.uri)
    assert list(release.signers) == throwaway.fingerprints_of(both.other.keyring)[:1]
    # The image's own apt has only Debian's sources.
    assert [source.suites for source in kept.lock.sources] == [("trixie", "trixie-updates"), ("trixie-security",)]


@pytest.mark.thorough
def test_a_lock_needs_the_same_source(both: Both, kept: Kept) -> None:
    again: list[str | Path] = ["plan", "fine", "--lock", kept.buildinfo, *both.archive.sources, "--add", "docker-ce"]
    done = debian_cloud(*again, "--source", both.other.by_path)
    assert done.returncode == 0, done.stderr
    assert debian_cloud(*again).returncode in (1, 2)


def proofs(both: Both, kept: Kept, *others: Path, changed: Buildinfo | None = None) -> dict[str, evidence.Proof]:
    trusted = [s for path in others for s, _ in sources.others(path.read_text(), "x")]
    found = evidence.proofs(
        *(kept.closure / "evidence", changed or kept.lock, Path(names.DEBIAN_KEYRING), both.archive.keyring),
        others=trusted,
    )
    return {package.name: proof for package, proof in found.items()}


@pytest.mark.thorough
def test_the_proof_goes_to_its_key(both: Both, kept: Kept) -> None:
    found = proofs(both, kept, both.other.by_path)
    assert (found["docker-ce"].origin, found["docker-ce"].suite) == ("Other", "stable")
    assert list(found["docker-ce"].signers) == throwaway.fingerprints_of(both.other.keyring)[:1]
    assert found["base-files"].origin == "Debian"


def test_nobody_trusts_it_who_does_not_say_so(both: Both, kept: Kept, tmp_path: Path) -> None:
    with pytest.raises(Error, match="whose keys are unknown") as error:
        proofs(both, kept)
    assert (error.value.status, "--source" in error.value.hint) == (USAGE, True)
    wrong = tmp_path / "wrong.sources"
    wrong.write_text(both.other.by_path.read_text().replace(str(both.other.keyring), str(both.archive.keyring)))
    with pytest.raises(Error, match="has no valid signature"):
        proofs(both, kept, wrong)
    # A .buildinfo that does not list all sources of the packages.
    hidden = replace(kept.lock, changes=("add docker-ce",))
    with pytest.raises(Error, match="no valid signature by a key of Debian or of the archive"):
        proofs(both, kept, both.other.by_path, changed=hidden)


def test_it_vouches_for_nothing_that_debian_has(both: Both, kept: Kept) -> None:
    """A package that Debian has is refused from the other source, although its signed index lists it."""
    stanza = (both.other.folder / "public/dists/stable/extra/binary-amd64/Packages").read_text()
    found = re.search("^Package: nano\n.*?\nSize: (?P<size>.*?)\n.*?\nSHA256: (?P<sha256>.*?)\n", stanza, re.S | re.M)
    assert found is not None
    nano = Package("nano", "99", "amd64", int(found["size"]), found["sha256"])
    changed = replace(kept.lock, packages=(*kept.lock.packages, nano))
    with pytest.raises(Error, match="Other provides nano 99, which is not its own package"):
        proofs(both, kept, both.other.by_path, changed=changed)


@pytest.mark.thorough
def test_an_archive_keeps_it_where_its_operator_says_so(both: Both, kept: Kept) -> None:
    """In conf/closures are arguments for `accept`, which checks the packages, and for `publish`, which keeps them."""
    line = f"--source={both.other.by_path}"
    assert step("listed", kept.buildinfo, line, *both.archive.sources).returncode == 0
    refused(step("listed", kept.buildinfo, *both.archive.sources), 1, "hint:")


@pytest.mark.thorough
def test_built_kept_rebuilt_and_verified(both: Both, tmp_path: Path) -> None:
    """All steps, without stubs."""
    asked = ("--add", "docker-ce", "--source", both.other.by_key, "--output", tmp_path, "--quiet")
    done = debian_cloud("build", "fine", *asked, *both.archive.sources)
    assert done.returncode == 0, done.stderr
    (image,) = tmp_path.glob("*.tar.xz")
    assert "Official: no\n" in image.with_name(image.name.replace(".tar.xz", ".image")).read_text()
    listed = subprocess.run(["tar", "-tf", image], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "./opt/docker-ce/x\n" in listed
    assert re.findall("sources.list.d/(.+)", listed) == ["debian-cloud.sources", "debian.sources"]
    buildinfo, closure = next(tmp_path.glob("*.buildinfo")), both.archive.folder.parent / "built"
    where = ("--pool", both.archive.folder.parent / "kept", "--homedir", both.archive.folder / "gnupg")
    done = step("closure", buildinfo, closure, *where, "--source", both.other.by_path, *both.archive.sources)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(both.other.folder / "public")
    key = ("--keyring", both.archive.keyring, "--unsigned", "--quiet")
    kept_at = ("--closure", str(closure), *key)
    again = debian_cloud("rebuild", buildinfo, "--output", tmp_path / "again", *kept_at)
    assert again.returncode == 0, again.stderr
    rebuilt = ("--rebuilt", tmp_path / "again" / image.name)
    refused(debian_cloud("verify", image, *rebuilt, *kept_at), 2, "whose keys are unknown", "--source FILE")
    done = debian_cloud("verify", image, "--source", both.other.by_path, *rebuilt, *kept_at)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "listed by Other, stable, signed by" in done.stdout
    assert "it is not official" in done.stdout
