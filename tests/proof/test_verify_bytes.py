# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an image is the rebuilt one is decided by its bytes; the changes are reported to the user."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import tracemalloc
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from debian_cloud.cli import verify
from debian_cloud.disk import layout
from debian_cloud.disk.layout import ESP
from debian_cloud.disk.opened import DiskImage, opened
from debian_cloud.errors import Error
from debian_cloud.host import checksums
from debian_cloud.image.buildinfo import Buildinfo
from debian_cloud.image.entries import FILE, Entry
from debian_cloud.proof import verification
from debian_cloud.proof import verify as prove
from debian_cloud.proof.verification import MISSING, MOST, Tally, Unexplained
from tests.disk.made import END, EPOCH, append, copy, make_ext4, make_tar, member, put, run
from tests.samples import described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

STEM = Buildinfo.parse(described(), "x").stem
LAYOUT = layout.layout(STEM, 256 * layout.MIB, "amd64", bios=True)
RAW, QCOW2, TAR_XZ = (f"{STEM}.{format_}" for format_ in ("raw", "qcow2", "tar.xz"))


@dataclass(frozen=True, slots=True)
class Made:
    """A directory with a rebuilt image in each format, and what its packages ship."""

    folder: Path
    shipped: Mapping[str, list[tuple[str, Entry]]]
    digests: dict[str, tuple[str, int]]

    def verify(self, image: Path, name: str, digests: dict[str, tuple[str, int]] | None = None) -> prove.Report:
        kept = replace(Buildinfo.parse(described(), "x"), digests=self.digests if digests is None else digests)
        report = prove.Report(kept, {}, {}, (), file=prove._file(image, kept))
        return prove._compared(image, self.shipped, self.folder / name, report)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    tree = folder / "tree"
    for folder_ in ("usr/bin", "etc", "boot/efi", "a"):
        (tree / folder_).mkdir(parents=True)
    (tree / "etc/cloud-release").write_text('ID=ec2\nVERSION="20261120.0"\n')
    (tree / "usr/bin/sleep").write_bytes(b"sleep" * 2000)
    (tree / "usr/bin/sudo").write_bytes(b"sudo" * 100)
    (tree / "usr/bin/sudo").chmod(0o4755)
    (tree / "usr/bin/awk").symlink_to("mawk")
    for number in range(40):
        (tree / f"a/{number}").write_text(f"{number}")
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (EPOCH - 5, EPOCH - 7), follow_symlinks=False)
    raw = folder / RAW
    with raw.open("wb") as file:
        file.truncate(LAYOUT.size)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", raw, stdin=layout.table(LAYOUT))
    copy(make_ext4(folder, tree, "40M", changed=False), raw, LAYOUT.root.start)
    copy(make_esp(folder), raw, LAYOUT.esp.start)
    put(raw, 0, b"boot code")
    put(raw, layout.MIB, b"GRUB")
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", raw, folder / QCOW2)
    tar = make_tar(folder, tree).rename(folder / f"{STEM}.tar")
    run("xz", "--keep", "-2", tar)
    with opened(raw) as image, opened(tar) as other:
        assert isinstance(image, DiskImage)
        assert image.esp
        # If an ordinary user makes them, root owns a disk's root directory, but the user that of a tar.
        shipped: dict[str, list[tuple[str, Entry]]] = {}
        for entry in (*other.entries(), *image.entries()):
            shipped.setdefault(entry.path, []).append(("coreutils", entry))
        shipped["usr/lib/shim/shimx64.efi.signed"] = [
            ("shim-signed", entry) for entry in image.esp.entries() if entry.kind == FILE
        ]
    digests = {}
    for name in (RAW, QCOW2, TAR_XZ):
        algorithm = "sha256-blocks" if name == RAW else "sha256"
        got = checksums.digest(folder / name, (algorithm,))
        digests[name] = got.hashes[algorithm], got.size
    return Made(folder, shipped, digests)


def make_esp(folder: Path) -> Path:
    image, loader = folder / "esp", folder / "loader"
    with image.open("wb") as file:
        file.truncate(LAYOUT.esp.size)
    loader.write_bytes(b"MZ" * 3000)
    environment = {"MTOOLS_SKIP_CHECK": "1", "SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC"}
    run("mformat", "-i", image, "-F", "-T", str(LAYOUT.esp.size // 512), "::", **environment)
    run("mmd", "-i", image, "::EFI", "::EFI/BOOT", "::EFI/debian", **environment)
    run("mcopy", "-i", image, loader, "::EFI/BOOT/BOOTX64.EFI", **environment)
    return image


@pytest.fixture
def image(tmp_path: Path, made: Made, request: pytest.FixtureRequest) -> Path:
    """A copy of an image, to be changed."""
    name = getattr(request, "param", RAW)
    run("cp", "--sparse=always", made.folder / name, tmp_path / name)
    return tmp_path / name


def debugfs(*commands: str) -> Callable[[Path], object]:
    def change(image: Path) -> None:
        (image.parent / "evil").write_bytes(b"evil" * 10)
        run("debugfs", "-w", "-f", "-", f"{image}?offset={LAYOUT.root.start}", stdin="\n".join(commands))

    return change


def block(image: Path, path: str) -> int:
    """The offset of a file's first block on a disk."""
    at = f"{image}?offset={LAYOUT.root.start}"
    return LAYOUT.root.start + 4096 * int(run("debugfs", "-R", f"blocks {path}", at).split()[0])


def two(image: Path, *paths: str) -> None:
    for path in paths:
        put(image, block(image, path))


def compress(image: Path, preset: str, change: Callable[[bytes], bytes] = bytes) -> None:
    """Change the content of a compressed tar archive, or its compression."""
    tar = image.with_suffix("")
    run("xz", "-d", image)
    tar.write_bytes(change(tar.read_bytes()))
    run("xz", preset, tar)


def member_in(image: Path, found: bytes, by: bytes) -> None:
    def change(data: bytes) -> bytes:
        assert data.count(found) == 1
        return data.replace(found, by)

    compress(image, "-2", change)


def more_in(image: Path) -> None:
    def change(data: bytes) -> bytes:
        data = data.rstrip(b"\0")
        return data + bytes(-len(data) % 512) + member(b"./usr/bin/evil", content=b"x" * 2**14) + END

    compress(image, "-2", change)


def comment_in(image: Path) -> None:
    """Add an extended header that changes no path."""

    def change(data: bytes) -> bytes:
        at = data.index(b"./usr/bin/sudo\0")
        return data[:at] + member(b"./PaxHeaders/sudo", b"x", b"18 comment=hidden\n") + data[at:]

    compress(image, "-2", change)


def mtool(image: Path, tool: str, *arguments: str | Path) -> None:
    run(tool, "-i", f"{image}@@{LAYOUT.esp.start}", *arguments, MTOOLS_SKIP_CHECK="1")


ROOT = "root file system: "
# What is changed -> image, change, and the path and reason in the report's line after the summary.
ATTACKS: Mapping[str, tuple[str, Callable[[Path], object], str, str]] = {
    "a file": (RAW, lambda i: put(i, block(i, "usr/bin/sleep") + 9), "usr/bin/sleep", "its content is not what"),
    "a file added": (
        RAW,
        debugfs("cd usr/bin", "write evil evil"),
        "usr/bin/evil",
        "nothing that makes the image has it",
    ),
    "a set-id file added": (
        RAW,
        debugfs("rm a/1", "sif usr/bin/sleep mode 0100644", "cd a", "mknod null c 1 3", "sif 2 mode 0104755"),
        "a/2",
        "its mode is 4755, not what coreutils gives it",
    ),
    "a set-id file changed": (
        RAW,
        lambda i: two(i, "a/3", "usr/bin/sudo"),
        "usr/bin/sudo",
        "its content is not what coreutils gives it",
    ),
    "a file removed": (RAW, debugfs("rm a/7"), "a/7", "it is missing, although coreutils has it"),
    "a time": (RAW, debugfs("sif a/7 mtime 12345"), "a/7", "its time is 12345, not what coreutils gives it"),
    "a link": (RAW, debugfs("rm usr/bin/awk", "symlink usr/bin/awk x"), "usr/bin/awk", "it leads to x, which is not"),
    "slack": (RAW, lambda i: put(i, block(i, "a/3") + 4000), f"{ROOT}slack of /a/3", "6 bytes differ"),
    "the journal": (RAW, lambda i: put(i, block(i, "<8>") + 9000), f"{ROOT}journal", "6 bytes differ"),
    "an unused inode": (
        RAW,
        debugfs("sif <2000> block[3] 77"),
        f"{ROOT}inode 2000 without a path",
        r"\d+ bytes differ",
    ),
    "a free block": (RAW, lambda i: put(i, LAYOUT.root.start + 2**25), f"{ROOT}free blocks", "6 bytes differ"),
    "between partitions": (RAW, lambda i: put(i, 20000), "between partitions", "6 bytes differ from the rebuild"),
    "the boot sector": (RAW, lambda i: put(i, 20), "boot sector", "6 bytes differ from the rebuild"),
    "GRUB": (RAW, lambda i: put(i, layout.MIB), "BIOS boot partition", "6 bytes differ from the rebuild"),
    "the partition table": (RAW, lambda i: put(i, 1024 + 60), "partition table", "6 bytes differ from the rebuild"),
    "a disk cut off": (RAW, lambda i: os.truncate(i, LAYOUT.size - 512), "missing end", "512 bytes"),
    "a disk with more": (RAW, lambda i: append(i, b"x" * 512), "after the end", "512 bytes differ from the rebuild"),
    "a boot loader": (
        RAW,
        lambda i: mtool(i, "mdel", "::EFI/BOOT/BOOTX64.EFI"),
        f"{ESP}EFI/BOOT/BOOTX64.EFI",
        "it is missing, although shim-signed has it",
    ),
    "a superblock": (
        RAW,
        lambda i: put(i, LAYOUT.root.start + 1024 + 0x20, b"\xff\xff"),
        "root file system",
        "it cannot be read: the file system's superblock is damaged",
    ),
    "an ESP that is none": (
        RAW,
        lambda i: put(i, LAYOUT.esp.start, bytes(512)),
        "EFI system partition",
        "it cannot be read: the EFI system partition has no FAT32 file system",
    ),
    "a disk in a qcow2": (
        QCOW2,
        lambda i: run("qemu-io", "-c", "write -P 7 20480 512", i),
        "between partitions",
        "512 bytes differ from the rebuild",
    ),
    "a qcow2's header": (QCOW2, lambda i: put(i, 3000), QCOW2, "its content equals the rebuild, but its bytes as a"),
    "a feature's name": (QCOW2, lambda i: put(i, 130), QCOW2, "its content equals the rebuild, but its bytes as a"),
    "after a qcow2": (QCOW2, lambda i: append(i, b"hidden"), QCOW2, "its content equals the rebuild"),
    "a backing file": (QCOW2, lambda i: put(i, 8, b"\0" * 7 + b"\1"), QCOW2, "it cannot be read: .* a backing file"),
    "a qcow2 cut off": (QCOW2, lambda i: os.truncate(i, 100), QCOW2, "it cannot be read: .* is truncated"),
    "a member of a tar": (
        TAR_XZ,
        lambda i: member_in(i, b"sudo" * 100, b"suds" * 100),
        "usr/bin/sudo",
        "its content",
    ),
    "a member more": (TAR_XZ, more_in, "usr/bin/evil", "nothing that makes the image has it"),
    "padding in a tar": (
        TAR_XZ,
        lambda i: member_in(i, b'"20261120.0"\n\0', b'"20261120.0"\n\1'),
        "padding of /etc/cloud-release",
        "it differs from the rebuild at byte",
    ),
    "a comment in a tar": (TAR_XZ, comment_in, "headers of /usr/bin/sudo", r"\d+ bytes differ from the rebuild"),
    "a second .xz": (TAR_XZ, lambda i: append(i, i.read_bytes()), TAR_XZ, "its content equals the rebuild"),
    "another .xz": (TAR_XZ, lambda i: compress(i, "-0"), TAR_XZ, "its content equals the rebuild"),
    "a .xz cut off": (TAR_XZ, lambda i: os.truncate(i, 300), TAR_XZ, "it cannot be read: .* cannot be decompressed"),
}


@pytest.mark.parametrize(("image", "attack"), [(ATTACKS[name][0], name) for name in ATTACKS], indirect=["image"])
def test_what_differs_is_refused_and_told_in_order(
    image: Path, made: Made, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, change, where, why = ATTACKS[attack]
    monkeypatch.chdir(image.parent)
    change(image)
    report = made.verify(image, name)
    first, second, *_ = [(it.path, it.why) for it in report.unexplained]
    assert first == (name, "this is not the image of that .buildinfo")
    assert second[0] == where
    assert re.match(why, second[1]), second
    ranks = [it.rank for it in report.unexplained]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("name", [RAW, QCOW2, TAR_XZ])
def test_what_is_the_same_is_explained_by_what_was_made_again(
    made: Made, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identical file is accepted under any name and without being opened."""
    looked: list[Path] = []

    def look(path: Path, *_: object) -> AbstractContextManager[object]:
        looked.append(path)
        return opened(path)

    monkeypatch.setattr("debian_cloud.proof.verify.opened", look)
    monkeypatch.setattr("debian_cloud.proof.verify.unpacked", look)
    report = made.verify(made.folder / name, name)
    assert report.unexplained == ()
    assert {"usr/bin/sleep", "etc/cloud-release"} <= {it.path for it in report.explained}
    assert looked == [made.folder / name]


def test_what_a_person_unpacked_is_compared_as_a_disk(image: Path, made: Made) -> None:
    """A disk unpacked from a qcow2, or an uncompressed tar, is compared by content if the .buildinfo lacks it."""
    for name, digests in ((QCOW2, {QCOW2: made.digests[QCOW2]}), (TAR_XZ, {TAR_XZ: made.digests[TAR_XZ]})):
        given = image if name == QCOW2 else made.folder / f"{STEM}.tar"
        assert made.verify(given, name, digests).unexplained == ()
    put(image, 20000)
    assert [it.path for it in made.verify(image, QCOW2, {}).unexplained] == [image.name, "between partitions"]


def test_a_file_that_the_buildinfo_does_not_describe(made: Made) -> None:
    """Even if its packages make this file, the .buildinfo is of another image."""
    (it,) = made.verify(made.folder / RAW, RAW, {RAW: ("0" * 64, LAYOUT.size)}).unexplained
    assert (it.path, it.why) == (RAW, "this is not the image of that .buildinfo")


def test_a_file_that_the_buildinfo_describes_and_nothing_makes(image: Path, made: Made) -> None:
    put(image, 20000)
    got = checksums.digest(image, ("sha256-blocks",))
    report = made.verify(image, RAW, {RAW: (got.hashes["sha256-blocks"], got.size)})
    assert report.unexplained[0].why == ("this is the image of that .buildinfo, but its packages make another image")
    assert report.unexplained[1].path == "between partitions"


def test_a_foreign_image_says_which_it_is(image: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image.parent)
    debugfs("rm etc/cloud-release", "cd etc", "write evil cloud-release")(image)
    put(image, block(image, "etc/cloud-release"), b"ID=generic\n\x1b[2J".ljust(40))
    report = made.verify(image, RAW)
    assert [it.path for it in report.unexplained[:3]] == [RAW, RAW, "etc/cloud-release"]
    assert report.unexplained[1].why == 'it says that it is ID=generic \x1b[2J, not ID=ec2 VERSION="20261120.0"'
    assert "\x1b" not in verify._as_text("x", report)
    assert "\\x1b[2J" in verify._as_text("x", report)


def test_a_partition_table_of_its_own_hides_nothing(image: Path, made: Made) -> None:
    """A changed partition table with correct checksums is reported, and the other changes, too."""
    size = LAYOUT.size
    put(image, block(image, "usr/bin/sudo"))
    for header_at, entries_at in ((512, 1024), (size - 512, size - 512 - 128 * 128)):
        with image.open("rb") as file:
            file.seek(header_at)
            header = bytearray(file.read(92))
            file.seek(entries_at)
            table = bytearray(file.read(128 * 128))
        table[56:60] = b"E\0V\0"
        header[88:92] = struct.pack("<I", crc32(table))
        header[16:20] = bytes(4)
        header[16:20] = struct.pack("<I", crc32(header))
        put(image, header_at, bytes(header))
        put(image, entries_at, bytes(table))
    told = [it.path for it in made.verify(image, RAW).unexplained]
    assert told == [RAW, "usr/bin/sudo", "partition table", "copy of the partition table"]


@pytest.mark.parametrize("error", [Error("x\x1b[2J"), ValueError("x"), RecursionError(), MemoryError()])
def test_a_reader_that_fails_changes_no_verdict(
    image: Path, made: Made, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(image, 20000)
    entries = DiskImage.entries

    def fails(self: DiskImage) -> object:
        if self.name == image.name and self.view.read(20000, 6) == b"hidden":
            raise error
        return entries(self)

    monkeypatch.setattr(DiskImage, "entries", fails)
    report = made.verify(image, RAW)
    assert [it.path for it in report.unexplained] == [RAW, "root file system", "between partitions"]
    assert report.unexplained[1].why.startswith("it cannot be read: ")


def test_a_million_findings_take_no_memory(made: Made) -> None:
    tracemalloc.start()
    findings = Tally()
    for number in range(200_000):
        findings.add(Unexplained(f"usr/{number}", "it is missing", MISSING if number % 2 else verification.ADDED))
    findings.add(Unexplained("bin/su", "it is set-user-ID", verification.LOUD))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
    assert (findings.total, len(findings.first)) == (200_001, MOST)
    assert findings.first[0].path == "bin/su"
    kept = Buildinfo.parse(described(), "x")
    report = prove.Report(kept, {}, {}, (), unexplained=findings.first, more=findings.total - MOST)
    said = json.loads(json.dumps(verify._as_json(report)))
    assert (len(said["unexplained"]), said["more"]) == (MOST, 199_001)
    text = verify._as_text("x", report)
    assert "\n200001 are unexplained\n  bin/su: " in text
    assert text.endswith("\n  and 199951 more")


def test_a_tar_is_told_that_it_is_no_disk(made: Made, tmp_path: Path) -> None:
    """Another format is reported before anything is rebuilt, and not as a damaged file."""
    shutil.copy(made.folder / TAR_XZ, tmp_path / "x.tar.xz")
    (tmp_path / "x.tar.xz").write_bytes((made.folder / TAR_XZ).read_bytes()[:1000])
    kept = replace(Buildinfo.parse(described(), "x"), digests={RAW: made.digests[RAW]})
    with pytest.raises(Error, match=r"is not the image of that \.buildinfo: it is a tar\.xz, not a raw"):
        prove._format(tmp_path / "x.tar.xz", kept)


def test_what_was_made_again_is_found_in_the_image_s_format(made: Made, tmp_path: Path) -> None:
    assert prove._of_format(made.folder / RAW, "qcow2", "qcow2") == made.folder / QCOW2
    assert prove._of_format(made.folder / QCOW2, "raw", "raw") == made.folder / QCOW2
    assert prove._of_format(made.folder / TAR_XZ, "tar.xz", "tar") == made.folder / TAR_XZ
    alone = tmp_path / RAW
    run("cp", "--sparse=always", made.folder / RAW, alone)
    with pytest.raises(Error, match="is a raw, but the image is a qcow2") as raised:
        prove._of_format(alone, "qcow2", "qcow2")
    assert raised.value.status == 2
