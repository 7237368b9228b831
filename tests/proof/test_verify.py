# SPDX-License-Identifier: GPL-3.0-or-later
"""`verify` explains every path of a real image, and finds all that was changed, hidden or exchanged."""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from debian_cloud.cli import verify
from debian_cloud.disk.layout import BIOS_TYPE, ESP, ESP_TYPE, ROOT_TYPES
from debian_cloud.disk.opened import DiskImage, opened
from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.image.buildinfo import Buildinfo
from debian_cloud.packages.evidence import Proof
from debian_cloud.proof import verify as prove
from debian_cloud.proof.verification import Explained, Unexplained
from debian_cloud.text import openpgp
from tests import bounds, throwaway
from tests.command import debian_cloud, refused
from tests.conftest import World
from tests.samples import described


@dataclass(frozen=True, slots=True)
class Case:
    """A published image with its closure, and the evidence for it."""

    image: Path
    buildinfo: Path
    closure: Path
    keyring: Path
    maintainer: Path

    def verify(
        self, image: Path | None = None, *more: str | Path, closure: Path | None = None, buildinfo: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Verify against a rebuilt image, which is the image itself; other tests rebuild one.

        A file that the .buildinfo does not describe is examined all the same; a given .buildinfo need not be signed.
        """
        words: list[str | Path] = ["verify", image or self.published, "--buildinfo", buildinfo or self.buildinfo]
        words += ["--closure", closure or self.closure, "--rebuilt", self.image, "--keyring", self.keyring]
        words += ["--unsigned"] if buildinfo else ["--signed-by", self.maintainer]
        return debian_cloud(*words, *(("--diagnose",) if image else ()), *more)

    @property
    def published(self) -> Path:
        """The same disk in the published format, a small file."""
        return self.image.with_suffix(".qcow2")


@pytest.fixture(scope="module")
def case(world: World) -> Case:
    (image,) = (world.folder / "images").glob("*-13-ec2-*.raw")
    (closure,) = (world.public / "closures" / "trixie" / "ec2" / "amd64").iterdir()
    return Case(
        image, image.with_suffix(".buildinfo"), closure, world.keyring, world.folder / "maintainer" / "maintainer.asc"
    )


@pytest.fixture
def copy(case: Case, tmp_path: Path) -> Iterator[Path]:
    """A copy of the image to tamper with."""
    yield copied(case, tmp_path)
    shutil.rmtree(tmp_path)


def copied(case: Case, folder: Path) -> Path:
    path = folder / case.image.name
    subprocess.run(["cp", "--sparse=always", case.image, path], check=True)
    return path


def report(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Path or area -> what is wrong with it."""
    return {it["path"]: it["why"] for it in json.loads(done.stdout)["unexplained"]}


def start(image: Path, of_type: str = ROOT_TYPES["amd64"]) -> int:
    """The offset of a partition, in bytes."""
    with opened(image) as disk:
        assert isinstance(disk, DiskImage)
        return next(partition.start for partition in disk.partitions if partition.type == of_type)


def debugfs(image: Path, *commands: str) -> str:
    done = subprocess.run(
        ["debugfs", "-w", "-f", "-", f"{image}?offset={start(image)}"],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def flip(image: Path, offset: int) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def flip_in(image: Path, path: str) -> None:
    """Change one byte of a file, in the middle of its first block."""
    blocks = re.findall(r"^\d+", debugfs(image, f"blocks {path}"), re.M)
    flip(image, start(image) + int(blocks[0]) * 4096 + 100)


@pytest.fixture
def published(world: World, tmp_path: Path) -> Path:
    """An image as a user has it: a qcow2, and beside it the files that the archive published with it."""
    (there,) = (world.public / "images" / "trixie" / "ec2" / "amd64").glob("2*")
    shutil.copytree(there, tmp_path / "published")
    (image,) = (tmp_path / "published").glob("*.?.qcow2")
    return image


def test_every_path_of_a_published_image_is_explained(case: Case, published: Path) -> None:
    """The archive's signature of the .buildinfo is enough."""
    where = ("--closure", case.closure, "--keyring", case.keyring, "--rebuilt", case.image)
    done = debian_cloud("verify", published, *where, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["unexplained"] == []
    assert found["buildinfo-signers"] == throwaway.fingerprints_of(case.keyring)
    paths = {it["path"]: it for it in found["paths"]}
    assert len(paths) > 20000
    assert paths["usr/bin/bash"] == {"path": "usr/bin/bash", "kind": "file", "package": "bash"}
    assert paths["usr/bin/sudo"]["package"] == "sudo"
    assert paths["var/lib/dpkg/info/bash.postinst"]["package"] == "bash"
    assert paths["etc/ld.so.cache"]["generator"] == "ldconfig(8)"
    assert paths["usr/bin/awk"]["generator"] == "update-alternatives(1)"
    # A file that the builder copies from a package is that package's, whatever its name.
    esp = {path.removeprefix(ESP): it for path, it in paths.items() if path.startswith(ESP)}
    assert {path: (it.get("package"), it.get("shipped")) for path, it in esp.items() if it["kind"] == "file"} == {
        "EFI/BOOT/BOOTX64.EFI": ("shim-signed", "usr/lib/shim/shimx64.efi.signed"),
        "EFI/BOOT/grubx64.efi": ("grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
        "EFI/BOOT/mmx64.efi": ("shim-helpers-amd64-signed", "usr/lib/shim/mmx64.efi.signed"),
        "EFI/debian/BOOTX64.CSV": ("shim-unsigned", "usr/lib/shim/BOOTX64.CSV"),
        "EFI/debian/fbx64.efi": ("shim-helpers-amd64-signed", "usr/lib/shim/fbx64.efi.signed"),
        "EFI/debian/grub.cfg": (None, None),
        "EFI/debian/grubx64.efi": ("grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
        "EFI/debian/mmx64.efi": ("shim-helpers-amd64-signed", "usr/lib/shim/mmx64.efi.signed"),
        "EFI/debian/shimx64.efi": ("shim-signed", "usr/lib/shim/shimx64.efi.signed"),
    }
    generators = {path: it["generator"] for path, it in esp.items() if "generator" in it}
    assert generators.keys() == {"/", "EFI", "EFI/BOOT", "EFI/debian", "EFI/debian/grub.cfg"}
    assert generators["EFI/debian/grub.cfg"] == "builder: leads signed GRUB to /boot/grub/grub.cfg"
    module = paths["boot/grub/i386-pc/ext2.mod"]
    assert (module["package"], module["shipped"]) == ("grub-pc-bin", "usr/lib/grub/i386-pc/ext2.mod")
    assert paths["boot/grub/grub.cfg"]["generator"] == "builder: as update-grub(8) does"
    packages = {it["name"]: it for it in found["packages"]}
    assert packages["bash"]["origin"] == "Debian"
    assert all(re.fullmatch("[0-9A-F]{40}", key) for it in packages.values() for key in it["signers"])
    assert set(packages["debian-cloud-config-ec2"]["signers"]) <= set(throwaway.fingerprints_of(case.keyring))
    # Packages ship far more files than are generated.
    assert sum("package" in it for it in paths.values()) > 5 * sum("generator" in it for it in paths.values())


def test_people_are_told_who_vouches_for_how_much() -> None:
    kept = Buildinfo.parse(described(), "x")
    bash, own = kept.packages[0], replace(kept.packages[0], name="own")
    proofs = {bash: Proof("trixie", "Debian", "1" * 64, ("A" * 40,)), own: Proof("trixie", "", "2" * 64, ("B" * 40,))}
    explained = (
        Explained("usr/bin/bash", "file", "bash"),
        Explained(f"{ESP}EFI/BOOT/BOOTX64.EFI", "file", "bash", shipped="usr/lib/x.efi"),
        Explained(f"{ESP}/", "directory", generator="builder"),
    )
    report = prove.Report(kept, proofs, {"image": 1.5}, ("C" * 40,), ("D" * 40,), explained)
    assert verify._as_text("x.raw", report).splitlines() == [
        "x.raw: image ec2 of trixie for amd64",
        "  serial 20261121.0, date 2026-11-21, configuration version 0.1.0",
        "  it is as its configuration says",
        f"  its .buildinfo is signed by {'C' * 40}",
        "  its status is unknown: there is no signed index of its archive here (--archive)",
        "  its apt uses http://debian.example/debian for trixie trixie-updates",
        "  its apt uses http://debian.example/security for trixie-security",
        "3 paths are explained",
        "  2 are from 2 packages:",
        f"    1 listed by the archive, trixie, signed by {'B' * 40}",
        f"    1 listed by Debian, trixie, signed by {'A' * 40}",
        "    1 of them are copies under another name",
        "  1 are generated, and equal the rebuild",
        "  of all these, 1 from packages and 1 generated are on the ESP",
        f"  rebuilt with the same bytes by {'D' * 40}",
        "  image: 1.5 s",
        "0 are unexplained",
    ]
    wrong = replace(report, signers=(), unexplained=(Unexplained("a\n\x1b[2J", "it is missing"),) * 51)
    said = verify._as_text("x.raw", wrong)
    assert "\n  its .buildinfo is not signed, so this proves nothing\n" in said
    assert said.endswith("  a\\x0a\\x1b[2J: it is missing\n  and 1 more")


def _slack(image: Path) -> None:
    """Write after the end of a file that does not fill its last block."""
    block = int(re.findall(r"^\d+", debugfs(image, "blocks /etc/debian_version"), re.M)[0])
    with image.open("r+b") as file:
        file.seek(start(image) + block * 4096 + 4000)
        file.write(b"hidden")


def _deleted(image: Path) -> None:
    secret = image.with_name("secret")
    secret.write_bytes(b"hidden" * 5000)
    debugfs(image, f"write {secret} /usr/secret", "rm /usr/secret")


def _gap(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(40 * 512)
        file.write(b"hidden")


def _core(image: Path) -> None:
    flip(image, start(image, BIOS_TYPE) + 700)


def mtool(image: Path, tool: str, *arguments: str | Path) -> None:
    subprocess.run([tool, "-i", f"{image}@@{start(image, ESP_TYPE)}", *arguments], check=True)


def _esp(image: Path) -> None:
    evil = image.with_name("evil.efi")
    evil.write_bytes(b"MZ" * 3000)
    mtool(image, "mcopy", "-o", evil, "::EFI/BOOT/BOOTX64.EFI")


def _esp_more(image: Path) -> None:
    """Copy a package's boot loader to a path where firmware finds it, and where it does not belong."""
    signed = image.with_name("fbx64.efi")
    mtool(image, "mcopy", "::EFI/debian/fbx64.efi", signed)
    mtool(image, "mcopy", signed, "::EFI/BOOT/fbx64.efi")


def _esp_grub(image: Path) -> None:
    """Make GRUB read another disk's configuration."""
    other = image.with_name("grub.cfg")
    other.write_text("configfile (hd1)/grub.cfg\n")
    mtool(image, "mcopy", "-o", other, "::EFI/debian/grub.cfg")


PLACES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "boot sector": (lambda image: flip(image, 20), "boot sector", "it differs from the rebuild at byte 20"),
    "GRUB's core": (_core, "BIOS boot partition", "it differs from the rebuild at byte"),
    "a boot loader": (_esp, f"{ESP}EFI/BOOT/BOOTX64.EFI", "its content is not what shim-signed gives it"),
    "a boot loader more": (_esp_more, f"{ESP}EFI/BOOT/fbx64.efi", "nothing that makes the image has it"),
    "GRUB's orders": (_esp_grub, f"{ESP}EFI/debian/grub.cfg", "its content is not what builder: leads signed GRUB"),
    "a boot loader less": (
        lambda image: mtool(image, "mdel", "::EFI/debian/mmx64.efi"),
        f"{ESP}EFI/debian/mmx64.efi",
        "it is missing, although shim-helpers-amd64-signed has it",
    ),
    "slack": (_slack, "root file system: slack of /etc/debian_version", "bytes differ from the rebuild"),
    "deleted inode": (_deleted, "root file system: free blocks", "bytes differ from the rebuild"),
    "between partitions": (_gap, "between partitions", "6 bytes differ from the rebuild, the first at byte 20480"),
}


@pytest.fixture(scope="module")
def tampered(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The report of `verify` on one image in which every kind of path and area was changed."""
    folder = tmp_path_factory.mktemp("tampered")
    image = copied(case, folder)
    for path in ("usr/bin/sleep", "etc/ld.so.cache", "etc/passwd"):
        flip_in(image, f"/{path}")
    (initrd,) = re.findall(r"initrd\.img-\S+", debugfs(image, "ls -p /boot"))[:1]
    flip_in(image, f"/boot/{initrd.split('/')[0]}")
    capability = folder / "capability"
    # cap_setuid+ep: version 2, little endian (linux/capability.h).
    capability.write_bytes(bytes.fromhex("01000002 80000000 00000000 00000000 00000000"))
    evil = folder / "evil"
    evil.write_bytes(b"#!/bin/sh\n" * 100)
    older = folder / "older"
    older.write_bytes(b"an older, vulnerable nano" * 1000)
    debugfs(
        image,
        "sif /usr/bin/cat mode 0100777",
        "sif /usr/bin/true uid 1000",
        f"ea_set -f {capability} /usr/bin/env security.capability",
        "cd /usr/bin",
        f"write {evil} evil",
        "sif evil mode 0104755",
        "rm nano",
        f"write {older} nano",
        "sif nano mode 0100755",
        "rm who",
        "unlink awk",
        "symlink awk /usr/bin/evil",
        "mknod null c 1 3",
        # The files of a foreign .deb, with dpkg's entries for it.
        "cd /var/lib/dpkg/info",
        f"write {evil} foreign.list",
        "cd /etc/cron.d",
        f"write {evil} foreign",
        "sif /usr/bin/tac mtime 12345",
    )
    for tamper, _, _ in PLACES.values():
        tamper(image)
    done = case.verify(image, "--json")
    shutil.rmtree(folder)
    refused(done, 1, "is not made only of signed packages")
    return {**report(done), "initrd": report(done).get(f"boot/{initrd.split('/')[0]}", "")}


PATHS = {
    "usr/bin/sleep": "its content is not what coreutils gives it",
    "etc/ld.so.cache": "its content is not what ldconfig(8) gives it",
    "etc/passwd": "its content is not what base-passwd, then adduser(8) and systemd-sysusers(8) gives it",
    "initrd": "its content is not what update-initramfs(8), dracut(8) gives it",
    "usr/bin/cat": "its mode is 0777, not what coreutils gives it",
    "usr/bin/true": "its owner is 1000:0, not what coreutils gives it",
    "usr/bin/env": "its extended attributes are security.capability, not what coreutils gives it",
    "usr/bin/evil": "nothing that makes the image has it, and it is set-user-ID or set-group-ID",
    "usr/bin/nano": "its content is not what nano gives it",
    "usr/bin/who": "it is missing, although coreutils has it",
    "usr/bin/awk": "it leads to /usr/bin/evil, which is not what update-alternatives(1) gives it",
    "usr/bin/null": "nothing that makes the image has it",
    "var/lib/dpkg/info/foreign.list": "nothing that makes the image has it",
    "etc/cron.d/foreign": "nothing that makes the image has it",
    "usr/bin/tac": "its time is 12345, not what coreutils gives it",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_changed_path_is_found(tampered: dict[str, str], path: str) -> None:
    assert tampered.get(path) == PATHS[path]


@pytest.mark.parametrize("attack", PLACES)
def test_nothing_hides_beside_the_paths(tampered: dict[str, str], attack: str) -> None:
    _, place, why = PLACES[attack]
    assert why in tampered.get(place, ""), tampered


def test_a_changed_disk_is_no_image_at_all(case: Case, copy: Path) -> None:
    flip(copy, 512 + 60)
    words = ("--closure", case.closure, "--rebuilt", case.image, "--keyring", case.keyring)
    done = debian_cloud("verify", copy, "--buildinfo", case.buildinfo, "--signed-by", case.maintainer, *words)
    refused(done, 1, "is not the file that the .buildinfo of", "see what differs with --diagnose")


@pytest.mark.thorough
def test_a_changed_partition_table_is_no_image(case: Case, copy: Path) -> None:
    flip(copy, 512 + 60)
    done = case.verify(copy)
    refused(done, 1, "is not made only of signed packages")
    assert re.search("^  partition table: ", done.stdout, re.M), done.stdout


# The evidence.


@pytest.fixture
def closure(case: Case, tmp_path: Path) -> Path:
    """A copy of the closure, with hard links to its packages."""
    path = tmp_path / "closure"
    subprocess.run(["cp", "-al", case.closure, path], check=True)
    for file in (path / "evidence").rglob("*"):
        # A copy, because a write would go through the link.
        if file.is_file():
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content)
    return path


def test_a_closure_that_misses_one_deb(case: Case, closure: Path) -> None:
    next(closure.glob("pool/nano_*.deb")).unlink()
    refused(case.verify(closure=closure), 1, "the closure has no nano ")


def test_a_closure_in_which_a_deb_was_swapped(case: Case, closure: Path) -> None:
    deb = next(closure.glob("pool/nano_*.deb"))
    deb.unlink()
    shutil.copy(next(closure.glob("pool/bash_*.deb")), deb)
    refused(case.verify(closure=closure), 1, "the closure's nano ", "is not the signed one")


def test_a_swapped_index(case: Case, closure: Path) -> None:
    index = max((closure / "evidence").glob("*/main_*_Packages.xz"), key=lambda path: path.stat().st_size)
    content = lzma.decompress(index.read_bytes()).replace(b"\nPackage: nano\n", b"\nPackage: nana\n")
    index.write_bytes(lzma.compress(content, preset=0))
    refused(case.verify(closure=closure), 1, "is not the index that its signed release file lists")


def own(closure: Path) -> Path:
    """The archive's own release file."""
    (found,) = (p for p in (closure / "evidence").glob("*/InRelease") if "Origin: Debian\n" not in p.read_text())
    return found


def resign(world: World, closure: Path, pattern: str, by: str) -> None:
    release = own(closure)
    text = throwaway.signed_text(release)
    changed = re.sub(pattern, by, text, flags=re.M)
    assert changed != text
    throwaway.sign(world.archive / "gnupg", changed, release)


def test_evidence_by_another_key(case: Case, closure: Path) -> None:
    debian = "/usr/share/keyrings/debian-archive-keyring.gpg"
    done = debian_cloud(
        *("verify", case.published, "--closure", closure, "--keyring", debian, "--signed-by", case.maintainer),
        *("--rebuilt", case.image),
    )
    refused(done, 1, "has no valid signature by a key of Debian or of the archive")


@pytest.mark.thorough
def test_evidence_that_several_must_have_signed(case: Case, closure: Path, world: World, tmp_path: Path) -> None:
    two = ("--signers", "2", "--keyring", tmp_path / "keys")
    (tmp_path / "keys").write_bytes(
        openpgp.unarmoured(case.maintainer.read_bytes()) + sign.binary(case.keyring.read_bytes())
    )
    refused(case.verify(None, *two, closure=closure), 1, "is signed by 1 of the keys in", "2 are required")
    release = own(closure)
    signed = openpgp.cleartext(release.read_bytes())
    throwaway.sign(world.folder / "maintainer", signed.content.decode() + "\n", tmp_path / "besides")
    besides = openpgp.cleartext((tmp_path / "besides").read_bytes())
    release.write_bytes(openpgp.Cleartext(signed.text, signed.signatures * 2).document())
    refused(case.verify(None, *two, closure=closure), 1, "is signed by 1 of the keys in")
    release.write_bytes(openpgp.Cleartext(signed.text, signed.signatures + besides.signatures).document())
    assert case.verify(None, *two, closure=closure).returncode == 0
    refused(case.verify(None, "--signers", "0"), 2, "has no effect")


def test_evidence_that_was_edited(case: Case, closure: Path) -> None:
    release = own(closure)
    release.write_text(release.read_text().replace("Codename: trixie", "Codename: trixia"))
    refused(case.verify(closure=closure), 1, "has no valid signature by a key of Debian or of the archive")


def test_evidence_of_another_suite(case: Case, closure: Path, world: World) -> None:
    resign(world, closure, "^(Codename|Suite): .*", r"\1: bookworm")
    refused(case.verify(closure=closure), 1, "belongs to the suite bookworm, but the image to trixie")


def test_evidence_that_had_expired(case: Case, closure: Path, world: World) -> None:
    resign(world, closure, "^Valid-Until: .*", "Valid-Until: Sat, 01 Jan 2000 00:00:00 UTC")
    refused(case.verify(closure=closure), 1, "had expired when the image was made")


def test_evidence_of_a_snapshot_that_the_image_is_not_of(case: Case, closure: Path, world: World) -> None:
    resign(world, closure, "^Date: ", "Snapshot: 20260101T000000Z\nDate: ")
    refused(
        case.verify(closure=closure), 1, "belongs to the archive's snapshot 20260101T000000Z, from which the image"
    )


@pytest.mark.parametrize("suite", ["trixie-security", "trixie-updates"])
def test_evidence_without_debian_s_updates(case: Case, closure: Path, suite: str) -> None:
    """Without these release files, a newer version in them would not be found."""
    for release in (closure / "evidence").glob("*/InRelease"):
        if f"\nCodename: {suite}\n" in release.read_text():
            shutil.rmtree(release.parent)
    done = case.verify(closure=closure)
    refused(done, 1, f"the evidence has no release file of Debian's {suite}", "is incomplete")


def test_a_closure_s_own_index_is_no_evidence(case: Case, closure: Path) -> None:
    """The archive signed it on the image's day, without an end, and it lists all packages, also Debian's."""
    shutil.rmtree(closure / "evidence")
    (closure / "evidence/0").mkdir(parents=True)
    shutil.copy(closure / "dists/trixie/InRelease", closure / "evidence/0/InRelease")
    packages = (closure / "dists/trixie/main/binary-amd64/Packages").read_bytes()
    (closure / "evidence/0/main_binary-amd64_Packages.xz").write_bytes(lzma.compress(packages, preset=0))
    refused(case.verify(closure=closure), 1, "is not the archive's own release file: it has no Valid-Until")


@pytest.mark.parametrize("how", ["no end of directories", "a date"])
def test_evidence_that_is_no_evidence(case: Case, closure: Path, world: World, how: str) -> None:
    """All reading has a limit."""
    said = "has more than 64 files or directories"
    if how == "a date":
        resign(world, closure, "^Date: .*", f"Date: Sat, 01 Jan {'9' * 40} 00:00:00 UTC")
        said = "has an invalid date"
    else:
        for number in range(100):
            (closure / "evidence" / f"x{number}").mkdir()
    refused(case.verify(closure=closure), 1, said)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("place", ["evidence/*/InRelease", "evidence/*/main_*_Packages.xz", "pool/nano_*.deb"])
def test_what_is_no_file_is_not_waited_for(case: Case, closure: Path, place: str, kind: str) -> None:
    for path in closure.glob(place):
        path.unlink()
        NO_FILES[kind](path)
    done = case.verify(closure=closure)
    refused(done, 2 if kind == "folder" and place.startswith("evidence") else 1)
    assert re.search("is not a regular file|cannot be read: Is a directory|the closure has no nano", done.stderr)


def test_a_buildinfo_that_is_no_file_is_not_waited_for(case: Case, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.buildinfo")
    refused(case.verify(None, buildinfo=tmp_path / "x.buildinfo"), 1, "is not a regular file")


def test_evidence_of_few_bytes_that_unpack_to_many(case: Case, closure: Path) -> None:
    """No more bytes are unpacked than the signed release file lists."""
    for index in (closure / "evidence").glob("*/main_*_Packages.xz"):
        index.write_bytes(bounds.packed(b"\n", 2**30))
    command: list[str | Path] = [
        "debian-cloud",
        "verify",
        case.image,
        "--buildinfo",
        case.buildinfo,
        "--closure",
        closure,
    ]
    command += ["--rebuilt", case.image, "--keyring", case.keyring, "--signed-by", case.maintainer]
    done = bounds.within(800, command)
    assert done.returncode == 1, done.stderr
    assert re.search(rb"has more than \d+ bytes", done.stderr), done.stderr


def test_evidence_that_is_gone(case: Case, closure: Path) -> None:
    shutil.rmtree(closure / "evidence")
    refused(case.verify(closure=closure), 1, "the evidence is older than the image")


def believed(case: Case, buildinfo: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    """Run verify with a .buildinfo elsewhere, without --unsigned."""
    words: list[str | Path] = ["verify", case.published, "--buildinfo", buildinfo, "--closure", case.closure]
    return debian_cloud(*words, "--rebuilt", case.image, "--keyring", case.keyring, *more)


def test_a_buildinfo_that_was_edited_after_signing(case: Case, tmp_path: Path) -> None:
    edited = tmp_path / case.buildinfo.name
    edited.write_text(case.buildinfo.read_text().replace(" nano ", " nana "))
    refused(believed(case, edited, "--signed-by", case.maintainer), 1, "has no valid signature by a key of")
    # Without --signed-by, it is refused, too.
    refused(believed(case, edited), 1, "is signed, but by an unknown key", "--signed-by")


def test_a_buildinfo_that_a_stranger_signed(case: Case, tmp_path: Path) -> None:
    signed = tmp_path / case.buildinfo.name
    shutil.copy(case.buildinfo, signed)
    refused(believed(case, signed), 1, "is signed, but by an unknown key", "--signed-by")
    done = believed(case, signed, "--signed-by", case.keyring)
    refused(done, 1, f"{signed} has no valid signature by a key of {case.keyring}")


EVIL = "http://deb.evil.example/debian"


def evil(case: Case) -> str:
    """Another .buildinfo, with which the image's apt uses another server."""
    text = throwaway.signed_text(case.buildinfo)
    row = r"(?<=^Image-Sources:\n) [^ ]+"
    found, count = re.subn(row, f" {EVIL}", text, count=1, flags=re.M)
    assert count == 1
    return found


@pytest.mark.parametrize("how", ["a stanza before", "fields before", "an end before", "a message before"])
def test_what_is_put_before_a_signed_buildinfo_is_not_believed(case: Case, tmp_path: Path, how: str) -> None:
    """The maintainer's signature is good for gpgv in each of these."""
    genuine, stanza = case.buildinfo.read_text(), evil(case)
    forged = tmp_path / case.buildinfo.name
    forged.write_text(
        {
            "a stanza before": f"{stanza}\nx\n\n{genuine}",
            "fields before": f"{stanza}{genuine}",
            "an end before": f"{stanza}-----END PGP SIGNATURE-----\n\n{genuine}",
            "a message before": f"-----BEGIN PGP SIGNATUREX\n\n{stanza}\n{genuine}",
        }[how]
    )
    refused(believed(case, forged, "--signed-by", case.maintainer), 1, "has no valid signature by a key of")
    refused(believed(case, forged, "--unsigned"), 2, "is neither plain nor signed text")
    refused(debian_cloud("sbom", forged), 2, "is neither plain nor signed text")
    refused(debian_cloud("diff", forged, case.buildinfo), 2, "is neither plain nor signed text")
    lock_ = ("--lock", forged, "--archive", "file:/nowhere", "--keyring", case.keyring)
    refused(debian_cloud("plan", "ec2", *lock_), 2, "is neither plain nor signed text")
    rebuild = ("--closure", case.closure, "--keyring", case.keyring, "--signed-by", case.maintainer)
    refused(debian_cloud("rebuild", forged, *rebuild), 1, "has no valid signature by a key of")


@pytest.mark.thorough
def test_a_buildinfo_that_nobody_signed_proves_nothing(case: Case, tmp_path: Path) -> None:
    plain = tmp_path / case.buildinfo.name
    plain.write_text(throwaway.signed_text(case.buildinfo))
    refused(believed(case, plain), 1, "is not signed, so it proves nothing", "--unsigned")
    rebuild = ("--closure", case.closure, "--keyring", case.keyring)
    refused(debian_cloud("rebuild", plain, *rebuild), 1, "is not signed, so it proves nothing", "--unsigned")
    refused(believed(case, plain, "--signed-by", case.maintainer), 1, "has no valid signature")
    refused(believed(case, plain, "--unsigned", "--signed-by", case.maintainer), 2, "contradict each other")
    done = believed(case, plain, "--unsigned")
    assert done.returncode == 0, done.stderr
    assert "\n  its .buildinfo is not signed, so this proves nothing\n" in done.stdout


def test_the_image_s_apt_must_ask_debian(case: Case, tmp_path: Path) -> None:
    forged = tmp_path / case.buildinfo.name
    forged.write_text(evil(case))
    said = f"the image's apt uses {EVIL}, which is not a known mirror of Debian"
    refused(believed(case, forged, "--unsigned"), 1, said, "--mirror")
    rebuild = ("--closure", case.closure, "--keyring", case.keyring, "--unsigned")
    refused(debian_cloud("rebuild", forged, *rebuild), 1, said, "--mirror")
    # A lock only requests packages, but its sources would become the image's.
    lock_ = ("--lock", forged, "--archive", "file:/nowhere", "--keyring", case.keyring)
    refused(debian_cloud("plan", "ec2", *lock_), 1, said, "--mirror")
    forged.write_text(evil(case).replace(f" {EVIL}", f" [check-valid-until=no] {EVIL}"))
    done = believed(case, forged, "--unsigned", "--mirror", EVIL)
    refused(done, 1, f"the image's apt accepts the indexes of {EVIL} after their Valid-Until", "--allow-expired")
    for suites in ("trixie", "bookworm bookworm-updates", "trixie trixie-updates trixie-proposed-updates"):
        forged.write_text(re.sub(f"(?<=^ {EVIL}) .*", f" {suites}", evil(case), flags=re.M))
        done = believed(case, forged, "--unsigned", "--mirror", EVIL)
        refused(done, 1, f"the image's apt uses {suites}, trixie-security, but an image of trixie uses")


# The identity of the image.


def test_another_file_is_told_before_anything_is_read(case: Case, tmp_path: Path) -> None:
    """Another image is refused before even the closure is read."""
    other = tmp_path / case.published.name
    other.write_bytes(b"QFI\xfb" + bytes(1000))
    where = ("--closure", tmp_path, "--keyring", case.keyring, "--signed-by", case.maintainer)
    for name in (other.name, "disk.img"):
        other = other.rename(tmp_path / name)
        done = debian_cloud("verify", other, "--buildinfo", case.buildinfo, *where)
        refused(done, 1, f"{name} is not the file that the .buildinfo of {case.image.stem} describes", "--diagnose")


def test_an_image_under_another_s_name_is_refused(case: Case, tmp_path: Path) -> None:
    """An older image with valid evidence is refused under the name of a newer one."""
    name = re.sub("[0-9]{8}", "20991231", case.published.name)
    (tmp_path / name).symlink_to(case.published)
    shutil.copy(case.buildinfo, tmp_path / Path(name).with_suffix(".buildinfo"))
    where = ("--closure", case.closure, "--keyring", case.keyring, "--signed-by", case.maintainer)
    refused(
        debian_cloud("verify", tmp_path / name, *where), 1, f"{name} has the name of another image", case.image.stem
    )
    refused(debian_cloud("verify", tmp_path / "nowhere.raw", "--buildinfo", case.buildinfo, *where), 2, "no file")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("{stem}.raw", True),
        ("{stem}.raw.part", True),
        ("copy of {stem}.raw", True),
        ("disk.raw", True),
        ("debian.raw", True),
        ("debian-13-ec2-amd64-20261122.0.raw", False),
        ("debian-13-ec2-amd64-20261122.0", False),
        ("debian-13-ec2-amd64-20261121.00.raw", False),
        ("debian-13-ec2-amd64-20261121.01.raw", False),
        ("debian-13-azure-amd64-20261121.0.raw", False),
        ("debian-12-ec2-amd64-20261121.0.raw", False),
        ("ec2-20261122.0.raw", False),
        ("{stem}-20261122.0.raw", False),
    ],
)
def test_a_name_that_says_otherwise_is_another_image_s(tmp_path: Path, name: str, *, good: bool) -> None:
    image = tmp_path / name.format(stem="debian-13-ec2-amd64-20261121.0")
    image.write_bytes(b"the image")
    kept = Buildinfo.parse(
        described().replace("a" * 64, throwaway.sha256(b"the image")).replace(" 1 debian", " 9 debian"), "x"
    )
    if good:
        assert prove._identified(image, kept).described
    else:
        with pytest.raises(Error, match="has the name of another image"):
            prove._identified(image, kept)


@pytest.mark.thorough
def test_what_was_converted_is_said_not_to_be_the_published_file(case: Case, tmp_path: Path) -> None:
    plain = tmp_path / case.buildinfo.name
    row = rf"^ [0-9a-f]{{64}} [0-9]+ {re.escape(case.image.name)}\n"
    plain.write_text(re.sub(row, "", throwaway.signed_text(case.buildinfo), flags=re.M))
    raw = tmp_path / "disk.raw"
    raw.symlink_to(case.image)
    words = ("--closure", case.closure, "--rebuilt", case.image, "--keyring", case.keyring, "--unsigned")
    done = debian_cloud("verify", raw, "--buildinfo", plain, *words)
    assert done.returncode == 0, done.stderr
    assert (
        "\n  the file is not described by its .buildinfo, so the content of the disk was compared, SHA-256 "
        in done.stdout
    )


@pytest.mark.thorough
def test_a_file_that_only_holds_the_same_disk_is_not_the_published_one(case: Case, tmp_path: Path) -> None:
    """If the format is published, the bytes must be the same; --diagnose shows that the disk is the same."""
    qcow2 = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", case.published, qcow2], check=True)
    assert qcow2.read_bytes() != case.published.read_bytes()
    done = case.verify(qcow2)
    refused(done, 1, "disk.qcow2 is not made only of signed packages")
    assert "disk.qcow2: this is not the image of that .buildinfo" in done.stdout
    assert "disk.qcow2: its content equals the rebuild, but its bytes as a qcow2 do not" in done.stdout


@pytest.mark.thorough
def test_the_answer_says_which_image_it_is(case: Case, world: World) -> None:
    done = case.verify(None, "--archive", world.public)
    assert done.returncode == 0, done.stderr
    kept = Buildinfo.parse(throwaway.signed_text(case.buildinfo), "x")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{case.published.name}: image ec2 of trixie for amd64"
    assert lines[1].startswith(f"  serial {kept.id.serial}, date 2")
    assert f"  it is current according to {world.public}" in lines
    assert f"  the file is {case.published.name}, SHA-256 {kept.digests[case.published.name][0]}" in lines
    assert f"  its apt uses {kept.sources[0].uri} for trixie trixie-updates" in lines
    found = json.loads(case.verify(None, "--archive", world.public, "--json").stdout)
    assert (found["config"], found["suite"], found["architecture"]) == ("ec2", "trixie", "amd64")
    assert (found["serial"], found["status"]["status"], found["changes"]) == (kept.id.serial, "current", [])
    sha256, size = kept.digests[case.published.name]
    assert found["file"] == {"described": case.published.name, "sha256": sha256, "size": size}
    assert found["sources"][0] == {
        "uri": kept.sources[0].uri,
        "suites": ["trixie", "trixie-updates"],
        "expired": False,
    }


@pytest.fixture
def copied_archive(world: World, tmp_path: Path) -> Path:
    """A copy of the archive's indexes of images."""
    folder = tmp_path / "copy"
    shutil.copytree(world.public / "dists", folder / "dists", symlinks=True)
    return folder


def restate(
    world: World, folder: Path, changes: dict[str, tuple[str, str]], release: tuple[str, str] = ("", "")
) -> None:
    """Change indexes of images, and sign the release again with the archive's key."""
    place = folder / "dists" / "trixie"
    text = throwaway.signed_text(place / "InRelease")
    for name, (old, new) in changes.items():
        file = place / "main" / "images" / name
        content = file.read_text()
        assert old in content
        file.write_text(content.replace(old, new))
        digest, size = throwaway.sha256(file.read_bytes()), file.stat().st_size
        text, count = re.subn(
            rf"^ [0-9a-f]{{64}} +\d+ main/images/{name}$", f" {digest} {size} main/images/{name}", text, flags=re.M
        )
        assert count == 1
    if release[0]:
        text, count = re.subn(*release, text, flags=re.M)
        assert count
    throwaway.sign(world.archive / "gnupg", text, place / "InRelease")


def test_an_image_that_was_withdrawn(case: Case, world: World, copied_archive: Path) -> None:
    stanza = "Image: debian-cloud-config-ec2\nVersion: {}\nSuite: trixie\nArchitecture: amd64\nStatus: {}\n"
    serial = Buildinfo.parse(throwaway.signed_text(case.buildinfo), "x").id.serial
    reason = "Status-Date: 2026-11-21\nStatus-Reason: login without a key\nCVEs: CVE-2026-12345\n"
    said = (stanza.format(serial, "current"), stanza.format(serial, "withdrawn") + reason)
    restate(world, copied_archive, {"Images-Status": said})
    done = case.verify(None, "--archive", copied_archive)
    refused(done, 1, f"{case.image.stem} was withdrawn by its archive: login without a key")
    assert "it is withdrawn since 2026-11-21 according to " in done.stdout
    assert "login without a key CVE-2026-12345\n" in done.stdout
    assert "\n0 are unexplained" in done.stdout
    said = (stanza.format(serial, "withdrawn"), stanza.format(serial, "superseded"))
    restate(world, copied_archive, {"Images-Status": said})
    assert "it is superseded since" in case.verify(None, "--archive", copied_archive).stdout
    restate(world, copied_archive, {"Images-Status": (f"Version: {serial}\n", "Version: 20200101.0\n")})
    refused(case.verify(None, "--archive", copied_archive), 1, f"never published {case.image.stem}")


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ((r"^Valid-Until: .*", "Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC"), "has expired"),
        ((r"^Valid-Until: .*\n", ""), "has expired"),
        ((r"^Date: .*", "Date: Thu, 01 Jan 2099 00:00:00 UTC"), "has a date in the future"),
        ((r"^(Codename|Suite): .*", r"\1: bookworm"), "belongs to the suite 'bookworm'"),
        ((r"^Date: ", "Snapshot: 20261121T000000Z\nDate: "), "belongs to the snapshot"),
        ((r" main/images/Images-Status$", " main/images/Status"), "lists no main/images/Images-Status"),
    ],
)
def test_an_index_that_says_nothing_of_today(
    case: Case, world: World, copied_archive: Path, release: tuple[str, str], said: str
) -> None:
    restate(world, copied_archive, {}, release)
    refused(case.verify(None, "--archive", copied_archive), 1, said)


@pytest.mark.thorough
def test_an_index_that_the_archive_did_not_sign(case: Case, copied_archive: Path) -> None:
    images = copied_archive / "dists/trixie/main/images"
    content = (images / "Images-Status").read_text()
    (images / "Images-Status").write_text(content.replace("Status: current", "Status: Current"))
    refused(case.verify(None, "--archive", copied_archive), 1, "is not the index that its signed release file lists")
    (images / "Images-Status").write_text(content)
    lists = (images / "Images").read_text()
    (images / "Images").unlink()
    assert case.verify(None, "--archive", copied_archive).returncode == 0, "Images.xz is there"
    (images / "Images.xz").write_bytes(lzma.compress(b"\n" * len(lists.encode())))
    refused(case.verify(None, "--archive", copied_archive), 1, "is not the index that its signed release file lists")
    (images / "Images.xz").write_bytes(lzma.compress(bytes(2**28), preset=0))
    refused(case.verify(None, "--archive", copied_archive), 1, "Images.xz has more than ")
    release = copied_archive / "dists/trixie/InRelease"
    release.write_text(f"Codename: trixie\n\n{release.read_text()}")
    refused(case.verify(None, "--archive", copied_archive), 1, "has no valid signature by a key of")
    refused(case.verify(None, "--archive", copied_archive / "dists"), 2, "is not a copy of an archive")


def test_other_files_under_the_same_name(case: Case, world: World, copied_archive: Path) -> None:
    digest = Buildinfo.parse(throwaway.signed_text(case.buildinfo), "x").digests[case.published.name][0]
    restate(world, copied_archive, {"Images": (digest, "0" * 64)})
    done = case.verify(None, "--archive", copied_archive)
    refused(done, 1, f"the archive lists another {case.published.name} than the .buildinfo describes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--signed-by", "/nowhere"), "keyring /nowhere cannot be read: No such file"),
        (("--debian-keyring", "/nowhere"), "keyring /nowhere cannot be read: No such file"),
        (("--keyring", "/nowhere"), "keyring /nowhere cannot be read: No such file"),
        (("--buildinfo", "/nowhere"), "/nowhere cannot be read: No such file"),
        (("--rebuilders", "1", "--rebuilder-keys", "/nowhere", "--statements", "/"), "--rebuilders needs"),
        (("--closure", "/nowhere"), "--closure /nowhere is not a directory"),
        (("--closure", "http://localhost/closure"), "--closure http://localhost/closure is a URL"),
        (("--closure", "file:///nowhere"), "mirror it first, and give the directory: rsync -a "),
    ],
)
def test_a_wrong_call_is_no_failed_verification(case: Case, words: tuple[str, ...], said: str) -> None:
    refused(case.verify(None, *words), 2, said, "hint:")


def test_a_buildinfo_that_is_not_the_one_that_the_archive_signed(case: Case, published: Path) -> None:
    buildinfo = published.with_suffix(".buildinfo")
    buildinfo.write_text(buildinfo.read_text().replace(" nano ", " nana "))
    where = ("--closure", case.closure, "--keyring", case.keyring, "--rebuilt", case.image)
    refused(debian_cloud("verify", published, *where), 1, "is not the file that the archive signed")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["ec2", "container"])
def test_an_image_is_made_again_to_be_verified(world: World, tmp_path: Path, name: str) -> None:
    (image,) = (
        path for path in (world.folder / "images").glob(f"*-13-{name}-*") if path.name.endswith((".qcow2", ".tar.xz"))
    )
    (closure,) = (world.public / "closures" / "trixie" / name / "amd64").iterdir()
    maintainer = world.folder / "maintainer" / "maintainer.asc"
    done = debian_cloud(
        *("verify", image, "--closure", closure, "--keyring", world.keyring, "--signed-by", maintainer, "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    assert "made again: " in done.stdout
    assert done.stdout.endswith("\n0 are unexplained\n")


def test_an_older_package_that_was_once_signed(case: Case, tmp_path: Path) -> None:
    """A package that the .buildinfo and the closure contain is refused if no index of the image's day lists it."""
    text = throwaway.signed_text(case.buildinfo)
    begin = text.index("Packages-Sha256:")
    edited = tmp_path / case.buildinfo.name
    row = r" [0-9a-f]{64} \d+ nano [^ ]+ "
    edited.write_text(text[:begin] + re.sub(row, f" {'7' * 64} 1234 nano 0.1-1 ", text[begin:], count=1))
    refused(case.verify(buildinfo=edited), 1, "no signed index lists nano 0.1-1")


def test_the_archive_vouches_for_nothing_of_debian_s(case: Case, closure: Path, world: World, tmp_path: Path) -> None:
    """A nano that only the archive's own index lists is refused, although the archive signed the release file."""
    release = own(closure)
    index = next(release.parent.glob("main_*_Packages.xz"))
    content = lzma.decompress(index.read_bytes()).decode()
    fake = "Package: nano\nVersion: 999\nArchitecture: amd64\nSize: 1234\nSHA256: " + "7" * 64 + "\n\n"
    index.write_bytes(lzma.compress((fake + content).encode(), preset=0))
    digest = throwaway.sha256((fake + content).encode())
    resign(
        *(world, closure, r"^ [0-9a-f]{64} +\d+ main/binary-amd64/Packages$"),
        f" {digest} {len(fake + content)} main/binary-amd64/Packages",
    )
    text = throwaway.signed_text(case.buildinfo)
    begin = text.index("Packages-Sha256:")
    edited = tmp_path / case.buildinfo.name
    row = r" [0-9a-f]{64} \d+ nano [^ ]+ "
    edited.write_text(text[:begin] + re.sub(row, f" {'7' * 64} 1234 nano 999 ", text[begin:], count=1))
    done = case.verify(buildinfo=edited, closure=closure)
    refused(done, 1, "the archive of configurations provides nano 999, which is Debian's package")
