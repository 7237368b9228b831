#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install one stage of packages into a tree with the tree's own dpkg, or make the initrd of all of them.

usage: install TREE STAGE

A plan writes this script into its workspace and runs it there as root of a namespace, so it is one file and imports
only the standard library. STAGE is a file whose lines are an operation and its operands:

    essential DEB…      extract into an empty tree, then install: dpkg cannot unpack anything without these
    answers FILE        give answers to debconf
    unpack DEB…         `dpkg --unpack`
    configure NAME…     `dpkg --configure`; without a name, all that is unpacked, and their triggers
    mark FILE           add to apt's list of packages that were installed automatically
    initrd              make the initrd of each kernel that asked for one, once
    list FILE           write state, name, version and architecture of each package to a file, sorted

dpkg decides all: it unpacks, runs the maintainer scripts, keeps its database. What is saved is time:

- The next .debs are decompressed while dpkg unpacks those before (`Ahead`).
- Nothing is written to the disk before the kernel wants to (`without_sync`): a build that is interrupted is removed.
- Commands that packages call again and again, each time for all of the system, run once (`update-initramfs`,
  `update-ca-certificates`); one that takes long and that no maintainer script waits for runs beside dpkg
  (`py3compile`; not depmod, whose result dracut reads at once). A command of the same name before it in PATH notes
  how it was called.

What a stage makes gets the stage's date, so that a tree depends on the packages alone, and not on when each stage was
installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import lzma
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

DEBS: Final = "debs"
"""Directory of the workspace with the .debs."""

ASKED: Final = "initramfs"
"""File of the workspace with the kernels for which an initrd was asked, one in each line."""

NEWEST: Final = "newest"
"""File of the workspace with the date of the newest package so far, in seconds since 1970."""
SECONDS: Final = "seconds"
"""File of the workspace with how long each package took: action, seconds, name."""
_OLDEST: Final = 86400
"""Oldest date: on day 0, shadow(5) wants the password changed."""

_PLACE: Final = "run/debian-cloud"
"""Directory of the tree, in memory, for what this script needs there."""

_RESOLV: Final = "etc/resolv.conf"
_RESOLVED: Final = "run/systemd/resolve/stub-resolv.conf"
"""What /etc/resolv.conf is, and where systemd-resolved lets it point to: a file without a name server or a domain."""

_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"

_CHUNK: Final = 2**24
"""Bytes of compressed .debs that are decompressed before dpkg is called with them."""
_AHEAD: Final = 3
"""Chunks that are decompressed, or about to be, at one time: about 200 MiB of memory."""

_LARGE: Final = 2**25
"""Bytes of a compressed .deb from which dpkg decompresses it itself, so that it takes no memory."""

_NO_SOURCES: Final = ("-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=/dev/null")
_BLOCK: Final = 2**20
_DRACUT: Final = "etc/dracut.conf.d/zz-build.conf"
_PROCESSING: Final = re.compile(r"processing: ([a-z]+): ([a-z0-9][a-z0-9+.-]*)")
_MAGIC: Final = b"!<arch>\n"
_END: Final = b"`\n"
_DATE: Final = slice(16, 28)
_SIZE: Final = slice(48, 58)
"""Numbers in the header of a member (ar(5))."""

_ACL: Final = struct.pack("<I" + "HHI" * 3, 2, *(1, 7, 2**32 - 1), *(4, 5, 2**32 - 1), *(32, 5, 2**32 - 1))
"""An ACL of version 2, for owner, group and others (linux/posix_acl_xattr.h)."""
_CAPABILITY: Final = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
"""The capability CAP_NET_RAW, effective and permitted (capabilities(7), revision 2)."""

_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")

_NOTE: Final = """\
#!/bin/sh
# Notes how it was called. Every other call is of the command itself.
noted=yes
for word; do
    case $word in *[[:space:]]*) noted= ;; esac
done
if [ "$noted" ]; then
    case " $* " in
        {cases}) {does} ;;
    esac
fi
PATH={path} exec {command} "$@"
"""

# The calls of each command that are noted: patterns of its arguments, and what is done instead.
_NOTED: Final = {
    "py3compile": ('*" -p "* | *" -V "*', 'echo "py3compile $*" >> /{place}/queue; exit 0'),
    "update-ca-certificates": ('"  "', ": > /{place}/certificates; exit 0"),
    "update-initramfs": ('*" -c "* | *" -u "*', 'echo "$*" >> /{place}/initramfs; exit 0'),
}

# What each command does instead.
_INSTEAD: Final = {
    # No service may start: there is no machine.
    "start-stop-daemon": "exit 0",
    # dpkg asks it of each .deb whether it is a part of one: none is.
    "dpkg-split": "exit 1",
}


def main(tree: Path, stage: Path) -> None:
    """Carry out the operations of a stage."""
    without_sync()
    operations = [line.split() for line in stage.read_text("utf-8").splitlines()]
    # The date of the image would make the tree of the same packages another one each day.
    newest = date([Path(DEBS, deb) for name, *debs in operations if name in {"essential", "unpack"} for deb in debs])
    os.environ.setdefault("SOURCE_DATE_EPOCH", str(newest))
    place = Path("place")
    place.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(place))
    for folder in ("bin", "debs", "large"):
        (place / folder).mkdir()
    mount("--bind", DEBS, str(place / "large"))
    if operations[0][0] == "essential":
        tree.mkdir(mode=0o755, exist_ok=True)
        check_attributes(tree)
        new(tree, operations[0][1:], place / "debs")
    with prepared(tree, place), Beside(tree, place) as beside:
        installer = Installer(tree, place, beside)
        for name, *operands in operations:
            getattr(installer, name)(operands)
    clamp(tree, int(os.environ["SOURCE_DATE_EPOCH"]))


class Installer:
    """The operations of a stage; each is the method of its name."""

    def __init__(self, tree: Path, place: Path, beside: Beside) -> None:
        self._tree, self._place, self._beside = tree, place, beside

    def essential(self, debs: Sequence[str]) -> None:
        """Install packages that `new` has extracted."""
        # Their Pre-Depends are there, but not configured: no order satisfies all (mmdebstrap(1)).
        self._unpack(debs, "--force-depends")
        self._dpkg("--no-triggers", "--configure", "-a")
        for deb in debs:
            (self._place / "debs" / deb).unlink()

    def answers(self, operands: Sequence[str]) -> None:
        """Give the answers in a file to debconf."""
        with Path(operands[0]).open("rb") as file:
            self._in_tree("debconf-set-selections", stdin=file)

    def unpack(self, debs: Sequence[str]) -> None:
        """Unpack packages, whose Pre-Depends are configured."""
        with Ahead(debs, self._place / "debs") as ahead:
            for chunk in ahead:
                self._unpack(chunk)
                for deb in chunk:
                    (self._place / "debs" / deb).unlink()

    def configure(self, packages: Sequence[str]) -> None:
        """Configure packages, or all that are unpacked."""
        if packages:
            self._dpkg("--no-triggers", "--configure", *packages)
            return
        self._dpkg("--configure", "-a")
        self._beside.join()
        if (certificates := self._place / "certificates").exists():
            certificates.unlink()
            self._in_tree("update-ca-certificates", path=_PATH)
        asked = self._place / "initramfs"
        if asked.exists():
            with Path(ASKED).open("a", encoding="utf-8") as file:
                file.write(asked.read_text("utf-8"))

    def mark(self, operands: Sequence[str]) -> None:
        """Add to apt's list of packages that were installed automatically."""
        with (self._tree / "var/lib/apt/extended_states").open("a", encoding="utf-8") as file:
            file.write(Path(operands[0]).read_text("utf-8"))

    def initrd(self, _: Sequence[str]) -> None:
        """Make the initrd of each kernel for which one was asked, or that one be made again."""
        asked = Path(ASKED)
        lines = asked.read_text("utf-8").splitlines() if asked.exists() else []
        with for_any_machine(self._tree):
            for kernel in kernels(lines, self._tree):
                # dracut has made one in the middle of the installation; what came later is not in it.
                there = (self._tree / "boot" / f"initrd.img-{kernel}").exists()
                self._in_tree("update-initramfs", "-u" if there else "-c", "-k", kernel, path=_PATH)

    def list(self, operands: Sequence[str]) -> None:
        """List the packages that dpkg knows; apt has no complaint about them."""
        self._in_tree("apt-get", *_NO_SOURCES, "check")
        form = "${db:Status-Status} ${Package} ${Version} ${Architecture}\\n"
        with Path(operands[0]).open("w+b") as file:
            self._in_tree("dpkg-query", "--show", f"--showformat={form}", stdout=file)
            file.seek(0)
            lines = sorted(file)
            file.seek(0)
            file.writelines(lines)

    def _unpack(self, debs: Sequence[str], *options: str) -> None:
        self._dpkg(*options, "--no-triggers", "--unpack", *(f"/{_PLACE}/debs/{deb}" for deb in debs))

    def _dpkg(self, *argv: str) -> None:
        """Run dpkg, and note in the workspace how long each package took."""
        read, write = os.pipe()
        with (
            Path(SECONDS).open("a", encoding="ascii") as out,
            os.fdopen(read, encoding="ascii", errors="replace") as said,
        ):
            noted = threading.Thread(target=lambda: note_seconds(said, out))
            noted.start()
            try:
                self._in_tree("dpkg", "--status-fd", str(write), *argv, passed=(write,))
            finally:
                os.close(write)
                noted.join()

    def _in_tree(
        self,
        *argv: str,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        path: str = f"/{_PLACE}/bin:{_PATH}",
        passed: Sequence[int] = (),
    ) -> None:
        run(self._tree, *argv, stdin=stdin, stdout=stdout, path=path, passed=passed)


def kernels(lines: Sequence[str], tree: Path) -> list[str]:
    """Return the kernels that calls of update-initramfs(8) name; without -k, it is every one that is installed."""
    named = {words[words.index("-k") + 1] if "-k" in (words := line.split()) else "all" for line in lines}
    if "all" in named:
        named |= {path.name.removeprefix("vmlinuz-") for path in (tree / "boot").glob("vmlinuz-*")}
    return sorted(named - {"all"})


@contextlib.contextmanager
def for_any_machine(tree: Path) -> Iterator[None]:
    """Let dracut make an initrd for any machine, not for this one alone (dracut.conf(5), hostonly).

    It takes a tree that is a mount, as one in memory is, for a running machine.
    """
    conf = tree / _DRACUT
    if not conf.parent.is_dir():
        yield
        return
    conf.write_text('hostonly="no"\n', "ascii")
    yield
    conf.unlink()


def note_seconds(lines: Iterable[str], out: TextIO) -> None:
    """Write how long dpkg took for each package, by the lines of its --status-fd (dpkg(1)): action, seconds, name."""
    last: re.Match[str] | None = None
    begun = 0.0
    for line in itertools.chain(lines, ("",)):
        match = _PROCESSING.match(line)
        if match or not line:
            now = time.monotonic()
            if last:
                out.write(f"{last[1]} {now - begun:.6f} {last[2]}\n")
            last, begun = match, now


def run(
    tree: Path,
    *argv: str,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
    path: str = _PATH,
    passed: Sequence[int] = (),
) -> None:
    """Run a command of the tree, which has the descriptors `passed`; raise CalledProcessError if it fails."""
    settings = {
        "PATH": path,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "SOURCE_DATE_EPOCH": os.environ["SOURCE_DATE_EPOCH"],
        # Byte code that a maintainer script leaves would contain the current time.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    subprocess.run(
        ("chroot", str(tree), "env", "-i", *(f"{name}={value}" for name, value in settings.items()), *argv),
        stdin=stdin or subprocess.DEVNULL,
        stdout=stdout,
        pass_fds=passed,
        check=True,
    )


class Beside:
    """A thread that runs the noted commands: one after the other while dpkg works, then on all processors."""

    def __init__(self, tree: Path, place: Path) -> None:
        self._tree, self._queue = tree, place / "queue"
        self._ended = threading.Event()
        self._failed: subprocess.CalledProcessError | None = None
        self._done = 0
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Beside:
        self._queue.touch()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def join(self) -> None:
        """Wait until everything that was noted is done; raise CalledProcessError if one command failed."""
        self._end()
        if self._failed:
            raise self._failed

    def _end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._ended.is_set():
                if waiting := self._noted():
                    self._run(waiting[0])
                    self._done += 1
                else:
                    self._ended.wait(0.05)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for result in [pool.submit(self._run, line) for line in self._noted()]:
                    result.result()
        except subprocess.CalledProcessError as error:
            self._failed = error

    def _noted(self) -> list[str]:
        return self._queue.read_text("utf-8").splitlines()[self._done :]

    def _run(self, line: str) -> None:
        run(self._tree, *line.split())


class Ahead:
    """The .debs, in chunks, decompressed by all processors before they are needed; who needs them removes them."""

    def __init__(self, debs: Sequence[str], place: Path) -> None:
        self._place = place
        self._chunks = list(_chunks(debs))
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def __enter__(self) -> Iterator[Sequence[str]]:
        return self._each()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _each(self) -> Iterator[Sequence[str]]:
        begun: list[list[Future[None]]] = []
        for number, chunk in enumerate(self._chunks):
            begun += [
                [self._pool.submit(stored, Path(DEBS, deb), self._place / deb) for deb in later]
                for later in self._chunks[len(begun) : number + _AHEAD]
            ]
            for one in begun[number]:
                one.result()
            yield chunk


def _chunks(debs: Sequence[str]) -> Iterator[list[str]]:
    chunk, size = [], 0
    for deb in debs:
        chunk.append(deb)
        size += Path(DEBS, deb).stat().st_size
        if size > _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def stored(deb: Path, target: Path) -> None:
    """Copy a .deb with its data.tar.xz decompressed; copy one as it is that is compressed in another way (deb(5)).

    In place of a large one, make a symlink that is right in the tree.
    """
    if deb.stat().st_size > _LARGE:
        target.symlink_to(f"/{_PLACE}/large/{deb.name}")
        return
    with deb.open("rb") as source, target.open("xb") as out:
        out.write(source.read(len(_MAGIC)))
        for header, size in _members(source):
            at = out.tell()
            out.write(header)
            if header.startswith(b"data.tar.xz"):
                size = sum(map(out.write, _decompressed(source, size)))
                out.seek(at)
                out.write(b"data.tar".ljust(16) + header[16:48] + str(size).encode().ljust(10) + header[58:])
                out.seek(0, os.SEEK_END)
            else:
                out.write(source.read(size))
            if size % 2:
                out.write(b"\n")


def _members(deb: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield header and size of each member of an ar archive (ar(5)), with the file at its content."""
    deb.seek(0)
    if deb.read(len(_MAGIC)) != _MAGIC:
        raise ValueError(f"{deb.name} is not a .deb")
    while header := deb.read(60):
        if header[58:] != _END or not all(header[part].rstrip().isdigit() for part in (_DATE, _SIZE)):
            raise ValueError(f"{deb.name} is not a .deb")
        size = int(header[_SIZE])
        after = deb.tell() + size + size % 2
        yield header, size
        deb.seek(after)


def date(debs: Sequence[Path]) -> int:
    """Return the date of the newest package so far: of these, and of those before, which the workspace notes.

    A package has its date in the header of each member (deb(5)): by dpkg-deb(1), the date of its changelog.
    """
    note, now = Path(NEWEST), time.time()
    newest = int(note.read_text("utf-8")) if note.exists() else _OLDEST
    for deb in debs:
        with deb.open("rb") as file:
            own = max((int(header[_DATE]) for header, _ in _members(file)), default=0)
        if own > now:
            raise ValueError(f"{deb.name} is of {_day(own)}, but the clock says {_day(now)}: one of them is wrong")
        newest = max(newest, own)
    note.write_text(f"{newest}\n", "utf-8")
    return newest


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def clamp(tree: Path, date: int) -> None:
    """Set the time of what is newer than a date to that date; raise ValueError if the clock is before it."""
    now = time.time()
    if now < date:
        raise ValueError(f"the clock is wrong: it is {_day(now)}, but what is installed is of {_day(date)}")
    newer = ("find", str(tree), "-xdev", "-newermt", f"@{date}")
    subprocess.run((*newer, "-exec", "touch", "--no-dereference", f"--date=@{date}", "{}", "+"), check=True)


def _decompressed(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the content of `size` bytes of xz(1) streams."""
    decompressor, data = lzma.LZMADecompressor(), b""
    while size or data or not decompressor.needs_input:
        if not data and decompressor.needs_input:
            data = file.read(min(size, _BLOCK))
            if not data:
                raise ValueError("a .deb is truncated")
            size -= len(data)
        yield decompressor.decompress(data, _BLOCK)
        data = b""
        if decompressor.eof:
            data = decompressor.unused_data
            if not data and not size:
                return
            decompressor = lzma.LZMADecompressor()


def extract(deb: Path, tree: Path) -> None:
    """Extract the files of a package, without its scripts, by this machine's dpkg-deb and tar."""
    with subprocess.Popen(("dpkg-deb", "--fsys-tarfile", str(deb)), stdout=subprocess.PIPE) as tar:
        # /bin and others are symlinks already.
        subprocess.run(
            (
                "tar",
                "-C",
                str(tree),
                "--extract",
                "--preserve-permissions",
                "--numeric-owner",
                "--keep-directory-symlink",
            ),
            stdin=tar.stdout,
            check=True,
        )
    if tar.returncode:
        raise subprocess.CalledProcessError(tar.returncode, tar.args)


def new(tree: Path, debs: Sequence[str], place: Path) -> None:
    """Make a tree in which dpkg and a shell work: merged /usr, these packages extracted, nothing of this machine."""
    # It may be a file system of its own, without content.
    tree.mkdir(mode=0o755, exist_ok=True)
    if any(tree.iterdir()):
        raise ValueError(f"{tree} is not empty")
    for name in ("bin", "sbin", "lib", *(("lib64",) if any(deb.endswith("_amd64.deb") for deb in debs) else ())):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for folder in ("etc", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/lib/apt"):
        (tree / folder).mkdir(parents=True)
    (tree / "var/lib/dpkg/status").touch()
    # Maintainer scripts would keep the machine's. They need no network: apt runs outside the tree.
    (tree / "etc/hostname").write_text("localhost\n", "utf-8")
    (tree / _RESOLV).touch()
    with Ahead(debs, place) as ahead:
        for chunk in ahead:
            for deb in chunk:
                extract(Path(DEBS, deb) if (place / deb).is_symlink() else place / deb, tree)


def check_attributes(tree: Path) -> None:
    """Raise ValueError if the file system of an empty tree keeps no capabilities or no ACLs.

    Maintainer scripts do something else then (setcap(8)), or nothing, and do not fail.
    """
    folder = tree / "attributes"
    folder.mkdir()
    try:
        os.setxattr(folder, "system.posix_acl_default", _ACL)
        (folder / "file").touch()
        os.setxattr(folder / "file", "security.capability", _CAPABILITY)
    except OSError as error:
        raise ValueError(f"the file system of {tree} keeps no capabilities or no ACLs: {error.strerror}") from None
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def prepared(tree: Path, place: Path) -> Iterator[None]:
    """Mount what maintainer scripts need, put the commands that note how they are called before the tree's own."""
    mount("-t", "proc", "proc", str(tree / "proc"))
    for folder, mode in (("run", "755"), ("tmp", "1777")):
        mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", str(tree / folder))
    if (tree / _RESOLV).is_symlink():
        # systemd-resolved's postinst has moved the file below /run, which does not stay from stage to stage.
        (tree / _RESOLVED).parent.mkdir(parents=True)
        (tree / _RESOLVED).touch()
    # /dev itself is no mount: dracut would take the tree for a running machine, and its initrd for this one alone.
    for name in ("pts", "shm"):
        (tree / "dev" / name).mkdir(parents=True, exist_ok=True)
    for name in _DEVICES:
        (tree / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", str(tree / "dev" / name))
    links = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
    for name, target in links.items():
        if not (tree / "dev" / name).is_symlink():
            (tree / "dev" / name).symlink_to(target)
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", str(tree / "dev/pts"))
    (tree / _PLACE).mkdir()
    mount("--rbind", str(place), str(tree / _PLACE))
    commands = {command: note(command, *how) for command, how in _NOTED.items()}
    commands |= {command: f"#!/bin/sh\n{does}\n" for command, does in _INSTEAD.items()}
    for command, text in commands.items():
        (place / "bin" / command).write_text(text, "utf-8")
        (place / "bin" / command).chmod(0o755)
    # invoke-rc.d(8) asks it: no service may start.
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n", "utf-8")
    policy.chmod(0o755)
    yield
    policy.unlink()
    unmount(*(tree / name for name in ("proc", "run", "tmp", "dev/pts", *(f"dev/{name}" for name in _DEVICES))))


def note(command: str, cases: str, does: str) -> str:
    """Return the text of a command that notes how it was called."""
    return _NOTE.format(command=command, cases=cases, does=does.format(place=_PLACE), path=_PATH)


def mount(*argv: str) -> None:
    """Mount a file system; it ends with the namespace."""
    subprocess.run(("mount", *argv), check=True)


def unmount(*places: Path) -> None:
    """Take file systems away, with what is mounted below them, even if a process still uses one."""
    subprocess.run(("umount", "--lazy", *map(str, places)), check=True)


# Numbers of fsync, fdatasync, sync, syncfs, sync_file_range (asm/unistd.h) and of the architecture (linux/audit.h).
_SYNC: Final = {
    "x86_64": (0xC000003E, (74, 75, 162, 306, 277)),
    "aarch64": (0xC00000B7, (82, 83, 81, 267, 84)),
}


def without_sync() -> None:
    """Let the system calls of this process and its children that wait for the disk do nothing (seccomp(2))."""
    if platform.machine() not in _SYNC:
        return
    architecture, calls = _SYNC[platform.machine()]
    load, jump_equal, give = 0x20, 0x15, 0x06
    allow, success = 0x7FFF0000, 0x00050000
    program = [
        (load, 0, 0, 4),
        (jump_equal, 0, len(calls) + 1, architecture),
        (load, 0, 0, 0),
        *((jump_equal, len(calls) - number, 0, call) for number, call in enumerate(calls)),
        (give, 0, 0, allow),
        (give, 0, 0, success),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    filters = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(buffer)))
    set_seccomp, mode_filter = 22, 2
    # Without this right the kernel wants no_new_privs, which would change what maintainer scripts can do.
    if ctypes.CDLL(None, use_errno=True).prctl(set_seccomp, mode_filter, filters, 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except subprocess.CalledProcessError as failed:
        # What it said is above.
        command = failed.cmd[failed.cmd.index("-i") + 1 :] if "-i" in failed.cmd else failed.cmd
        name = next(word for word in command if "=" not in word)
        sys.exit(f"error: {name} failed with exit status {failed.returncode}")
    except (OSError, ValueError, lzma.LZMAError) as failed:
        sys.exit(f"error: {failed}")
