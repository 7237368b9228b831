# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems as the builder makes them, and offsets in them that tests change."""

from __future__ import annotations

import mmap
import os
import random
import socket
import struct
import subprocess
from dataclasses import asdict
from pathlib import Path

from debian_cloud.build import scripts, steps
from debian_cloud.disk.opened import _data
from debian_cloud.image.entries import Entry
from debian_cloud.view import View

EPOCH = 1_700_000_000
BLOCK_SIZE = 4096
FILES = {
    "EFI/BOOT/BOOTX64.EFI": random.Random(1).randbytes(100_001),
    "EFI/BOOT/grubx64.efi": b"g" * 4096,
    "EFI/a rather long name/even longer, and with ümläute.cfg": b"configfile\n",
    "EFI/empty": b"",
    "EFI/BOOT/BOOTX64.CSV": b"x",
}
NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
"""cap_net_raw+ep, as setcap(8) writes it (linux/capability.h, VFS_CAP_REVISION_2)."""


def run(*argv: str | Path, stdin: str = "", **environment: str) -> str:
    done = subprocess.run(
        argv, env={**os.environ, **environment}, input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def debugfs(image: Path, *commands: str) -> str:
    """Change a file system as its owner could, with correct checksums, and return the output of the last command."""
    said = subprocess.run(
        ["debugfs", "-w", "-f", "-", image],
        env={**os.environ, "E2FSPROGS_FAKE_TIME": str(EPOCH)},
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not said.stderr.splitlines()[1:], said.stderr
    return said.stdout.rpartition("debugfs: ")[2].partition("\n")[2]


def make_tree(tree: Path) -> None:
    """Make paths of all kinds that an ordinary user can make."""
    (tree / "d" / "e").mkdir(parents=True)
    (tree / "a").write_text("hi\n")
    (tree / "a").chmod(0o4755)
    os.link(tree / "a", tree / "b")
    (tree / "empty").touch()
    (tree / "d" / "random").write_bytes(random.Random(1).randbytes(300_005))
    (tree / "short").symlink_to("a")
    (tree / "59").symlink_to("x" * 59)
    (tree / "60").symlink_to("x" * 60)
    (tree / "long").symlink_to("d/" * 1000 + "e")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(tree)
        end.bind("socket")
        os.chdir(here)
    with (tree / "sparse").open("wb") as file:
        # More extents than fit into an inode, so that there is a tree of them.
        for place in range(0, 40 * 2**16, 2**16):
            file.seek(place)
            file.write(b"piece")
        file.truncate(5 * 2**20)
    big = tree / "big"
    big.mkdir(mode=0o1777)
    for number in range(700):
        (big / f"a file whose name is rather long {number}").touch()
    (tree / os.fsdecode(b"latin1-\xe9")).write_text("é")
    (tree / "ünïcode").mkdir()
    deep = tree / ("deep " * 20) / ("deeper " * 20) / ("deepest " * 20)
    deep.mkdir(parents=True)
    (deep / ("file " * 20)).write_text("long")
    os.setxattr(deep, "user.short", b"1")
    os.setxattr(tree / "a", "user.short", b"value")
    os.setxattr(tree / "d", "user.short", b"1")
    os.setxattr(tree / "d", "user.long", b"long" * 200)
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (EPOCH - 5, EPOCH - 7), follow_symlinks=False)


def make_ext4(folder: Path, tree: Path, size: str = "300M", *, changed: bool = True) -> Path:
    """Make the file system of build/steps.py from a tree; `changed`: file a has another owner and a capability."""
    image, conf, times = folder / "ext4", folder / "mke2fs.conf", folder / "inode-times"
    conf.write_text(steps._MKE2FS_CONF)
    times.write_text(scripts.text("inode-times"))
    environment = {
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "E2FSPROGS_FAKE_TIME": str(EPOCH),
        "MKE2FS_CONFIG": str(conf),
    }
    extended = "hash_seed=6b0d8740-ae5f-5f4c-85b0-6ee34ff507df,nodiscard,assume_storage_prezeroed=1"
    run(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", "b6b2bf48-9433-56a8-afc2-2491328ed029"),
        *("-E", extended, "-d", tree, image, size),
        **environment,
    )
    # The changes of a package or an owner, which do not depend on the user who runs the test.
    capability = folder / "capability"
    capability.write_bytes(NET_RAW)
    if changed:
        debugfs(
            image,
            f"ea_set -f {capability} a security.capability",
            "sif a uid 70000",
            "sif a gid 4",
        )
    run("sh", times, image, "0", **environment)
    return image


def view(image: Path) -> View:
    """A view of a file's bytes that knows its holes."""
    with image.open("rb") as file:
        size = image.stat().st_size
        data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        return View(lambda offset, length: data[offset : offset + length], 0, size, tuple(_data(file.fileno(), size)))


def plain(entry: Entry) -> tuple[object, ...]:
    """An entry without its inode number, which differs in another file system."""
    return tuple(value for name, value in asdict(entry).items() if name != "inode")


def place(image: Path, path: str) -> int:
    """The offset of a file's first block."""
    return int(debugfs(image, f"blocks {path}").split()[0]) * BLOCK_SIZE


def put(image: Path, offset: int, data: bytes = b"hidden") -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        assert file.write(data) == len(data)


def make_fat(folder: Path, hidden: int = 0) -> Path:
    """Make the EFI system partition that build/steps.py makes, but smaller."""
    image = folder / "fat"
    with image.open("wb") as file:
        file.truncate(40 * 2**20)
    environment = {"MTOOLS_SKIP_CHECK": "1", "SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC"}
    mformat = ("mformat", "-i", image, "-F", "-v", "ESP", "-N", "a1ada376", "-T", str(40 * 2048))
    run(*mformat, "-h", "255", "-s", "63", "-H", str(hidden), "::", **environment)
    for sector in (0, 6):
        put(image, sector * 512 + 0x1BE, bytes(16))
    run("mmd", "-i", image, "::EFI", "::EFI/BOOT", "::EFI/a rather long name", **environment)
    for name, content in FILES.items():
        source = folder / "content"
        source.write_bytes(content)
        run("mcopy", "-i", image, source, f"::{name}", **environment)
    return image


def make_tar(folder: Path, tree: Path) -> Path:
    """Make the tar that formats/tar_xz.py makes of a tree, before compression."""
    archive = folder / "tar"
    run(
        *("tar", "--create", "--file", archive, "--format=pax"),
        *("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "--sort=name", "--numeric-owner"),
        *("--acls", "--xattrs", "--xattrs-include=*", f"--mtime=@{EPOCH}", "--clamp-mtime", f"--directory={tree}"),
        *("--exclude=./socket", "."),
        LC_ALL="C.UTF-8",
    )
    return archive


def member(name: bytes, kind: bytes = b"0", content: bytes = b"", link: bytes = b"") -> bytes:
    raw = struct.pack(
        "100s8s8s8s12s12s8sc100s8s", name, b"0000644", b"0000000", b"0000000", b"%011o" % len(content),
        b"00000000000", b" " * 8, kind, link, b"ustar\x0000",
    ).ljust(512, b"\0")  # fmt: skip
    raw = raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]
    return raw + content + bytes(-len(content) % 512)


ROOT = member(b"./", b"5")
END = bytes(1024)


def copy(source: Path, image: Path, offset: int) -> None:
    run("dd", f"if={source}", f"of={image}", f"seek={offset // 512}", "conv=notrunc,sparse", "status=none")


def append(image: Path, data: bytes) -> None:
    with image.open("ab") as file:
        file.write(data)
