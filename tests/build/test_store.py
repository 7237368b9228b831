# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers in the cache: what is taken is what was kept, or it is not used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from debian_cloud.build import store
from debian_cloud.build.scripts import install
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.packages import cache

ROOT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

IDS = tuple(hashlib.sha256(bytes([number])).hexdigest() for number in range(6))
Change = Callable[[Path], object]


def picture(tree: Path) -> dict[bytes, tuple[object, ...]]:
    """All that belongs to the files of a tree: by path, with the names of the same file."""
    found: dict[bytes, tuple[object, ...]] = {}
    same: dict[int, list[bytes]] = {}
    top = os.fsencode(tree)
    for path in [top, *(at + b"/" + name for at, *names in os.walk(top) for kind in names for name in kind)]:
        status = os.lstat(path)
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = Path(os.fsdecode(path)).read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = Path(os.fsdecode(path)).readlink()
        # dpkg does not change the time of a symlink alone, but tar(1) keeps it.
        attributes = {name: os.getxattr(path, name, follow_symlinks=False)
                      for name in os.listxattr(path, follow_symlinks=False)}  # fmt: skip
        names = [] if stat.S_ISDIR(status.st_mode) else same.setdefault(status.st_ino, [])
        names.append(path[len(top) :])
        owner = (status.st_uid, status.st_gid)
        found[path[len(top) :]] = (oct(status.st_mode), owner, status.st_mtime_ns, content, attributes, names)
    for value in found.values():
        if isinstance(value[-1], list):
            value[-1].sort()
    return found


class Builder:
    """A workspace and a cache; `stage` changes the tree and keeps it."""

    def __init__(self, folder: Path, place: Path | None = None) -> None:
        self.folder, self.place = folder, place or folder / "cache" / cache.LAYERS
        self.place.mkdir(parents=True, exist_ok=True)
        self.tree = folder / "work" / "tree"
        self.tree.mkdir(parents=True)
        self.made: list[str] = []
        self.said: list[str] = []

    def stage(self, change: Change) -> str:
        change(self.tree)
        layer = IDS[len(self.made)]
        self.said.append(store.keep(self.place, self.tree, layer, f"stage {layer[:4]}"))
        self.made.append(layer)
        return layer

    def taken(self) -> Path:
        """A tree that is made of all layers."""
        place = self.folder / "again"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        self.take(place / "tree")
        return place / "tree"

    def take(self, tree: Path) -> None:
        tree.mkdir()
        store.take(self.place, tree, [self.name(layer) for layer in self.made])

    def name(self, layer: str) -> str:
        """The name of the file of a layer, which may not be there."""
        return next((path.name for path in self.place.glob(f"{layer}-*")), f"{layer}-{'0' * 64}")

    def file(self, number: int) -> Path:
        (path,) = self.place.glob(f"{IDS[number]}-*")
        return path

    def begin(self, ids: tuple[str, ...] = IDS[:3]) -> tuple[str, ...]:
        """The layers that a build would use."""
        with store.opened(2**40) as kept:
            return ids_of(kept.begin(ids))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.place.iterdir())


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setattr(cache, "place", lambda: tmp_path / "cache")
    return Builder(tmp_path)


@pytest.fixture
def three(builder: Builder) -> Builder:
    """Three layers are in the cache."""
    for number in range(3):
        builder.stage(write(f"file{number}", f"content {number}"))
    return builder


def ids_of(names: Sequence[str]) -> tuple[str, ...]:
    """The ids of layers' files."""
    return tuple(name[:64] for name in names)


def nothing(_: object) -> None:
    """No change, and no layer."""


def write(name: str, content: str | bytes = "content") -> Change:
    def change(tree: Path) -> None:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def first(tree: Path) -> None:
    """Fill a tree with some of everything."""
    for folder in ("usr/bin", "etc/dir/below", "var/old/deep", "swap/one", "swap/two", "empty", "modes"):
        (tree / folder).mkdir(parents=True)
    files = ["etc/file", "etc/dir/child", "etc/dir/below/child", "var/old/deep/child", "usr/bin/a", "usr/bin/gone"]
    for name in (*files, "swap/one/x", "swap/two/x", "etc/becomes-dir", "etc/becomes-link", "modes/setuid"):
        (tree / name).write_text(name)
    (tree / "etc/link").symlink_to("dir")
    (tree / "etc/dangling").symlink_to("/nowhere")
    os.link(tree / "usr/bin/a", tree / "usr/bin/b")
    os.link(tree / "usr/bin/a", tree / "etc/c")
    os.mkfifo(tree / "var/fifo", 0o640)
    (tree / "modes/setuid").chmod(0o6755)
    (tree / "modes").chmod(0o3777)
    (tree / "empty").chmod(0o500)
    for odd in (b"new\nline", b"-rf", b"\xff\xfe", b"a\\nb", b"star*", b"\xe9" * 200, "ü".encode() * 70):
        Path(os.fsdecode(os.fsencode(tree / "etc") + b"/" + odd)).write_bytes(odd)
    with (tree / "var/sparse").open("wb") as file:
        file.truncate(2**24)
        file.seek(2**22)
        file.write(b"in the middle")
    os.utime(tree / "etc/file", ns=(1, 1_234_567_890_123_456_789))
    os.utime(tree / "usr", ns=(1, 987_654_321_987_654_321))
    os.utime(tree / "etc/link", ns=(1, 1_000_000_000_000_000_001), follow_symlinks=False)


def second(tree: Path) -> None:
    """Change all of that in some way."""
    (tree / "etc/file").write_text("changed")
    (tree / "usr/bin/gone").unlink()
    shutil.rmtree(tree / "etc/dir")
    (tree / "etc/dir").symlink_to("/usr")
    (tree / "etc/link").unlink()
    (tree / "etc/link").mkdir()
    (tree / "etc/link/inside").write_text("x")
    for name in ("etc/becomes-dir", "etc/becomes-link"):
        (tree / name).unlink()
    (tree / "etc/becomes-dir/deep").mkdir(parents=True)
    (tree / "etc/becomes-link").symlink_to("file")
    (tree / "var/old").rename(tree / "var/new")
    (tree / "swap/one").rename(tree / "swap/three")
    (tree / "swap/two").rename(tree / "swap/one")
    (tree / "swap/three").rename(tree / "swap/two")
    os.link(tree / "usr/bin/a", tree / "usr/bin/later")
    (tree / "etc/c").unlink()
    (tree / "var/fifo").unlink()
    (tree / "modes").chmod(0o755)
    (tree / "empty").rmdir()
    (tree / "-dash").mkdir()
    Path(os.fsdecode(os.fsencode(tree / "etc") + b"/\xff\xfe")).unlink()


def third(tree: Path) -> None:
    """Change some of it again, and back."""
    (tree / "etc/dir").unlink()
    (tree / "etc/dir").mkdir()
    (tree / "etc/dir/child").write_text("etc/dir/child")
    shutil.rmtree(tree / "etc/becomes-dir")
    (tree / "etc/becomes-dir").write_text("a file again")
    (tree / "usr/bin/b").unlink()
    (tree / "usr/bin/b").write_text("its own now")
    (tree / "var/new").rename(tree / "var/old")
    (tree / "modes/setuid").chmod(0o4711)
    os.utime(tree / "usr/bin", ns=(1, 5))


def test_a_tree_is_the_same_after_each_of_its_layers(builder: Builder) -> None:
    for change in (first, second, third, nothing):
        builder.stage(change)
        assert picture(builder.taken()) == picture(builder.tree)
    assert not {path.suffix for path in builder.place.iterdir()} - {""}


def test_a_tree_that_was_taken_goes_on_as_one_that_was_made(builder: Builder) -> None:
    builder.stage(first)
    (builder.folder / "work").rename(builder.folder / "old")
    (builder.folder / "work").mkdir()
    builder.take(builder.tree)
    for change in (second, third):
        builder.stage(change)
    assert picture(builder.taken()) == picture(builder.tree)


def in_place(tree: Path) -> None:
    """Write to a file, as a maintainer script does: its directory does not change."""
    with (tree / "etc/file").open("a") as file:
        file.write("more")


def test_the_time_of_a_directory_stays_when_only_a_file_in_it_changes(builder: Builder) -> None:
    builder.stage(first)
    os.utime(builder.tree / "etc", ns=(1, 1_000_000_000_000_000_000))
    builder.stage(nothing)
    builder.stage(in_place)
    assert picture(builder.taken()) == picture(builder.tree)


@needs_root
def test_owners_and_capabilities_stay(builder: Builder) -> None:
    def give(tree: Path) -> None:
        for number, name in enumerate(("etc/file", "usr/bin/a", "etc", "var/fifo"), 1000):
            os.chown(tree / name, number, number + 1)
        os.lchown(tree / "etc/link", 7, 8)
        # cap_net_raw+ep (capability(7), revision 2).
        os.setxattr(tree / "usr/bin/gone", "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
        os.chown(tree / "modes/setuid", 5, 5)
        (tree / "modes/setuid").chmod(0o6755)

    builder.stage(first)
    builder.stage(give)
    assert picture(builder.taken()) == picture(builder.tree)
    assert os.getxattr(builder.taken() / "usr/bin/gone", "security.capability")


def test_extended_attributes_stay_and_go(builder: Builder) -> None:
    def put(tree: Path) -> None:
        for name in ("file", "folder", "file2", "folder2"):
            (tree / name).mkdir() if "folder" in name else (tree / name).touch()
            os.setxattr(tree / name, "user.one", b"\0\xff one")

    def change(tree: Path) -> None:
        for name in ("file", "folder"):
            os.removexattr(tree / name, "user.one")
            os.setxattr(tree / f"{name}2", "user.one", b"other")

    builder.stage(put)
    builder.stage(change)
    assert picture(builder.taken()) == picture(builder.tree)


def test_what_the_installer_goes_on_with_comes_back(builder: Builder) -> None:
    for number, name in enumerate((install.ASKED, install.NEWEST)):
        (builder.tree.parent / name).write_text(str(number))
        builder.stage(nothing)
    taken = builder.taken().parent
    assert [(taken / name).read_text() for name in (install.ASKED, install.NEWEST)] == ["0", "1"]
    assert {path.name for path in taken.iterdir()} == {"tree", install.ASKED, install.NEWEST, store._LISTING}


def test_a_layer_has_only_what_has_changed(builder: Builder) -> None:
    builder.stage(write("large", os.urandom(2**20)))
    builder.stage(write("small"))
    assert builder.file(0).stat().st_size > 2**20
    assert builder.file(1).stat().st_size < 2**16


def test_a_hole_takes_no_room(builder: Builder) -> None:
    def change(tree: Path) -> None:
        with (tree / "lastlog").open("wb") as file:
            file.truncate(2**32)

    builder.stage(change)
    assert builder.file(0).stat().st_size < 2**16
    assert (builder.taken() / "lastlog").stat().st_size == 2**32
    assert (builder.taken() / "lastlog").stat().st_blocks == 0


def test_the_same_tree_is_the_same_layer(tmp_path: Path) -> None:
    """Then a layer made again has the same name, and those on top of it are still of use."""
    names = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        builder = Builder(tmp_path / name)

        def change(tree: Path) -> None:
            first(tree)
            (tree / "var/sparse").unlink()
            for path in (*tree.rglob("*"), tree):
                os.utime(path, (5, 5), follow_symlinks=False)

        builder.stage(change)
        names += builder.names()
    assert names[0] == names[1]


# A change that is not seen would be lost.


@pytest.mark.parametrize("when", [0, 2**33 * 10**9])
def test_a_time_that_is_set_back_hides_no_change(builder: Builder, when: int) -> None:
    def change(tree: Path) -> None:
        before = (tree / "file").stat()
        (tree / "file").write_text("CONTENT")
        os.utime(tree / "file", ns=(before.st_atime_ns, before.st_mtime_ns))

    write("file")(builder.tree)
    os.utime(builder.tree / "file", ns=(when, when))
    builder.stage(nothing)
    builder.stage(change)
    assert (builder.taken() / "file").read_text() == "CONTENT"
    assert picture(builder.taken()) == picture(builder.tree)


def test_two_changes_one_after_the_other_are_two(builder: Builder) -> None:
    """They could have the same time: that of the last tick of the kernel's clock."""
    for number in range(6):

        def change(tree: Path, number: int = number) -> None:
            (tree / "file").write_text(str(number))
            os.utime(tree / "file", (5, 5))

        builder.stage(change)
        assert (builder.taken() / "file").read_text() == str(number)


def test_a_change_right_after_a_tree_was_taken_is_seen(builder: Builder) -> None:
    builder.stage(write("file"))
    for _ in range(10):
        tree = builder.taken()
        before = (tree / "file").stat()
        with (tree / "file").open("r+") as file:
            file.write("CONTENT")
        os.utime(tree / "file", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert store._noted(tree)[1] != store._found(tree)


# Damaged and foreign files.


def header(**fields: object) -> bytes:
    return (
        json.dumps({"layer": IDS[1], "stage": "x", "last": "", "removed": [], "bare": [], **fields}).encode() + b"\n"
    )


def named(path: Path, content: bytes) -> None:
    """Replace a layer by another content, whose SHA-256 is in its name."""
    path.unlink()
    path.with_name(f"{IDS[1]}-{hashlib.sha256(content).hexdigest()}").write_bytes(content)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def linked(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to("../elsewhere")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def folder(path: Path) -> None:
    path.unlink()
    (path / "full").mkdir(parents=True)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGED: dict[str, Change] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "without its last byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "flipped": flipped,
    "empty": lambda path: os.truncate(path, 0),
    "empty, and named so": lambda path: named(path, b""),
    "no JSON": lambda path: named(path, b"{\n"),
    "other JSON": lambda path: named(path, b"[1]\n"),
    "no UTF-8": lambda path: named(path, b'{"layer": "\xff"}\n'),
    "deep JSON": lambda path: named(path, b"[" * 10**6 + b"\n"),
    "long line": lambda path: named(path, b"x" * 20_000_000),
    "long JSON": lambda path: named(path, header(stage="x" * 20_000_000)),
    "upwards": lambda path: named(path, header(removed=["usr/../../x"])),
    "absolute": lambda path: named(path, header(removed=["/x"])),
    "attributes upwards": lambda path: named(path, header(bare=["../x"])),
    "no name": lambda path: named(path, header(removed=[1])),
    "no names": lambda path: named(path, header(removed="file0")),
    "nothing removed": lambda path: named(path, b'{"layer": "%s"}\n' % IDS[1].encode()),
    "of another layer": lambda path: named(path, header(layer=IDS[0])),
    "on top of another": lambda path: named(path, header(last="0" * 64)),
    "symlink": linked,
    "dangling": dangling,
    "folder": folder,
    "fifo": fifo,
    "name": lambda path: path.rename(path.with_name(f"{IDS[1]}-x")),
    "group": lambda path: path.chmod(0o620),
    "world": lambda path: path.chmod(0o602),
    "unreadable": lambda path: path.chmod(0o000) if os.geteuid() else path.chmod(0o002),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_not_used_and_goes(three: Builder, damage: Change) -> None:
    damage(three.file(1))
    (bad,) = three.place.glob(f"{IDS[1]}-*")
    assert {layer.id for layer in store.listed()} - {IDS[1]} == {IDS[0], IDS[2]}
    assert three.begin() == IDS[:1]
    assert not os.path.lexists(bad)
    three.made = [*IDS[:1]]
    assert {path.name for path in three.taken().iterdir()} == {"file0"}


@needs_root
def test_what_another_user_owns_is_not_used(three: Builder) -> None:
    os.chown(three.file(1), 65534, 65534)
    assert three.begin() == IDS[:1]
    assert [*three.place.glob(f"{IDS[1]}-*")] == []


@pytest.mark.parametrize("whole", [True, False])
def test_layers_that_have_each_other_s_names_are_not_used(three: Builder, whole: bool) -> None:
    one, two = three.file(0), three.file(1)
    contents = [one.read_bytes(), two.read_bytes()]
    if whole:
        (one_digest, two_digest) = (store._digest(path.name) for path in (one, two))
        one.unlink()
        two.unlink()
        one, two = three.place / f"{IDS[0]}-{two_digest}", three.place / f"{IDS[1]}-{one_digest}"
    for path, content in zip((one, two), reversed(contents), strict=True):
        path.write_bytes(content)
        path.chmod(0o600)
    assert three.begin() == ()


def test_sound_layers_are_used(three: Builder) -> None:
    assert three.begin() == IDS[:3]
    assert [layer.stage for layer in store.listed()] == [f"stage {layer[:4]}" for layer in IDS[:3]]
    assert three.begin(IDS[:2]) == IDS[:2]
    assert three.begin((IDS[0], IDS[4], IDS[2])) == IDS[:1]
    assert three.begin(()) == ()
    assert len(three.names()) == 3


def test_a_layer_is_put_on_top_of_no_other_tree(three: Builder) -> None:
    """Its id is the same, but the layer before it was made anew, and is not the same."""
    other = Builder(three.folder / "other")
    other.stage(write("file0", "another content"))
    three.file(0).unlink()
    shutil.copy(other.file(0), three.place)
    assert three.begin() == IDS[:1]
    assert [path.name[:64] for path in three.place.iterdir() if path.name[:64] == IDS[1]] == []


def test_of_each_layer_one_is_kept(three: Builder) -> None:
    other = Builder(three.folder / "other")
    other.place = three.place
    for number in range(2):
        other.stage(write("file0", f"another content {number}"))
    assert len(three.names()) == 3
    # The third was made on top of what is gone.
    assert three.begin() == IDS[:2]
    three.made = [*IDS[:2]]
    assert (three.taken() / "file0").read_text() == "another content 1"


def test_a_layer_that_is_gone_is_told(three: Builder) -> None:
    three.file(1).unlink()
    with pytest.raises(Error, match=f"the layer {IDS[1]}-0* is gone from the cache"):
        three.taken()
    other = Builder(three.folder / "other", three.place)
    other.stage(write("file0", "another content"))
    three.made = [IDS[0], IDS[2]]
    with pytest.raises(Error, match=f"the layer {three.name(IDS[2])} is gone from the cache"):
        three.taken()


def test_a_sound_layer_for_which_there_is_no_room_is_not_called_damaged(
    three: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Error("tar: the disk is full", "free some space")
    monkeypatch.setattr(run, "fed", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(Error, match="tar: the disk is full"):
        three.taken()


@pytest.mark.parametrize("change", ["content", "header", "shorter", "half", "symlink", "open"])
def test_a_layer_that_changes_after_it_was_checked_is_not_taken(three: Builder, change: str) -> None:
    with store.opened(2**40) as kept:
        names = kept.begin(IDS[:3])
    path = three.place / names[1]
    content = path.read_bytes()
    if change == "content":
        path.write_bytes(content.replace(b"content 1", b"CONTENT 1"))
    elif change == "header":
        path.write_bytes(content.replace(b'"removed": []', b'"removed": ["file0"]'))
    elif change == "shorter":
        os.truncate(path, len(content) - 1)
    elif change == "half":
        os.truncate(path, len(content) // 2)
    elif change == "symlink":
        path.rename(three.folder / "elsewhere")
        path.symlink_to(three.folder / "elsewhere")
    else:
        path.chmod(0o666)
    (three.folder / "tree").mkdir()
    with pytest.raises(Error, match=f"{names[1]} is gone from the cache, or damaged"):
        store.take(three.place, three.folder / "tree", names)


def test_attributes_of_the_machine_are_in_no_layer(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label of SELinux cannot be taken away, and belongs to the machine."""
    listed = os.listxattr
    monkeypatch.setattr(
        os, "listxattr", lambda path, **options: [*listed(path, **options), "security.selinux", "trusted.x"]
    )
    builder.stage(lambda tree: (tree / "folder").mkdir())
    builder.stage(write("folder/file"))
    assert (builder.taken() / "folder/file").exists()


@pytest.mark.parametrize("open_to", [0o020, 0o002])
def test_a_cache_that_others_may_write_to_is_not_used(three: Builder, open_to: int) -> None:
    three.place.chmod(0o755 | open_to)
    with pytest.raises(Error, match="other users may write to it"):
        three.begin()


@needs_root
def test_a_cache_of_another_user_is_not_used(three: Builder) -> None:
    os.chown(three.place, 65534, 65534)
    with pytest.raises(Error, match="belongs to another user"):
        three.begin()


def test_a_socket_is_not_lost(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """tar(1) leaves it out, so an image with the layer would be another one than without."""
    monkeypatch.chdir(builder.tree)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
    builder.stage(nothing)
    assert builder.said[0].startswith("there is a socket")
    assert builder.names() == []


# A full disk, and others.

MOUNTED = """
import os, subprocess, sys
from pathlib import Path
subprocess.run(["mount", "-t", "tmpfs", "-o", sys.argv[1], "tmpfs", sys.argv[2]], check=True)
sys.path.insert(0, sys.argv[3])
from tests.build.test_store import Builder, IDS, ids_of, picture, store, write
place = Path(sys.argv[2])
(place / "free").write_bytes(bytes(2**20))
builder = Builder(Path(sys.argv[2]).parent, place / "layers")
"""


def mounted(tmp_path: Path, options: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a script with a cache on a file system of its own."""
    (tmp_path / "disk").mkdir()
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return subprocess.run(
        ["unshare", *user, "--mount", sys.executable, "-c", MOUNTED + code, options, tmp_path / "disk", ROOT],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("options", ["size=2m", "size=64m,nr_inodes=6"])
def test_a_layer_for_which_there_is_no_room_is_not_kept_and_none_after_it(tmp_path: Path, options: str) -> None:
    """The next ones have only what has changed since then."""
    code = """
builder.stage(write("one"))
for number in range(9):
    try:
        (place / f"full{number}").write_bytes(bytes(2**20 - 2**14) if "size=2m" in sys.argv[1] else b"")
    except OSError:
        break
builder.stage(write("two", os.urandom(2**19)))
for path in place.glob("f*"):
    path.unlink()
builder.stage(write("three"))
print([path.name[:64] for path in builder.place.iterdir()] == [IDS[0]], builder.made == [*IDS[:3]])
print("\\n".join(builder.said))
"""
    done = mounted(tmp_path, options, code)
    assert "Traceback" not in done.stderr
    found, none, first, second = done.stdout.splitlines()
    assert (found, none) == ("True True", "")
    assert first.startswith("[Errno 28] No space left on device")
    assert second == "the one before it is not kept"


def test_on_a_full_disk_a_build_begins_without_a_lock(tmp_path: Path) -> None:
    """Another may make the same layer at the same time: either is whole."""
    code = """
builder.stage(write("one"))
for number in range(9):
    try:
        (place / f"full{number}").touch()
    except OSError:
        break
store.cache.directory = lambda: place
with store.opened(2**40) as kept:
    print(ids_of(kept.begin(IDS[:3])) == IDS[:1], kept.made(IDS[1]), len(builder.names()))
"""
    done = mounted(tmp_path, "nr_inodes=6", code)
    assert (done.stdout, done.stderr) == ("True None 1\n", "")


def test_a_cache_from_which_no_program_can_run_is_used(tmp_path: Path) -> None:
    code = """
builder.stage(write("one"))
builder.stage(write("two"))
print(picture(builder.taken()) == picture(builder.tree), len(builder.names()))
"""
    done = mounted(tmp_path, "noexec,nosuid,nodev", code)
    assert (done.stdout, done.stderr) == ("True 2\n", "")


_READ_ONLY = """
store.cache.place = lambda: place
builder.stage(write("one"))
subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
"""


def test_layers_that_cannot_be_written_to_are_used_and_none_is_kept(tmp_path: Path) -> None:
    """The directory of layers alone may be a mount."""
    code = f"""{_READ_ONLY}
store.cache.directory = store.cache.place
with store.opened(1) as kept:
    print(ids_of(kept.begin(IDS[:2])) == IDS[:1], picture(builder.taken()) == picture(builder.tree))
    print(builder.stage(write("two")) == IDS[1], builder.said[1].partition(":")[0])
print(len(builder.names()))
"""
    done = mounted(tmp_path, "size=2m", code)
    assert (done.stdout, done.stderr) == ("True True\nTrue [Errno 30] Read-only file system\n1\n", "")


def test_a_cache_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    code = f"""{_READ_ONLY}
try:
    with store.opened(2**40):
        pass
except store.Error as error:
    print(error)
"""
    done = mounted(tmp_path, "size=2m", code)
    assert (done.stdout, done.stderr) == (f"the cache cannot be in {tmp_path}/disk: Read-only file system\n", "")


# Several builds at once.


class Other:
    """Another build, in a thread; its layers, once it has begun."""

    def __init__(self, ids: tuple[str, ...], make: Callable[[str], object] = nothing) -> None:
        self.ids, self._make = ids, make
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.found: tuple[str, ...] = ()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with store.opened(2**40) as kept:
            self.found = ids_of(kept.begin(self.ids))
            self.begun.set()
            assert self.go_on.wait(60)
            for layer in self.ids[len(self.found) :]:
                self._make(layer)
                kept.made(layer)

    def end(self) -> None:
        self.go_on.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


def made_by(builder: Builder) -> Callable[[str], object]:
    def make(layer: str) -> None:
        write(layer[:6])(builder.tree)
        store.keep(builder.place, builder.tree, layer, "x")

    return make


def test_a_build_waits_for_the_layer_that_another_makes(builder: Builder) -> None:
    one = Other(IDS[:3], made_by(builder))
    assert one.begun.wait(60)
    two = Other(IDS[:3])
    assert not two.begun.wait(0.3)
    one.end()
    assert two.begun.wait(60)
    assert (one.found, two.found) == ((), IDS[:3])
    two.end()
    assert len(builder.names()) == 3


def test_a_build_goes_on_when_the_other_did_not_make_the_layer(builder: Builder) -> None:
    one = Other(IDS[:2])
    assert one.begun.wait(60)
    two = Other(IDS[:2], made_by(builder))
    one.end()
    two.end()
    assert (one.found, two.found) == ((), ())
    assert builder.begin(IDS[:2]) == IDS[:2]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_builds_that_share_their_first_layers_do_not_wait_for_each_other_for_ever(
    builder: Builder, order: tuple[int, ...]
) -> None:
    chains = (IDS[:2], (*IDS[:2], IDS[2]), (*IDS[:2], IDS[3], IDS[4]))
    # Each stays with what it has until the others wait.
    others = [Other(chains[number]) for number in order]
    time.sleep(0.2)
    for other in others:
        other.go_on.set()
    for other in others:
        other.end()
        assert other.begun.is_set()
    assert builder.names() == []


MAKER = """
import os, subprocess, sys, time
from debian_cloud.build import store
from debian_cloud.packages import cache
from pathlib import Path
cache.directory = lambda: Path(sys.argv[1])
with store.opened(2**40) as kept:
    kept.begin(sys.argv[2:])
    (kept.place / "partial.x").touch()
    subprocess.Popen(["sleep", os.environ.get("STEP", "0")], pass_fds=kept.locks, stdout=subprocess.DEVNULL)
    print("begun", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def maker(builder: Builder, ids: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    """Another build, in a process."""
    with subprocess.Popen(
        [sys.executable, "-c", MAKER, builder.place.parent, *ids],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def test_when_a_build_is_killed_another_goes_on_and_what_it_left_goes(builder: Builder) -> None:
    with maker(builder, IDS[:2]) as killed:
        two = Other(IDS[:2], made_by(builder))
        assert not two.begun.wait(0.3)
        refused_to_prune(builder)
        left = {"partial.x", *(f"{layer}.making" for layer in IDS[:2])}
        assert left <= {*builder.names()}
        os.kill(killed.pid, signal.SIGKILL)
        two.end()
    assert two.found == ()
    # The build itself has removed what nobody uses.
    assert [name[:64] for name in builder.names()] == sorted(IDS[:2])


def test_what_a_killed_build_s_step_still_makes_is_waited_for(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEP", "2")
    with maker(builder, IDS[:2]) as killed:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        two = Other(IDS[:2], made_by(builder))
        assert not two.begun.wait(0.5)
        two.end()
    assert [name[:64] for name in builder.names()] == sorted(IDS[:2])


def refused_to_prune(builder: Builder) -> None:
    """Nothing can be removed while a build uses the cache."""
    before = builder.names()
    with pytest.raises(Error, match="another debian-cloud uses the cache of layers"):
        store.prune(0)
    assert builder.names() == before


# The bound.


def test_what_was_used_least_recently_goes_first(three: Builder) -> None:
    size = sum(path.lstat().st_blocks * 512 for path in three.place.iterdir())
    with store.opened(size) as kept:
        kept.begin(IDS[:3])
    assert len(three.names()) == 3
    # Of one image, the last layer: without the first, no other could be used.
    with store.opened(size - 1) as kept:
        kept.begin(IDS[:3])
    assert three.begin() == IDS[:2]
    os.utime(three.file(0), (5, 5))
    os.utime(three.file(1), (6, 6))
    three.made = [*IDS[:2]]
    three.stage(write("new"))
    os.utime(three.file(2), (7, 7))
    store.prune(size - 1)
    assert {name[:64] for name in three.names()} == {*IDS[1:3]}
    store.prune(0)
    assert three.names() == []


def test_a_layer_in_use_stays(three: Builder) -> None:
    with store.opened(0) as kept:
        assert ids_of(kept.begin(IDS[:3])) == IDS[:3]
        refused_to_prune(three)
    assert three.names() == []


def test_what_is_no_layer_goes_from_the_cache(three: Builder) -> None:
    (three.place / "partial.abc").write_text("x")
    (three.place / f"{IDS[4]}.making").mkdir()
    (three.place / "link").symlink_to("/etc/passwd")
    os.mkfifo(three.place / "fifo")
    store.prune(2**40)
    assert {name[:64] for name in three.names()} == {*IDS[:3]}
