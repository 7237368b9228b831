# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems are read as Debian's own tools made them, and every changed byte in them is found."""

from __future__ import annotations

import hashlib
import os
import random
import re
import stat
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud.disk.ext4.reader import Ext4
from debian_cloud.disk.fat import Fat
from debian_cloud.disk.tar import Tar
from debian_cloud.errors import Error
from debian_cloud.image.entries import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Entry
from debian_cloud.proof import verification
from debian_cloud.view import View
from tests.disk.made import (
    BLOCK_SIZE,
    END,
    EPOCH,
    FILES,
    NET_RAW,
    ROOT,
    debugfs,
    make_ext4,
    make_fat,
    make_tar,
    make_tree,
    member,
    place,
    plain,
    put,
    run,
    view,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFIFO: FIFO,
    stat.S_IFSOCK: SOCKET,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree") / "tree"
    make_tree(tree)
    return tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    return make_ext4(tmp_path_factory.mktemp("ext4"), tree)


@pytest.fixture
def image(tmp_path: Path, made: Path) -> Path:
    """A copy of a file system, to be changed."""
    run("cp", "--sparse=always", made, tmp_path / "ext4")
    return tmp_path / "ext4"


def read(image: Path) -> Ext4:
    return Ext4(view(image))


def places(image: Path, original: Path, reader: type[Ext4] | type[Fat] = Ext4) -> set[str]:
    """The names of the areas in which a file system was changed."""
    file_system = reader(view(original))
    return {file_system.place(at)[0] for at, _ in verification.differing(view(image), view(original))}


def of(tree: Path) -> dict[str, Entry]:
    """What stat(2) reports for a tree."""
    entries = {}
    for path in (tree, *tree.rglob("*")):
        status = path.lstat()
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        content = path.read_bytes() if kind == FILE else b""
        name = str(path.relative_to(tree)).removeprefix(".")
        entries[name] = Entry(
            name,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            int(status.st_mtime),
            len(content),
            hashlib.sha256(content).hexdigest() if kind == FILE else "",
            str(path.readlink()) if kind == SYMLINK else "",
            (os.major(status.st_rdev), os.minor(status.st_rdev)),
            tuple(
                sorted(
                    (x, os.getxattr(path, x, follow_symlinks=False))
                    for x in os.listxattr(path, follow_symlinks=False)
                )
            ),
            status.st_ino,
        )
    return entries


def test_ext4_entries_are_those_of_the_tree(image: Path, tree: Path) -> None:
    # An ordinary user cannot make devices.
    debugfs(image, "mknod null c 1 3", "mknod disk b 259 7000")
    entries = {entry.path: entry for entry in read(image).entries()}
    expected = of(tree)
    assert list(entries) == sorted(entries)
    assert entries.keys() - expected.keys() == {"lost+found", "null", "disk"}
    for path in expected.keys() - {"", "a", "b"}:
        assert plain(entries[path]) == plain(expected[path]), path
    assert entries["a"].inode == entries["b"].inode != entries["empty"].inode
    first, second = entries["a"], entries["b"]
    assert plain(first)[1:] == plain(second)[1:]
    assert (first.mode, first.uid, first.gid, first.mtime) == (0o4755, 70000, 4, EPOCH - 7)
    assert first.xattrs == (("security.capability", NET_RAW), ("user.short", b"value"))
    assert (entries["null"].kind, entries["null"].device) == (CHARACTER, (1, 3))
    assert (entries["disk"].kind, entries["disk"].device) == (BLOCK, (259, 7000))
    assert (entries["lost+found"].kind, entries["lost+found"].mode) == (DIRECTORY, 0o700)
    assert (entries[""].kind, entries[""].inode) == (DIRECTORY, 2)


def test_ext4_contents_are_those_of_the_tree(made: Path, tree: Path) -> None:
    file_system = read(made)
    for path in ("a", "empty", "sparse", "d/random"):
        assert file_system.content(path) == (tree / path).read_bytes()
    for path in ("", "d", "short", "none", "/a"):
        with pytest.raises(Error, match="no file"):
            file_system.content(path)


def test_hashed_directories_are_read(image: Path, tree: Path) -> None:
    """The kernel and e2fsck(8) give large directories such an index."""
    said = subprocess.run(["e2fsck", "-fyD", image], capture_output=True, text=True, check=False)
    assert said.returncode in (0, 1), said.stdout
    assert "0x81000" in debugfs(image, "stat big") or "Flags: 0x81000" in debugfs(image, "stat big")
    names = [entry.path for entry in read(image).entries() if entry.path.startswith("big/")]
    assert names == sorted(f"big/{path.name}" for path in (tree / "big").iterdir())


# Attacks: each hides something, or tries to mislead the reader.


def slot(image: Path, inode: str) -> int:
    """The offset of an inode."""
    said = re.search(r"located at block (\d+), offset (0x[0-9a-f]+)", debugfs(image, f"imap {inode}"))
    assert said
    return int(said[1]) * BLOCK_SIZE + int(said[2], 16)


def free_block(image: Path) -> int:
    said = re.search(r"(\d+)\s*$", debugfs(image, "ffb 1 20000"))
    assert said
    return int(said[1])


def deleted(image: Path) -> None:
    secret = image.with_name("secret")
    secret.write_bytes(b"hidden" * 1000)
    debugfs(image, f"write {secret} secret", "rm secret")


def orphan(image: Path) -> None:
    secret = image.with_name("secret")
    secret.write_bytes(b"hidden" * 1000)
    debugfs(image, f"write {secret} secret", "unlink secret")


def unwritten(image: Path) -> None:
    debugfs(image, "fallocate empty 0 2")
    put(image, place(image, "empty"))


PLACES: Mapping[str, tuple[Callable[[Path], object], set[str]]] = {
    "a deleted file": (deleted, {"free blocks", "inode N without a path", "directory /"}),
    "an orphan": (orphan, {"free blocks", "inode N without a path", "block bitmaps", "group descriptors"}),
    "a free block": (lambda i: put(i, free_block(i) * BLOCK_SIZE + 77), {"free blocks"}),
    "the last block": (lambda i: put(i, 300 * 2**20 - 6), {"free blocks"}),
    "a file": (lambda i: put(i, place(i, "d/random") + 4000), {"content of /d/random"}),
    "slack of a file": (lambda i: put(i, place(i, "a") + 4000), {"slack of /a"}),
    "slack after one byte": (lambda i: put(i, place(i, "d/random") + 300_005), {"slack of /d/random"}),
    "slack of a link": (lambda i: put(i, place(i, "long") + 2500), {"slack of /long"}),
    "extents": (lambda i: put(i, extents(i) + 4000), {"extents of /sparse"}),
    "attributes": (lambda i: put(i, attributes(i) + 2000), {"extended attributes of /d"}),
    "an unused inode": (lambda i: put(i, slot(i, "<2000>") + 40), {"inode N without a path"}),
    "the journal": (lambda i: put(i, place(i, "<8>") + 5 * BLOCK_SIZE), {"journal"}),
    "the journal's superblock": (lambda i: put(i, place(i, "<8>") + 300), {"journal"}),
    "the boot block": (lambda i: put(i, 3), {"superblock"}),
    "after the descriptors": (lambda i: put(i, BLOCK_SIZE + 3000), {"group descriptors"}),
    "kept descriptors": (lambda i: put(i, 2 * BLOCK_SIZE + 3000), {"blocks kept for growing"}),
    "their copies": (lambda i: put(i, (32768 + 9) * BLOCK_SIZE), {"blocks kept for growing"}),
    "the second superblock": (lambda i: put(i, 32768 * BLOCK_SIZE + 0x88), {"copies of the superblock"}),
    "a copy of the descriptors": (lambda i: put(i, 32769 * BLOCK_SIZE + 20), {"group descriptors"}),
    "a time": (lambda i: debugfs(i, "sif a atime 12345"), {"inode of /a"}),
    "a link's map": (lambda i: debugfs(i, "sif short block[7] 77"), {"inode of /short"}),
    "a directory": (lambda i: put(i, place(i, "d") + 2000), {"directory /d"}),
    "a block that nobody has": (lambda i: debugfs(i, "setb 20000"), {"block bitmaps"}),
    "a field of the superblock": (lambda i: debugfs(i, "ssv last_mounted /hidden"), {"superblock"}),
}


def extents(image: Path) -> int:
    """The offset of the node of a file's extent tree."""
    said = re.search(r"\(ETB0\):(\d+)", debugfs(image, "stat sparse"))
    assert said
    return int(said[1]) * BLOCK_SIZE


def attributes(image: Path) -> int:
    """The offset of a block of extended attributes."""
    said = re.search(r"File ACL: (\d+)", debugfs(image, "stat d"))
    assert said
    return int(said[1]) * BLOCK_SIZE


@pytest.mark.parametrize("attack", PLACES)
def test_every_place_of_ext4_has_a_name(image: Path, made: Path, attack: str) -> None:
    change, expected = PLACES[attack]
    change(image)
    assert expected <= {re.sub(r"inode \d+ ", "inode N ", where) for where in places(image, made)}


def loop(image: Path) -> None:
    debugfs(image, "link d d/e/loop")


def twice(image: Path) -> None:
    """Give two files of a directory the same name."""
    with image.open("rb") as file:
        file.seek(place(image, "/"))
        put(image, place(image, "/") + file.read(BLOCK_SIZE).index(b"\4\7long") + 2, b"fifo")


WRONG: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "a directory loop": (loop, "/d/e/loop leads to an inode that is not its own"),
    "a link to the root": (lambda i: debugfs(i, "link / d/e/loop"), "leads to an inode that is not its own"),
    "a link to the journal": (lambda i: debugfs(i, "link <8> secret"), "leads to an inode that is not its own"),
    "a link to an unused inode": (
        lambda i: debugfs(i, "link <2000> secret"),
        "/secret has inode 2000, which is not in",
    ),
    "a damaged directory": (lambda i: put(i, place(i, "d") + 4, b"\1"), "the directory /d is damaged"),
    "a name twice": (lambda i: twice(i), "has fifo twice"),
    "groups outside": (lambda i: put(i, BLOCK_SIZE, b"\xff" * 4), "group 0 of the file system is outside"),
    "extents that are none": (lambda i: debugfs(i, "sif a block[0] 77"), "extents of /a are damaged"),
    "extents without end": (lambda i: debugfs(i, "sif sparse block[1] 0x70004"), "extents of /sparse are damaged"),
    "a block outside": (lambda i: debugfs(i, "sif a block[5] 4000000000"), "are outside the file system"),
    "a file without end": (lambda i: debugfs(i, f"sif sparse size {2**60}"), "larger than their file system"),
    "a kind that is none": (lambda i: debugfs(i, "sif a mode 0xf000"), "not in use"),
    "a link that is too long": (lambda i: debugfs(i, "sif short size 2000"), "/short is damaged"),
    "encryption": (lambda i: debugfs(i, "sif a flags 0x80800"), "an unsupported kind"),
    "a feature": (lambda i: debugfs(i, "feature inline_data"), "unsupported features"),
    "a journal to replay": (lambda i: debugfs(i, "feature needs_recovery"), "unsupported features"),
    "no superblock": (lambda i: put(i, 1024, bytes(1024)), "no ext4 file system"),
    "one cut off": (lambda i: os.truncate(i, 100 * 2**20), "larger than its partition"),
    "one cut to nothing": (lambda i: os.truncate(i, 1500), "damaged or truncated|points to"),
}


@pytest.mark.parametrize("attack", WRONG)
def test_a_wrong_ext4_is_refused_in_one_sentence(image: Path, attack: str) -> None:
    change, words = WRONG[attack]
    change(image)

    def look() -> None:
        list(read(image).entries())

    with pytest.raises(Error, match=words) as raised:
        look()
    assert "\n" not in raised.value.message


def test_garbage_is_no_file_system() -> None:
    for seed in range(20):
        data = bytearray(random.Random(seed).randbytes(2**20))
        for reader in (Ext4, Fat, Tar):
            with pytest.raises(Error):
                reader(View.of(bytes(data)))
        data[0x438:0x43A] = b"\x53\xef"
        data[510:512] = b"\x55\xaa"
        for reader in (Ext4, Fat):
            with pytest.raises(Error):
                reader(View.of(bytes(data)))


# FAT32.


@pytest.fixture(scope="module")
def made_fat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fat(tmp_path_factory.mktemp("fat"))


@pytest.fixture
def fat(tmp_path: Path, made_fat: Path) -> Path:
    run("cp", "--sparse=always", made_fat, tmp_path / "fat")
    return tmp_path / "fat"


def test_fat_entries_are_what_was_copied(made_fat: Path) -> None:
    file_system = Fat(view(made_fat))
    entries = {entry.path: entry for entry in file_system.entries()}
    folders = {"", "EFI", "EFI/BOOT", "EFI/a rather long name"}
    assert {path for path, entry in entries.items() if entry.kind == DIRECTORY} == folders
    assert entries.keys() - folders == FILES.keys()
    for path, content in FILES.items():
        assert entries[path].size == len(content)
        assert entries[path].sha256 == hashlib.sha256(content).hexdigest()
        assert entries[path].mtime == EPOCH
        assert file_system.content(path) == content
    with pytest.raises(Error, match="no file none"):
        file_system.content("none")


def mtools(image: Path, *argv: str) -> str:
    return run(argv[0], "-i", image, *argv[1:], MTOOLS_SKIP_CHECK="1", SOURCE_DATE_EPOCH=str(EPOCH), TZ="UTC")


def of_fat(image: Path, path: str) -> int:
    """The offset of a file's first cluster."""
    file_system = Fat(view(image))
    return int(file_system._data + (first(file_system, path) - 2) * file_system._cluster)


def first(file_system: Fat, path: str) -> int:
    """The number of a file's first cluster."""
    (cluster,) = (entry.inode for entry in file_system.entries() if entry.path == path)
    return cluster


PLACES_IN_FAT: Mapping[str, tuple[Callable[[Path], object], set[str]]] = {
    "a deleted file": (
        lambda i: mtools(i, "mdel", "::EFI/BOOT/grubx64.efi"),
        {"directory /EFI/BOOT", "file allocation table", "boot sector and reserved sectors"},
    ),
    "a free cluster": (lambda i: put(i, 30 * 2**20), {"free clusters"}),
    "the last sector": (lambda i: put(i, 40 * 2**20 - 6), {"free clusters"}),
    "a file": (lambda i: put(i, of_fat(i, "EFI/BOOT/BOOTX64.EFI") + 300), {"content of /EFI/BOOT/BOOTX64.EFI"}),
    "slack of a file": (
        lambda i: put(i, of_fat(i, "EFI/BOOT/BOOTX64.CSV") + 300),
        {"slack of /EFI/BOOT/BOOTX64.CSV"},
    ),
    "slack of a directory": (lambda i: put(i, of_fat(i, "EFI") + 400), {"directory /EFI"}),
    "a reserved sector": (lambda i: put(i, 10 * 512), {"boot sector and reserved sectors"}),
    "the second table": (lambda i: put(i, Fat(view(i))._data - 600), {"file allocation table"}),
    "a hidden file": (lambda i: mtools(i, "mattrib", "+h", "::EFI/BOOT/grubx64.efi"), {"directory /EFI/BOOT"}),
}


@pytest.mark.parametrize("attack", PLACES_IN_FAT)
def test_every_place_of_fat_has_a_name(fat: Path, made_fat: Path, attack: str) -> None:
    change, expected = PLACES_IN_FAT[attack]
    change(fat)
    assert places(fat, made_fat, Fat) == expected


def chain(image: Path, path: str, following: int) -> None:
    """Make `following` a file's second cluster."""
    file_system = Fat(view(image))
    put(image, file_system._table_at + 4 * first(file_system, path), struct.pack("<I", following))


WRONG_FAT: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "a chain without end": (lambda i: chain(i, "EFI/BOOT/BOOTX64.EFI", 6), "the clusters of /EFI/.* are damaged"),
    "a directory loop": (lambda i: chain(i, "EFI", 3), "the clusters of /EFI on .* are damaged"),
    "a cluster outside": (lambda i: chain(i, "EFI/BOOT/BOOTX64.EFI", 2**27), "are damaged"),
    "a chain cut short": (lambda i: chain(i, "EFI/BOOT/BOOTX64.EFI", 0x0FFFFFFF), "more or fewer clusters"),
    "another sector size": (lambda i: put(i, 11, b"\x00\x10"), "is damaged"),
    "no boot sector": (lambda i: put(i, 510, b"\0\0"), "no FAT32"),
    "one cut off": (lambda i: os.truncate(i, 2**20), "is damaged"),
    "a month that is none": (lambda i: put(i, of_fat(i, "EFI") + 64 + 24, b"\xff\xff"), "an invalid time"),
}


@pytest.mark.parametrize("attack", WRONG_FAT)
def test_a_wrong_fat_is_refused_in_one_sentence(fat: Path, attack: str) -> None:
    change, words = WRONG_FAT[attack]
    change(fat)
    with pytest.raises(Error, match=words) as raised:
        Fat(view(fat))
    assert "\n" not in raised.value.message


# tar.


@pytest.fixture(scope="module")
def made_tar(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    return make_tar(tmp_path_factory.mktemp("tar"), tree)


def test_tar_entries_are_those_of_the_tree(made_tar: Path, tree: Path) -> None:
    tar = Tar(view(made_tar))
    entries = {entry.path: entry for entry in tar.entries()}
    expected = of(tree)
    assert entries.keys() == expected.keys() - {"socket"}
    for path, entry in entries.items():
        assert plain(entry) == plain(expected[path]), path
    assert entries["a"].inode == entries["b"].inode != entries["empty"].inode
    assert tar.content("sparse") == (tree / "sparse").read_bytes()


def test_ext4_and_tar_say_the_same(made: Path, made_tar: Path) -> None:
    of_disk = {entry.path: plain(entry) for entry in read(made).entries()}
    of_tar = {entry.path: plain(entry) for entry in Tar(view(made_tar)).entries()}
    # Only the disk has the owner and capability that were changed; mke2fs makes the root directory itself.
    differing = {path for path in of_disk.keys() & of_tar.keys() - {""} if of_disk[path] != of_tar[path]}
    assert differing == {"a", "b"}
    assert of_disk.keys() ^ of_tar.keys() == {"lost+found", "socket"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (ROOT + member(b"./a") + member(b"./a") + END, "has /a twice"),
        (ROOT + member(b"./a") + member(b"a") + END, "has /a twice"),
        (ROOT + member(b"./../a") + END, "leads out of the tree"),
        (ROOT + member(b"/etc/a") + END, "leads out of the tree"),
        (ROOT + member(b"./a//b") + END, "leads out of the tree"),
        (ROOT + member(b"./a", b"2", link=b"/etc") + member(b"./a/b") + END, "not its directory before it"),
        (ROOT + member(b"./a/b") + END, "not its directory before it"),
        (ROOT + member(b"./a", b"1", link=b"./b") + member(b"./b") + END, "the hard link /a before its target"),
        (ROOT + member(b"./a", b"1", link=b"../b") + END, "leads out of the tree"),
        (ROOT + member(b"./a", b"2") + END, "without a valid target"),
        (ROOT + member(b"./a", b"S") + END, "of an unsupported type"),
        (ROOT + member(b"./a", b"g", b"15 path=secret\n") + END, "of an unsupported type"),
        (ROOT + member(b"./a", b"5", b"hidden") + END, "unexpected content"),
        (ROOT + member(b"./x", b"x", b"99 path=a\n") + member(b"./a") + END, "extended header that is damaged"),
        (ROOT + member(b"./x", b"x", b"12 mtime=-9\n") + member(b"./a") + END, "an invalid mtime"),
        (ROOT + member(b"./x", b"x", b"10 path=a\n") + END, "ends within a member"),
        (ROOT + member(b"./a", content=b"x" * 2000)[:1024], "points to bytes"),
        (ROOT, "points to bytes"),
        (ROOT[:300], "points to bytes"),
        (ROOT.replace(b"0000644", b"0000645"), "is damaged at byte 0"),
    ],
)
def test_a_wrong_tar_is_refused_in_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(Error, match=words) as raised:
        Tar(View.of(data))
    assert "\n" not in raised.value.message


def test_every_place_of_a_tar_has_a_name() -> None:
    data = ROOT + member(b"./x", b"x", b"11 mtime=9\n") + member(b"./a", content=b"x" * 600)
    data += member(b"./b", b"1", link=b"./a") + END
    tar = Tar(View.of(data))
    names = [tar.place(at) for at in (0, 600, 1030, 1540, 2200, 3000, 3080, len(data) - 1)]
    assert names == [
        ("headers of /", ""),
        ("headers of /a", "a"),
        ("headers of /a", "a"),
        ("headers of /a", "a"),
        ("content of /a", "a"),
        ("padding of /a", "a"),
        ("headers of /b", "b"),
        ("after the end of the tar archive", ""),
    ]
