#!/bin/sh
# shellcheck disable=SC2016
# About.
set -eu
umask 022
# Of the caller's environment no more is seen than is named here.
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
    case $name in PATH | HOME | http_proxy | https_proxy | ftp_proxy | no_proxy | APT_CONFIG | TMPDIR | PWD | SHELLOPTS | BASHOPTS) ;; *) unset "$name" ;; esac
done
export LC_ALL=C.UTF-8
export TZ=UTC
export DEBIAN_FRONTEND=noninteractive
PATH=$PATH:/usr/sbin:/sbin

# Root steps run in namespaces of their own: mounts end with them, and no privilege is needed.
if [ "$(id -u)" = 0 ]; then
    as_root() { unshare --mount --pid --uts --fork --kill-child --mount-proc sh -c 'hostname localhost && domainname "(none)" && exec "$@"' sh "$@"; }
else
    # Where it is forbidden, this says so; with --map-auto, a process of unshare(1) would wait for ever.
    unshare --mount --pid --uts --fork --kill-child --mount-proc --user --map-root-user sh -c 'hostname localhost && domainname "(none)" && exec "$@"' sh true
    as_root() { unshare --mount --pid --uts --fork --kill-child --mount-proc --user --map-root-user --map-auto sh -c 'hostname localhost && domainname "(none)" && exec "$@"' sh "$@"; }
fi

mkdir image
cd image

# 1. list the packages
cat > packages <<'END'
8888888888888888888888888888888888888888888888888888888888888888 114952 login_1%3a4.16.0-2_amd64.deb http://debian.example/debian/pool/main/s/shadow/login_4.16.0-2_amd64.deb
cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc 198228 mtools_4.0.48-1_amd64.deb http://debian.example/debian/pool/main/m/mtools/mtools_4.0.48-1_amd64.deb
ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff 88296 base-files_13.8_amd64.deb http://debian.example/debian/pool/main/b/base-files/base-files_13.8_amd64.deb
END

# 2. get 2 packages
debian-cloud packages packages debs < /dev/null

# 3. prepare to install
cat > install <<'END'
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
"""

from __future__ import annotations

import contextlib
import ctypes
import lzma
import os
import platform
import struct
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEBS: Final = "debs"
"""Directory of the workspace with the .debs."""

ASKED: Final = "initramfs"
"""File of the workspace with the kernels for which an initrd was asked, one in each line."""

_PLACE: Final = "run/debian-cloud"
"""Directory of the tree, in memory, for what this script needs there."""

_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"

_CHUNK: Final = 2**24
"""Bytes of compressed .debs that are decompressed before dpkg is called with them."""
_AHEAD: Final = 3
"""Chunks that are decompressed, or about to be, at one time: about 200 MiB of memory."""

_LARGE: Final = 2**25
"""Bytes of a compressed .deb from which dpkg decompresses it itself, so that it takes no memory."""

_NO_SOURCES: Final = ("-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=/dev/null")
_BLOCK: Final = 2**20
_MAGIC: Final = b"!<arch>\n"

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
    place = Path("place")
    place.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(place))
    for folder in ("bin", "debs", "large"):
        (place / folder).mkdir()
    mount("--bind", DEBS, str(place / "large"))
    if operations[0][0] == "essential":
        new(tree, operations[0][1:], place / "debs")
    with prepared(tree, place), Beside(tree, place) as beside:
        installer = Installer(tree, place, beside)
        for name, *operands in operations:
            getattr(installer, name)(operands)


class Installer:
    """The operations of a stage; each is the method of its name."""

    def __init__(self, tree: Path, place: Path, beside: Beside) -> None:
        self._tree, self._place, self._beside = tree, place, beside

    def essential(self, debs: Sequence[str]) -> None:
        """Install packages that `new` has extracted."""
        # Their Pre-Depends are there, but not configured: no order satisfies all (mmdebstrap(1)).
        self._dpkg(debs, "--force-depends", "--no-triggers", "--unpack")
        self._in_tree("dpkg", "--no-triggers", "--configure", "-a")
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
                self._dpkg(chunk, "--no-triggers", "--unpack")
                for deb in chunk:
                    (self._place / "debs" / deb).unlink()

    def configure(self, packages: Sequence[str]) -> None:
        """Configure packages, or all that are unpacked."""
        if packages:
            self._in_tree("dpkg", "--no-triggers", "--configure", *packages)
            return
        self._in_tree("dpkg", "--configure", "-a")
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

    def _dpkg(self, debs: Sequence[str], *options: str) -> None:
        self._in_tree("dpkg", *options, *(f"/{_PLACE}/debs/{deb}" for deb in debs))

    def _in_tree(
        self,
        *argv: str,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        path: str = f"/{_PLACE}/bin:{_PATH}",
    ) -> None:
        run(self._tree, *argv, stdin=stdin, stdout=stdout, path=path)


def kernels(lines: Sequence[str], tree: Path) -> list[str]:
    """Return the kernels that calls of update-initramfs(8) name; without -k, it is every one that is installed."""
    named = {words[words.index("-k") + 1] if "-k" in (words := line.split()) else "all" for line in lines}
    if "all" in named:
        named |= {path.name.removeprefix("vmlinuz-") for path in (tree / "boot").glob("vmlinuz-*")}
    return sorted(named - {"all"})


def run(
    tree: Path, *argv: str, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None, path: str = _PATH
) -> None:
    """Run a command of the tree; raise CalledProcessError if it fails."""
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
        check=True,
    )


class Beside:
    """A thread that runs the noted commands one after the other, while dpkg works."""

    def __init__(self, tree: Path, place: Path) -> None:
        self._tree, self._queue = tree, place / "queue"
        self._wanted = threading.Event()
        self._last = False
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
        self._last = True
        self._wanted.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._failed:
            # Read this first: what was noted before it was set is in the file.
            last = self._last
            waiting = self._queue.read_text("utf-8").splitlines()[self._done :]
            for line in waiting:
                self._done += 1
                try:
                    run(self._tree, *line.split())
                except subprocess.CalledProcessError as error:
                    self._failed = error
                    return
            if last and not waiting:
                return
            self._wanted.wait(0.05)


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
        size = int(header[48:58])
        after = deb.tell() + size + size % 2
        yield header, size
        deb.seek(after)


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
    tree.mkdir(mode=0o755)
    for name in ("bin", "sbin", "lib", *(("lib64",) if any(deb.endswith("_amd64.deb") for deb in debs) else ())):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for folder in ("etc", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/lib/apt"):
        (tree / folder).mkdir(parents=True)
    (tree / "var/lib/dpkg/status").touch()
    # Maintainer scripts would keep the machine's. They need no network: apt runs outside the tree.
    (tree / "etc/hostname").write_text("localhost\n", "utf-8")
    (tree / "etc/resolv.conf").touch()
    with Ahead(debs, place) as ahead:
        for chunk in ahead:
            for deb in chunk:
                extract(Path(DEBS, deb) if (place / deb).is_symlink() else place / deb, tree)


@contextlib.contextmanager
def prepared(tree: Path, place: Path) -> Iterator[None]:
    """Mount what maintainer scripts need, put the commands that note how they are called before the tree's own."""
    mount("-t", "proc", "proc", str(tree / "proc"))
    for folder, mode in (("run", "755"), ("tmp", "1777")):
        mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", str(tree / folder))
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


def note(command: str, cases: str, does: str) -> str:
    """Return the text of a command that notes how it was called."""
    return _NOTE.format(command=command, cases=cases, does=does.format(place=_PLACE), path=_PATH)


def mount(*argv: str) -> None:
    """Mount a file system; it ends with the namespace."""
    subprocess.run(("mount", *argv), check=True)


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
END
chmod 755 install

# 4. note the answers to debconf
cat > answers <<'END'
locales locales/default_environment_locale select C.UTF-8
grub2 grub2/force_efi_extra_removable boolean true
END

# 5. plan to install essential: 1 packages
mkdir -p stages
cat > stages/essential <<'END'
essential base-files_13.8_amd64.deb
answers answers
configure
END

# 6. install essential: 1 packages
as_root env SOURCE_DATE_EPOCH=1795224967 ./install tree stages/essential < /dev/null

# 7. plan to install added: 1 packages
mkdir -p stages
cat > stages/added <<'END'
unpack login_1%3a4.16.0-2_amd64.deb
configure
END

# 8. install added: 1 packages
as_root env SOURCE_DATE_EPOCH=1795224967 ./install tree stages/added < /dev/null

# 9. note what was installed automatically
cat > automatic <<'END'
Package: login
Architecture: amd64
Auto-Installed: 1

END

# 10. note the packages to come
cat > expected <<'END'
installed base-files 13.8 amd64
installed login 1:4.16.0-2 amd64
END

# 11. plan to make the initrd
mkdir -p stages
cat > stages/finish <<'END'
mark automatic
initrd
list installed
END

# 12. make the initrd
as_root env SOURCE_DATE_EPOCH=1795224967 ./install tree stages/finish < /dev/null

# 13. compare installed packages with the resolved ones
diff -u expected installed < /dev/null

# 14. prepare to run the image's own tools
cat > in-tree <<'END'
#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs a tool of the image's own suite, so that the host's version does not show
# in the result: the tree's, or one that was unpacked beside it. The workspace is
# at /mnt. The mounts end with the namespace.
# usage: in-tree TREE COMMAND [ARGUMENT…]
set -eu
tree=$1
shift
# Not recursive: /mnt/tree is the tree without what is mounted in it.
mount --bind . "$tree/mnt"
# mke2fs warns when it cannot see what is mounted.
mount -t proc proc "$tree/proc"
path=/usr/sbin:/usr/bin:/sbin:/bin libraries=
for folder in tools/usr/sbin tools/usr/bin tools/sbin tools/bin; do
    [ ! -d "$folder" ] || path=$path:/mnt/$folder
done
for folder in tools/usr/lib/*-linux-gnu* tools/lib/*-linux-gnu*; do
    [ ! -d "$folder" ] || libraries=${libraries:+$libraries:}/mnt/$folder
done
# mtools would ask about a geometry that no firmware reads.
exec chroot "$tree" /usr/bin/env -i LC_ALL=C.UTF-8 "PATH=$path" ${libraries:+"LD_LIBRARY_PATH=$libraries"} \
    "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" "E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH" \
    MKE2FS_CONFIG=/mnt/mke2fs.conf MTOOLS_SKIP_CHECK=1 "$@"
END
chmod 755 in-tree

# 15. unpack the tool mtools
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree dpkg-deb --extract /mnt/debs/mtools_4.0.48-1_amd64.deb /mnt/tools < /dev/null

# 16. remove what the installation needed
as_root rm -f tree/etc/hostname tree/var/lib/dbus/machine-id tree/var/lib/dpkg/available < /dev/null

# 17. set the image's sources
as_root install -m 0644 /dev/stdin tree/etc/apt/sources.list.d/debian.sources <<'END'
Types: deb deb-src
URIs: http://debian.example/debian
Suites: trixie trixie-updates trixie-backports
Components: main
Signed-By: /debian.gpg

Types: deb deb-src
URIs: http://debian.example/security
Suites: trixie-security
Components: main
Signed-By: /debian.gpg
END

# 18. say what image it is
as_root install -m 0644 /dev/stdin tree/etc/cloud-release <<'END'
ID=ec2
VERSION="20261121.0"
END

# 19. set the default locale
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree sh -c 'grep -qs ^LANG= /etc/default/locale || echo LANG=C.UTF-8 >>/etc/default/locale' < /dev/null

# 20. empty machine-id
as_root install -m 0444 /dev/null tree/etc/machine-id < /dev/null

# 21. point resolv.conf to systemd-resolved
as_root ln -sfn ../run/systemd/resolve/stub-resolv.conf tree/etc/resolv.conf < /dev/null

# 22. write fstab
as_root install -m 0644 /dev/stdin tree/etc/fstab <<'END'
PARTUUID=a3491e84-ae80-5209-adf0-c238d3d88d9c / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1
PARTUUID=cf908535-5697-5935-94f4-9d5ca28a2f54 /boot/efi vfat umask=0077,defaults 0 2
END

# 23. make the ESP's mount point
as_root mkdir -p tree/boot/efi < /dev/null

# 24. identify the disk to grub
cat > grub-probe.identities <<'END'
root_partuuid=a3491e84-ae80-5209-adf0-c238d3d88d9c
root_uuid=b6b2bf48-9433-56a8-afc2-2491328ed029
END

# 25. prepare grub-probe
cat > grub-probe <<'END'
#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Answers grub-mkconfig(8) as the finished disk will, where there is no device yet.
# usage: grub-probe [OPTION…] --target=TARGET [PATH]
set -eu
# The builder writes these beside the script: this disk's identities.
# shellcheck source=/dev/null
. /run/grub-probe.identities
target=
while [ $# -gt 0 ]; do
    case $1 in
        --target=*) target=${1#*=} ;;
        -t) target=$2; shift ;;
    esac
    shift
done
# shellcheck disable=SC2154 # root_partuuid and root_uuid come from the file above
case $target in
    device) echo "/dev/disk/by-partuuid/$root_partuuid" ;;
    fs) echo ext2 ;;
    fs_uuid) echo "$root_uuid" ;;
    partuuid) echo "$root_partuuid" ;;
    partmap) echo gpt ;;
    drive) echo "(hd0,gpt1)" ;;
esac
END
chmod 755 grub-probe

# 26. prepare grub-setup
cat > grub-setup <<'END'
#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Leaves boot loader files and grub.cfg in a tree as grub-install(8) and
# update-grub(8) would on the finished disk. All mounts end with the namespace.
# usage: grub-setup TREE ROOT_PARTUUID [bios]
set -eu
tree=$1 partuuid=$2 bios=${3-}
grub=$tree/boot/grub
in_tree() { chroot "$tree" /usr/bin/env -i LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

mkdir -p "$grub/fonts"
cp "$tree/usr/share/grub/unicode.pf2" "$grub/fonts/"
for platform in x86_64-efi ${bios:+i386-pc}; do
    mkdir "$grub/$platform"
    cp "$tree/usr/lib/grub/$platform"/*.mod "$tree/usr/lib/grub/$platform"/*.lst "$grub/$platform/"
done
# update-grub writes root=PARTUUID= only where udev's link is there to see.
mount -t tmpfs -o mode=755 tmpfs "$tree/dev"
: > "$tree/dev/null"
mount --bind /dev/null "$tree/dev/null"
mkdir -p "$tree/dev/disk/by-partuuid"
: > "$tree/dev/disk/by-partuuid/$partuuid"
mount -t tmpfs -o mode=755 tmpfs "$tree/run"
cp grub-probe.identities "$tree/run/"
mount --bind grub-probe "$tree/usr/sbin/grub-probe"

in_tree grub-editenv /boot/grub/grubenv create
if [ "$bios" ]; then
    cp "$tree/usr/lib/grub/i386-pc/boot.img" "$grub/i386-pc/"
    in_tree grub-mkimage -O i386-pc -p '(,gpt1)/boot/grub' -o /boot/grub/i386-pc/core.img biosdisk part_gpt ext2
fi
in_tree update-grub
# From now on upgrades run grub-install: the flag that grub-cloud waits for.
: > "$tree/etc/grub.d/enable_cloud"
END
chmod 755 grub-setup

# 27. configure grub
as_root ./grub-setup tree a3491e84-ae80-5209-adf0-c238d3d88d9c bios < /dev/null

# 28. empty run-time folders
as_root find tree/dev tree/run tree/tmp tree/var/tmp -mindepth 1 -delete < /dev/null

# 29. empty logs and caches
as_root find tree/var/log tree/var/cache/apt tree/var/cache/ldconfig tree/var/lib/apt/lists -type f -delete < /dev/null

# 30. leave out the builder's resolv.conf
as_root find tree/etc -path 'tree/etc/.resolv.conf.*.bak' -delete < /dev/null

# 31. leave out backup and lock files
as_root find tree/etc tree/var/lib tree/var/cache/debconf -type f '(' -name '*-old' -o -name '*.old' -o -path \
    'tree/etc/*-' -o -name .pwd.lock ')' -delete < /dev/null

# 32. leave out secrets and identities
as_root debian-cloud scrub tree < /dev/null

# 33. clamp time stamps
as_root find tree -newermt @1795224967 -exec touch -h -d @1795224967 '{}' + < /dev/null

# 34. make an empty disk
truncate -s 8589934592 debian-13-ec2-amd64-20261121.0.raw < /dev/null

# 35. partition it
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree sfdisk --quiet --no-reread --no-tell-kernel --wipe=never \
    /mnt/debian-13-ec2-amd64-20261121.0.raw <<'END'
label: gpt
label-id: 5c927193-2513-54e4-8555-811b44829f71
unit: sectors
sector-size: 512

1 : start=262144, size=16513024, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, uuid=a3491e84-ae80-5209-adf0-c238d3d88d9c, name="root"
14 : start=2048, size=6144, type=21686148-6449-6e6f-744e-656564454649, uuid=f581fcda-d273-5bad-8d80-d1ddec73016c, name="bios"
15 : start=8192, size=253952, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b, uuid=cf908535-5697-5935-94f4-9d5ca28a2f54, name="esp"
END

# 36. place GRUB's core image
as_root dd if=tree/boot/grub/i386-pc/core.img of=debian-13-ec2-amd64-20261121.0.raw bs=512 seek=2048 \
    conv=notrunc status=none < /dev/null

# 37. place GRUB's boot sector
as_root dd if=tree/boot/grub/i386-pc/boot.img of=debian-13-ec2-amd64-20261121.0.raw bs=440 count=1 \
    conv=notrunc status=none < /dev/null

# 38. point the boot sector to the core image
printf '\000\010\000\000\000\000\000\000' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=92 conv=notrunc status=none

# 39. let it mend the boot drive
printf '\220\220' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=102 conv=notrunc status=none

# 40. point the core image to its rest
printf '\001\010\000\000\000\000\000\000' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=1049076 conv=notrunc status=none

# 41. make the EFI system partition
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mformat -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 -F -v ESP -N a1ada376 -T \
    253952 -h 255 -s 63 -H 8192 :: < /dev/null

# 42. take a partition entry out of it
dd if=/dev/zero of=debian-13-ec2-amd64-20261121.0.raw bs=1 count=16 seek=4194750 conv=notrunc \
    status=none < /dev/null

# 43. take a partition entry out of it
dd if=/dev/zero of=debian-13-ec2-amd64-20261121.0.raw bs=1 count=16 seek=4197822 conv=notrunc \
    status=none < /dev/null

# 44. make its folders
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mmd -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 ::EFI ::EFI/BOOT ::EFI/debian < /dev/null

# 45. place EFI/BOOT/BOOTX64.EFI
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/shimx64.efi.signed ::EFI/BOOT/BOOTX64.EFI < /dev/null

# 46. place EFI/BOOT/grubx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::EFI/BOOT/grubx64.efi < /dev/null

# 47. place EFI/BOOT/mmx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/mmx64.efi.signed ::EFI/BOOT/mmx64.efi < /dev/null

# 48. place EFI/debian/BOOTX64.CSV
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 /usr/lib/shim/BOOTX64.CSV \
    ::EFI/debian/BOOTX64.CSV < /dev/null

# 49. place EFI/debian/fbx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/fbx64.efi.signed ::EFI/debian/fbx64.efi < /dev/null

# 50. place EFI/debian/grubx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::EFI/debian/grubx64.efi < /dev/null

# 51. place EFI/debian/mmx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/mmx64.efi.signed ::EFI/debian/mmx64.efi < /dev/null

# 52. place EFI/debian/shimx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/shimx64.efi.signed ::EFI/debian/shimx64.efi < /dev/null

# 53. place EFI/debian/grub.cfg
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 - ::EFI/debian/grub.cfg <<'END'
search.fs_uuid b6b2bf48-9433-56a8-afc2-2491328ed029 root 
set prefix=($root)'/boot/grub'
configfile $prefix/grub.cfg
END

# 54. set mke2fs's defaults
cat > mke2fs.conf <<'END'
[defaults]
    base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
    default_mntopts = acl,user_xattr
    enable_periodic_fsck = 0
    blocksize = 4096
    inode_size = 256
    inode_ratio = 16384
[fs_types]
    ext4 = {
        features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
    }
END

# 55. make the root file system
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mke2fs -q -F -t ext4 -L root -U b6b2bf48-9433-56a8-afc2-2491328ed029 -E \
    offset=134217728,hash_seed=6b0d8740-ae5f-5f4c-85b0-6ee34ff507df,nodiscard,assume_storage_prezeroed=1 \
    -d /mnt/tree /mnt/debian-13-ec2-amd64-20261121.0.raw 8256512k < /dev/null

# 56. prepare to set its inodes' times
cat > inode-times <<'END'
#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Gives every inode of a new ext4 file system the same ctime and atime: mke2fs
# copies the tree's, which nothing can set, and before 1.47.2 it keeps them as
# they are. Runs in the tree (in-tree), by the image's own debugfs(8).
# usage: inode-times DISK OFFSET
set -eu
device="$1?offset=$2"
count() { debugfs -R "stats -h" "$device" 2> /dev/null | sed -n "s/^$1: *//p"; }

# mke2fs -d hands out inodes from the first free one on: those in use have no gap.
last=$(($(count "Inode count") - $(count "Free inodes")))
{
    echo 2
    seq 11 "$last"
} | sed "s/.*/sif <&> ctime @$SOURCE_DATE_EPOCH\nsif <&> atime @$SOURCE_DATE_EPOCH\nsif <&> ctime_extra 0\nsif <&> atime_extra 0/" |
    debugfs -w -f - "$device" > /dev/null
END
chmod 755 inode-times

# 57. set its inodes' times
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree /mnt/inode-times /mnt/debian-13-ec2-amd64-20261121.0.raw 134217728 < /dev/null

# 58. convert to qcow2
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd \
    /mnt/debian-13-ec2-amd64-20261121.0.raw /mnt/debian-13-ec2-amd64-20261121.0.qcow2 < /dev/null

# 59. write down the facts
cat > facts <<'END'
Config: ec2
Config-Version: 0.1.0
Suite: trixie
Architecture: amd64
Serial: 20261121.0
Epoch: 1795224967
Virtual-Size: 8589934592
Maintainer: Some One <one@example.org>
Formats: raw qcow2
Plan: 2078ad6229089b9e7d332193b4c7e8810b27a7847a42cb1efaf4435c97ea5118
Packages:
 ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff 88296 base-files 13.8 amd64
 8888888888888888888888888888888888888888888888888888888888888888 114952 login 1:4.16.0-2 amd64
Tools:
 cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc 198228 mtools 4.0.48-1 amd64
Releases:
 eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee 140000 trixie http://debian.example/debian DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD
Sources:
 http://debian.example/debian trixie trixie-updates
 http://debian.example/security trixie-security
END

# 60. write hashes and records
debian-cloud seal . < /dev/null
