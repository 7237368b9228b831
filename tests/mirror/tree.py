# SPDX-License-Identifier: GPL-3.0-or-later
"""A small signed archive, a real rsync daemon, a real nginx, and a client's view of a mirror."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

from debian_cloud.names import RELEASES
from tests import gnupg

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "debian_cloud.mirror")
MAN_PAGE = ROOT / "debian" / "debian-cloud-mirror.1"
FILES = "main/images/Files"
INDEXES = (
    "main/binary-amd64/Packages", "main/source/Sources", "main/images/Images", "main/images/Images-Status", FILES,
)  # fmt: skip
SUMS = tuple(f"SHA{n}SUMS{end}" for n in (256, 512) for end in ("", ".sign", ".gpg"))
ATTESTATIONS = ("cdx.json", "intoto.json", "intoto.json.gpg", "spdx.json")
START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)


def sha(path: Path, name: str = "sha256") -> str:
    return hashlib.new(name, path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key in a GnuPG home of its own."""

    home: Path
    keyring: Path

    @classmethod
    def make(cls, home: Path) -> Key:
        gnupg.new_key(home, "Archive <archive@example.org>", "never")
        key = cls(home, home / "keyring.gpg")
        key.gpg("--export", "--output", str(key.keyring))
        return key

    def gpg(self, *args: str) -> None:
        gnupg.gpg(self.home, *args)

    def fingerprints(self) -> list[str]:
        """The fingerprints of the primary and of each subkey."""
        command = ["gpg", "--homedir", str(self.home), "--list-keys", "--with-colons"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return re.findall(r"^fpr:+(\w+):", out, re.M)

    def detach(self, path: Path) -> None:
        """Write both forms of a detached signature: armoured .sign, binary .gpg."""
        self.gpg("--armor", "--output", f"{path}.sign", "--detach-sign", str(path))
        self.gpg("--output", f"{path}.gpg", "--detach-sign", str(path))

    def end(self) -> None:
        gnupg.end(self.home)


@dataclass(slots=True)
class Archive:
    """The public tree of an archive, as ARCHITECTURE.md describes it, published by the tests."""

    root: Path
    key: Key
    suite: str = "trixie"
    packages: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)
    date: datetime = START
    valid: timedelta | None = timedelta(days=10)
    sources: str = ""
    packages_extra: str = ""
    images_extra: str = ""
    status_extra: str = ""
    files_extra: tuple[str, ...] = ()
    """Lines of Files besides those of the archive's own files, or in their place."""
    instead: dict[str, bytes] = field(default_factory=dict)
    """Index -> content to publish instead of the archive's own."""

    def add_deb(self, name: str, version: str, size: int = 3000) -> Path:
        tree = self.root.parent / f"{self.root.name}.deb"
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share/cloud").mkdir(parents=True)
        (tree / "usr/share/cloud" / name).write_bytes(os.urandom(size))
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@example.org>\n"
            f"Description: test package\n"
        )
        (tree / "DEBIAN/control").write_text(control)
        deb = self.root / f"pool/main/{name[0]}/{name}/{name}_{version}_amd64.deb"
        deb.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(deb)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.packages[name] = (
            f"{control}Filename: {deb.relative_to(self.root)}\nSize: {deb.stat().st_size}\nSHA256: {sha(deb)}\n"
        )
        return deb

    def add_image(self, config: str, serial: str, size: int = 50_000) -> Path:
        folder = self.root / f"images/{self.suite}/{config}/amd64/{serial}"
        folder.mkdir(parents=True)
        stem = f"debian-{RELEASES[self.suite]}-{config}-amd64-{serial}"
        image, info = folder / f"{stem}.qcow2", folder / f"{stem}.buildinfo"
        image.write_bytes(os.urandom(size))
        info.write_text(f"Format: 1.0\nSource: {config}\n")
        (folder / f"debian-{RELEASES[self.suite]}-{config}-amd64.qcow2").symlink_to(image.name)
        (folder / f"{stem}.image").write_text(f"Image: debian-cloud-config-{config}\n")
        (folder / f"{stem}.changes").write_text(f"Format: 1.8\nVersion: {serial}\n")
        attestations = tuple(folder / f"{stem}.{suffix}" for suffix in ATTESTATIONS)
        for path in attestations:
            path.write_text(f'{{"of": "{stem}", "as": "{path.name}"}}\n')
        self.sign_sums(folder)
        rebuilt = self.root / f"rebuilds/{self.suite}/{config}/amd64/{serial}" / f"{'a' * 40}.asc"
        rebuilt.parent.mkdir(parents=True)
        rebuilt.write_text(f"{stem} came out the same\n")
        self.images[f"{config} {serial}"] = (
            f"Image: debian-cloud-config-{config}\nVersion: {serial}\nSuite: {self.suite}\nArchitecture: amd64\n"
            f"Format: qcow2\nConfig-Version: 0.1.0\nVirtual-Size: 8589934592\n"
            f"Filename: {image.relative_to(self.root)}\nSize: {size}\n"
            f"SHA256: {sha(image)}\nSHA512: {sha(image, 'sha512')}\nBuildinfo: {info.relative_to(self.root)}\n"
            f"Buildinfo-SHA256: {sha(info)}\nBuildinfo-SHA512: {sha(info, 'sha512')}\nAttestations:\n"
            + "".join(f" {sha(p)} {p.stat().st_size} {p.relative_to(self.root)}\n" for p in attestations)
            + f"Rebuilds:\n {sha(rebuilt)} {rebuilt.stat().st_size} {rebuilt.relative_to(self.root)}\n"
        )
        self.current[config] = serial
        link = folder.parent / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(serial)
        return image

    def sign_sums(self, folder: Path) -> None:
        files = sorted(p for p in folder.iterdir() if p.name not in SUMS)
        for name in ("SHA256", "SHA512"):
            sums = folder / f"{name}SUMS"
            sums.write_text("".join(f"{sha(p, name.lower())}  {p.name}\n" for p in files))
            self.key.detach(sums)

    def add_source(self, name: str, version: str) -> None:
        folder = self.root / f"pool/main/{name[0]}/{name}"
        folder.mkdir(parents=True, exist_ok=True)
        dsc = folder / f"{name}_{version}.dsc"
        dsc.write_text(f"Source: {name}\n")
        self.sources = (
            f"Package: {name}\nVersion: {version}\nDirectory: {folder.relative_to(self.root)}\n"
            f"Checksums-Sha256:\n {sha(dsc)} {dsc.stat().st_size} {dsc.name}\n"
        )

    def text(self, index: str) -> str:
        if index.endswith("Packages"):
            return "\n".join(self.packages.values()) + self.packages_extra
        if index.endswith("Sources"):
            return self.sources
        if index.endswith("Images-Status"):
            return self.status()
        if index.endswith("Files"):
            return self.files()
        stanzas = []
        for name, stanza in sorted(self.images.items()):
            config, serial = name.split()
            stanzas.append(f"{stanza}Status: {'current' if self.current.get(config) == serial else 'superseded'}\n")
        return "\n".join(stanzas) + self.images_extra

    def files(self) -> str:
        """A line for each file and link of the listed images, sorted by path."""
        lines: dict[str, str] = {}
        for image in self.images:
            config, serial = image.split()
            for series in (f"images/{self.suite}/{config}/amd64", f"rebuilds/{self.suite}/{config}/amd64"):
                for path in (self.root / series / serial).glob("*"):
                    start = f"link {path.readlink()}" if path.is_symlink() else f"{sha(path)} {path.stat().st_size}"
                    name = str(path.relative_to(self.root))
                    lines[name] = f"{start} {name}"
            link = f"images/{self.suite}/{config}/amd64/current"
            if self.current.get(config) == serial:
                lines[link] = f"link {serial} {link}"
        lines |= {line.rpartition(" ")[2]: line for line in self.files_extra}
        return "".join(f"{lines[name]}\n" for name in sorted(lines))

    def status(self) -> str:
        """The status of each image, with pending updates for some."""
        stanzas = []
        for name in sorted(self.images):
            config, serial = name.split()
            stanzas.append(
                f"Image: debian-cloud-config-{config}\nVersion: {serial}\nSuite: {self.suite}\nArchitecture: amd64\n"
                f"Status: {'current' if self.current.get(config) == serial else 'superseded'}\n"
                "Pending-Date: 2026-11-21\nPending-Security:\n openssl 3.5.1-1 3.5.4-1~deb13u1\n"
            )
        return "\n".join(stanzas) + self.status_extra

    def publish(self, date: datetime | None = None) -> None:
        """Write and sign the indexes; the default date is an hour after the last one."""
        self.date = date or self.date + timedelta(hours=1)
        dist = self.root / "dists" / self.suite
        lines = []
        for index in INDEXES:
            data = self.instead.get(index) or self.text(index).encode()
            for name, blob in (
                (index, data),
                (f"{index}.gz", gzip.compress(data, mtime=0)),
                (f"{index}.xz", lzma.compress(data)),
            ):
                path = dist / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(blob)
                by_hash = path.parent / "by-hash/SHA256" / sha(path)
                by_hash.parent.mkdir(parents=True, exist_ok=True)
                by_hash.write_bytes(blob)
                lines.append(f" {sha(path)} {len(blob)} {name}\n")
        until = f"Valid-Until: {format_datetime(self.date + self.valid)}\n" if self.valid else ""
        release = dist / "Release"
        release.write_text(
            f"Origin: Test\nSuite: {self.suite}\nCodename: {self.suite}\nDate: {format_datetime(self.date)}\n{until}"
            f"Acquire-By-Hash: yes\nArchitectures: amd64\nComponents: main\nSHA256:\n{''.join(lines)}"
        )
        self.sign_release()
        trace = self.root / "project/trace/master"
        trace.parent.mkdir(parents=True, exist_ok=True)
        stamp = f"{self.date:%a %b %e %H:%M:%S UTC %Y}"
        trace.write_text(
            f"{stamp}\nArchive serial: {self.date:%Y%m%d%H}\nDate: {format_datetime(self.date)}\nSuites: trixie\n"
        )

    def sign_release(self) -> None:
        release = self.root / "dists" / self.suite / "Release"
        self.key.gpg("--output", str(release.with_name("InRelease")), "--clearsign", str(release))
        self.key.gpg("--output", f"{release}.gpg", "--detach-sign", str(release))

    def index_files(self, index: str) -> list[Path]:
        """Every form of an index: plain, compressed, and by hash."""
        path = self.root / "dists" / self.suite / index
        named = [Path(f"{path}{form}") for form in ("", ".gz", ".xz")]
        return [*named, *(path.parent / "by-hash/SHA256" / sha(p) for p in named)]


@dataclass(slots=True)
class Server:
    """A server process and the address of its tree."""

    scheme: str
    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End the server and every connection at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def serve(scheme: str, root: Path, etc: Path, rate: int = 0) -> Server:
    """Start a real server for `root`; `rate` limits each connection, in kB/s."""
    etc.mkdir(parents=True, exist_ok=True)
    port = free_port()
    if scheme == "rsync":
        conf = etc / "rsyncd.conf"
        user = "uid = root\ngid = root\n" if os.geteuid() == 0 else ""
        conf.write_text(f"use chroot = no\n{user}reverse lookup = no\n[tree]\npath = {root}\nread only = yes\n")
        limit = [f"--bwlimit={rate}"] if rate else []
        command = [
            "rsync",
            "--daemon",
            "--no-detach",
            "--address=127.0.0.1",
            f"--port={port}",
            f"--config={conf}",
            *limit,
        ]
        url = f"rsync://127.0.0.1:{port}/tree"
    else:
        conf = etc / "nginx.conf"
        temp = "".join(f"{n}_temp_path {etc}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        conf.write_text(
            f"{user} daemon off; worker_processes 1; pid {etc}/pid; error_log {etc}/error.log;\n"
            f"events {{ worker_connections 64; }}\n"
            f"http {{ {temp} access_log {etc}/access.log; keepalive_timeout 5;\n"
            f"  server {{ listen 127.0.0.1:{port}; root {root}; {f'limit_rate {rate}k;' if rate else ''} }} }}\n"
        )
        command = ["nginx", "-c", str(conf), "-e", str(etc / "error.log")]
        url = f"http://127.0.0.1:{port}"
    return start(scheme, url, port, command)


def start(scheme: str, url: str, port: int, command: list[str]) -> Server:
    """Start a server, and wait until it answers."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(100):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return Server(scheme, url, process)
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    raise RuntimeError(f"{command[0]} did not start")


@dataclass(slots=True)
class Mirror:
    """The program under test, with one source and one destination."""

    source: str
    dest: Path
    keyring: Path
    suite: str = "trixie"
    prefix: tuple[str, ...] = ()

    def command(self, *options: str) -> list[str]:
        return [
            *self.prefix,
            *COMMAND,
            "--keyring",
            str(self.keyring),
            "--suite",
            self.suite,
            *options,
            self.source,
            str(self.dest),
        ]

    def run(self, *options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": path or os.environ["PATH"]}
        return subprocess.run(self.command(*options), capture_output=True, text=True, timeout=600, env=env)

    def ok(self, *options: str) -> str:
        done = self.run(*options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    def shown(self) -> dict[str, str]:
        """All that a client of the mirror can see: path -> hash, or link target."""
        seen = {}
        for path in sorted(self.dest.rglob("*")):
            name = path.relative_to(self.dest)
            if (name.parts[0] != ".mirror" and not path.is_dir()) or path.is_symlink():
                seen[str(name)] = f"-> {path.readlink()}" if path.is_symlink() else sha(path)
        return seen

    def refused(self, *options: str, says: str) -> None:
        """Assert that the run fails with one clear sentence, and that the mirror shows the same as before."""
        before = self.shown()
        done = self.run(*options)
        assert done.returncode == 1, done.stdout + done.stderr
        error, hint = done.stderr.splitlines()
        assert re.search(f"^debian-cloud-mirror: error: .*({says})", error), done.stderr
        assert hint.startswith("debian-cloud-mirror: hint: ")
        assert self.shown() == before


def seen_by_client(root: Path, suite: str = "trixie") -> datetime:
    """Follow InRelease by hash to every file, as apt does, and return its date; AssertionError if that fails."""
    text = (root / "dists" / suite / "InRelease").read_text()
    listed = re.findall(r"^ ([0-9a-f]{64}) (\d+) (\S+)$", text, re.M)
    assert len(listed) == 3 * len(INDEXES)
    for digest, _, name in listed:
        index = (root / "dists" / suite / name).parent / "by-hash/SHA256" / digest
        assert sha(index) == digest
        if name in ("main/binary-amd64/Packages", "main/images/Images"):
            body = index.read_text()
            for key, value in (("Filename", "SHA256"), ("Buildinfo", "Buildinfo-SHA256")):
                paths = re.findall(rf"^{key}: (.*)$", body, re.M)
                assert [sha(root / p) for p in paths] == re.findall(rf"^{value}: (.*)$", body, re.M)
        if name == "main/images/Images":
            said = re.findall(r"^ ([0-9a-f]{64}) \d+ (\S+)$", index.read_text(), re.M)
            assert len(said) == (len(ATTESTATIONS) + 1) * index.read_text().count("Image: ")
            assert all(sha(root / path) == digest for digest, path in said)
    for current in root.glob(f"images/{suite}/*/*/current"):
        config, arch = current.parts[-3:-1]
        assert (current / f"debian-{RELEASES[suite]}-{config}-{arch}.qcow2").is_file()
    found = re.search(r"^Date: (.*)$", text, re.M)
    assert found
    return parsedate_to_datetime(found[1])


def apt(mirror: Mirror, root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run apt-get in a root directory that knows only the mirror, by file:, with all dates checked."""
    for d in (
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "etc/apt/trusted.gpg.d",
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
    ):
        (root / d).mkdir(parents=True, exist_ok=True)
    (root / "status").write_text("")
    (root / "etc/apt/sources.list").write_text(
        f"deb [arch=amd64 signed-by={mirror.keyring}] file:{mirror.dest} trixie main\n"
    )
    (root / "apt.conf").write_text(
        f'Dir "{root}"; Dir::State::status "{root}/status"; Dir::Etc::trusted "{mirror.keyring}";\n'
        'APT::Architecture "amd64"; APT::Sandbox::User "root"; Acquire::Languages "none";\n'
        'Acquire::Check-Valid-Until "true"; Acquire::Check-Date "true";\n'
        'Acquire::IndexTargets::deb::Images { MetaKey "$(COMPONENT)/images/Images"; ShortDescription "Images";\n'
        '  Description "$(RELEASE)/$(COMPONENT) Images"; Optional "true"; KeepCompressed "false"; };\n'
    )
    env = {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"}
    return subprocess.run(["apt-get", *args], env=env, cwd=root, capture_output=True, text=True, timeout=300)
