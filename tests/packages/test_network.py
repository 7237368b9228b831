# SPDX-License-Identifier: GPL-3.0-or-later
"""A build reaches archives as the machine's apt does, and no other user can read how."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import hashlib
import http.client
import http.server
import shutil
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from debian_cloud import plan
from debian_cloud.build import steps as build_steps
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.host.progress import Progress
from debian_cloud.image import sources
from debian_cloud.image.resolution import Package
from debian_cloud.packages import cache, images
from tests import gnupg, throwaway
from tests.command import debian_cloud, refused
from tests.pristine import archive, pristine
from tests.samples import CONFIG, RECORD, RESOLUTION, SERIAL, planned

__all__ = ["archive", "pristine"]

USER, PASSWORD = "builder", "Geheim4711"
CREDENTIALS = f"{USER}:{PASSWORD}"
HOST = "127.0.0.1"


@pytest.mark.parametrize("uri", ["http://user:pw@archive.example/x", "tor+https://user@archive.example/"])
def test_an_archive_s_password_does_not_get_into_a_plan(uri: str) -> None:
    with pytest.raises(Error, match="a user or a password in its URI") as told:
        planned(CONFIG, archive=sources.Source(uri, ("trixie",), "/archive.gpg"))
    assert "user@" not in told.value.message + told.value.hint
    assert "pw" not in told.value.message + told.value.hint


@pytest.mark.parametrize(
    "url", ["http://user:pw@a.example/", "https://user@a.example/", "mirror+http://u:pw@a/x", "http://u:pw@["]
)
def test_a_password_in_an_argument_is_refused(url: str) -> None:
    """Other users can read the arguments of a process (ps(1))."""
    done = debian_cloud("show", "ec2", "--archive", url, "--keyring", __file__)
    refused(done, USAGE, "--archive has a user or a password in its URL", "apt_auth.conf(5)")
    assert url not in done.stderr


# With a real server, a real proxy, and the real apt.


@dataclass(slots=True)
class Server:
    """An archive or a proxy that requires credentials; both record the requests."""

    folder: Path
    demands: str = ""
    """The user:password that it requires, as a server and as a proxy."""
    requests: list[tuple[str, bool]] = field(default_factory=list)
    """Path, and whether it was a proxy request, of each request with the required credentials."""
    refused: list[str] = field(default_factory=list)
    port: int = 0

    def asked(self, *, proxied: bool) -> list[str]:
        return [path for path, by_proxy in self.requests if by_proxy == proxied]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; as a proxy (RFC 9110, 7.6), fetches a request with a complete URI."""

    protocol_version = "HTTP/1.1"

    def __init__(self, server: Server, *arguments: object) -> None:
        self.about = server
        super().__init__(*arguments, directory=str(server.folder))  # type: ignore[arg-type]

    def do_GET(self) -> None:
        proxied = self.path.startswith("http://")
        header = self.headers.get("Proxy-Authorization" if proxied else "Authorization", "")
        wanted = f"Basic {base64.b64encode(self.about.demands.encode()).decode()}"
        if self.about.demands and header != wanted:
            self.about.refused.append(self.path)
            self.send_error(407 if proxied else 401)
            return
        self.about.requests.append((self.path, proxied))
        if not proxied:
            super().do_GET()
            return
        uri = urllib.parse.urlsplit(self.path)
        upstream = http.client.HTTPConnection(uri.netloc, timeout=60)
        with contextlib.closing(upstream):
            upstream.request("GET", uri.path, headers={k: v for k, v in self.headers.items() if k != "Host"})
            answer = upstream.getresponse()
            body = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, _format: str, *_arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path, demands: str = "", context: ssl.SSLContext | None = None) -> Iterator[Server]:
    made = Server(folder, demands)
    server = http.server.ThreadingHTTPServer((HOST, 0), functools.partial(Handler, made))
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def package(folder: Path, name: str, *fields: str) -> tuple[Path, str]:
    """Make an empty .deb, and return it with its stanza in an index."""
    (folder / name / "DEBIAN").mkdir(parents=True)
    control = "\n".join(
        (
            *(f"Package: {name}", "Version: 1", "Architecture: amd64", "Maintainer: x <x@localhost>"),
            *("Section: admin", *fields, "Description: x", ""),
        )
    )
    (folder / name / "DEBIAN" / "control").write_text(control)
    deb = folder / f"{name}_1_amd64.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", folder / name, deb], stdout=subprocess.DEVNULL, check=True
    )
    shutil.rmtree(folder / name)
    content = deb.read_bytes()
    stanza = f"{control}Filename: pool/{deb.name}\nSize: {len(content)}\nSHA256: {throwaway.sha256(content)}\n\n"
    return deb, stanza


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    """A signed suite of empty packages, enough for a bootstrap to begin: `public`, and its key."""
    with throwaway.folder() as folder:
        pool, dist = folder / "public" / "pool", folder / "public" / "dists" / "trixie"
        index = dist / "main" / "binary-amd64"
        pool.mkdir(parents=True)
        index.mkdir(parents=True)
        made = [
            package(pool, "base-files", "Essential: yes", "Priority: required"),
            package(pool, "apt", "Priority: important"),
            package(pool, CONFIG.name, "Priority: optional"),
            package(pool, "mtools", "Priority: optional"),
        ]
        content = "".join(stanza for _, stanza in made).encode()
        (index / "Packages").write_bytes(content)
        (index / "Packages.gz").write_bytes(gzip.compress(content, mtime=0))
        hashes = "".join(
            f" {hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_size} {file.relative_to(dist)}\n"
            for file in sorted(index.iterdir())
        )
        home = folder / "gnupg"
        gnupg.new_key(home, "test", "never")
        (folder / "key.gpg").write_bytes(gnupg.gpg(home, "--export"))
        text = (
            "Origin: test\nLabel: test\nSuite: trixie\nCodename: trixie\nArchitectures: amd64\nComponents: main\n"
            f"Date: {http.server.BaseHTTPRequestHandler.date_time_string(None).replace('GMT', 'UTC')}\n"  # type: ignore[arg-type]
            f"SHA256:\n{hashes}"
        )
        throwaway.sign(home, text, dist / "InRelease")
        yield folder


@dataclass(slots=True)
class Way:
    """A way to the archive: its address, the machine's settings, and a check that it was used."""

    uri: str
    settings: str
    came: Callable[[], bool]
    variables: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def by_credentials(top: Path) -> Iterator[Way]:
    """Credentials as in apt_auth.conf(5), in a file and in a directory of files that only root can read."""
    with serving(top / "public", CREDENTIALS) as server:
        for path in (top / "auth.conf", top / "auth.conf.d"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        (top / "auth.conf.d").mkdir()
        (top / "auth.conf").write_text("machine http://nowhere.example login x password y\n")
        (top / "auth.conf.d" / "own.conf").write_text(
            f"machine http://{HOST}:{server.port} login {USER} password {PASSWORD}\n"
        )
        (top / "auth.conf.d" / "own.conf").chmod(0o600)
        settings = f'Dir::Etc::netrc "{top}/auth.conf";\nDir::Etc::netrcparts "{top}/auth.conf.d";\n'
        yield Way(f"http://{HOST}:{server.port}", settings, lambda: not server.asked(proxied=True))


@contextlib.contextmanager
def by_proxy(top: Path) -> Iterator[Way]:
    """A proxy for all hosts that requires a password."""
    with serving(top / "public") as server, serving(top, CREDENTIALS) as proxy:
        yield Way(
            f"http://{HOST}:{server.port}",
            f'Acquire::http::Proxy "http://{CREDENTIALS}@{HOST}:{proxy.port}/";\n',
            lambda: len(proxy.asked(proxied=True)) == len(server.requests) > 0,
        )


@contextlib.contextmanager
def by_variable(top: Path) -> Iterator[Way]:
    """The same proxy from http_proxy."""
    with by_proxy(top) as way:
        proxy = way.settings.split('"')[1]
        yield Way(way.uri, "", way.came, {"http_proxy": proxy})


@contextlib.contextmanager
def directly(top: Path) -> Iterator[Way]:
    """No proxy for this host; the one for all other hosts does not exist."""
    with serving(top / "public") as server:
        settings = f'Acquire::http::Proxy "http://{HOST}:1/";\nAcquire::http::Proxy::{HOST} "DIRECT";\n'
        yield Way(f"http://{HOST}:{server.port}", settings, lambda: bool(server.asked(proxied=False)))


@contextlib.contextmanager
def by_no_proxy(top: Path) -> Iterator[Way]:
    """The same from variables."""
    with directly(top) as way:
        yield Way(way.uri, "", way.came, {"http_proxy": f"http://{HOST}:1/", "no_proxy": HOST})


@contextlib.contextmanager
def by_detection(top: Path) -> Iterator[Way]:
    """A program of the machine prints the proxy."""
    with by_proxy(top) as way:
        program = top / "detect"
        program.write_text(f"#!/bin/sh\necho '{way.settings.split(chr(34))[1]}'\n")
        program.chmod(0o755)
        yield Way(way.uri, f'Acquire::http::Proxy-Auto-Detect "{program}";\n', way.came)


@contextlib.contextmanager
def by_certificate(top: Path) -> Iterator[Way]:
    """A server with a certificate of its own, which requires a client's certificate."""
    folder = top / "tls"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test")
    for name in ("server", "client"):
        more = (
            "-addext",
            f"subjectAltName=IP:{HOST}",
            "-keyout",
            folder / f"{name}.key",
            "-out",
            folder / f"{name}.crt",
        )
        subprocess.run([*new, *more], stderr=subprocess.DEVNULL, check=True)
        # It must be readable for apt's own user.
        (folder / f"{name}.key").chmod(0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(folder / "client.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(top / "public", context=context) as server:
        settings = "".join(
            f'Acquire::https::{name} "{folder}/{file}";\n'
            for name, file in (("CaInfo", "server.crt"), ("SslCert", "client.crt"), ("SslKey", "client.key"))
        )
        yield Way(f"https://{HOST}:{server.port}", settings, lambda: bool(server.asked(proxied=False)))


WAYS = (by_credentials, by_proxy, by_variable, directly, by_no_proxy, by_detection, by_certificate)


@pytest.fixture(params=WAYS, ids=[way.__name__ for way in WAYS])
def way(request: pytest.FixtureRequest, top: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """A machine that reaches the archive in one way only."""
    with request.param(top) as found:
        machine = top / "machine.conf"
        machine.write_text(found.settings)
        monkeypatch.setenv("APT_CONFIG", str(machine))
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name, value in found.variables.items():
            monkeypatch.setenv(name, value)
        yield found


def source(top: Path, way: Way) -> sources.Source:
    return sources.Source(way.uri, ("trixie",), str(top / "key.gpg"))


def test_the_private_apt_takes_it(top: Path, way: Way) -> None:
    root = top / "private"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    steps = sources.update(root, (source(top, way),), "amd64")
    run.carry_out(steps, root, Progress(len(steps), quiet=True))
    assert way.came()
    assert [path.name for path in (root / "lists").glob("*_InRelease")]
    # As an archive does to keep a closure.
    step = plan.Run(
        "fetch", ("apt-get", "-c", f"{root}/apt.conf", "-o", "APT::Sandbox::User=root", "download", "apt")
    )
    run.carry_out((step,), root, Progress(1, quiet=True))
    assert (root / "apt_1_amd64.deb").exists()
    assert way.came()


def test_an_image_is_fetched_by_it(top: Path, way: Way, tmp_path: Path) -> None:
    content = b"an image"
    image = images.Image(replace(RECORD, sha512=hashlib.sha512(content).hexdigest()), way.uri)
    served = top / "public" / image.record.filename
    served.parent.mkdir(parents=True, exist_ok=True)
    served.write_bytes(content)
    images.fetch(image, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content
    assert way.came()


@dataclass(slots=True)
class Watched:
    """The command lines that were seen while something ran."""

    lines: set[bytes] = field(default_factory=set)

    def look(self, end: threading.Event) -> None:
        while not end.wait(0.01):
            for process in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    self.lines.add((process / "cmdline").read_bytes())


@contextlib.contextmanager
def watching() -> Iterator[Watched]:
    """Read the command lines of all processes, as ps(1) shows them to all users."""
    seen, end = Watched(), threading.Event()
    thread = threading.Thread(target=seen.look, args=(end,))
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()


def holding(folder: Path, secret: str) -> list[str]:
    """The files in a directory that contain a text."""
    found = subprocess.run(["grep", "-rlaF", secret, folder], capture_output=True, text=True, check=False).stdout
    return sorted(str(Path(line).relative_to(folder)) for line in found.splitlines())


def fetching(top: Path, way: Way) -> tuple[plan.Plan, tuple[str, ...]]:
    """The steps of a plan that fetch packages, which no cache has; and the names of their files."""
    debs = sorted((top / "public" / "pool").glob("*.deb"))
    packages = tuple(
        Package(deb.name.partition("_")[0], "1", "amd64", deb.stat().st_size, sha, uri=f"{way.uri}/pool/{deb.name}")
        for deb in debs
        for sha in (throwaway.sha256(deb.read_bytes()),)
    )
    for package in packages:
        (cache.directory() / cache.DEBS / package.sha256).unlink(missing_ok=True)
    of = source(top, way)
    steps = build_steps.plan(replace(RESOLUTION, packages=packages, tools=()), SERIAL, ("raw",), (of,), of)
    last = [step.title for step in steps].index(f"get {len(packages)} packages")
    return steps[: last + 1], tuple(deb.name for deb in debs)


def test_a_build_takes_it_and_nobody_reads_it(top: Path, way: Way, tmp_path: Path) -> None:
    steps, names = fetching(top, way)
    assert PASSWORD not in plan.as_shell(steps, "x", "x")
    with watching() as seen:
        run.carry_out(steps, tmp_path, Progress(len(steps), quiet=True))
    assert sorted(path.name for path in (tmp_path / "debs").iterdir()) == [*names]
    assert way.came()
    assert any(b"download-file" in line for line in seen.lines)
    assert not [line for line in seen.lines if PASSWORD.encode() in line]
    assert holding(tmp_path, PASSWORD) == []


def test_a_printed_plan_takes_it_where_it_runs(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with by_credentials(top) as way:
        steps, names = fetching(top, way)
        (tmp_path / "plan.sh").write_text(plan.as_shell(steps, "image", "x"))
        (top / "machine.conf").write_text(way.settings)
        monkeypatch.setenv("APT_CONFIG", str(top / "machine.conf"))
        subprocess.run(["sh", "plan.sh"], cwd=tmp_path, check=True, timeout=300)
        assert sorted(path.name for path in (tmp_path / "image" / "debs").iterdir()) == [*names]
        assert way.came()


def test_a_plan_is_the_same_whatever_the_way_and_shows_no_password(
    archive: throwaway.Archive, tmp_path: Path
) -> None:
    """The complete command, with an archive that requires credentials."""
    with serving(archive.public, CREDENTIALS) as server:
        address = f"http://{HOST}:{server.port}"
        (tmp_path / "auth.conf").write_text(f"machine {address} login {USER} password {PASSWORD}\n")
        asked = ("fine", "--archive", address, "--keyring", archive.keyring)
        printed = []
        for more in ("", f'Acquire::http::Proxy::nowhere.example "http://{CREDENTIALS}@{HOST}:1";\n'):
            (tmp_path / "machine.conf").write_text(f'Dir::Etc::netrc "{tmp_path}/auth.conf";\n{more}')
            done = debian_cloud("plan", *asked, APT_CONFIG=str(tmp_path / "machine.conf"))
            assert done.returncode == 0, done.stderr
            assert PASSWORD not in done.stdout + done.stderr
            printed.append(done.stdout)
        assert printed[0] == printed[1]
        (tmp_path / "auth.conf").write_text("")
        refused(debian_cloud("show", *asked, APT_CONFIG=str(tmp_path / "machine.conf")), 1, "401")


def test_what_loosens_verification_stays_with_the_machine(archive: throwaway.Archive, tmp_path: Path) -> None:
    """On a machine whose apt accepts any signature and runs a program of its own, the build uses neither setting."""
    said = "".join(
        f"[GNUPG:] {words}\\n" for words in ("GOODSIG 0 x", f"VALIDSIG {'A' * 40} 0 0 0 0 0 0 0 0 {'A' * 40}")
    )
    (tmp_path / "gpgv").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nprintf '{said}'\n")
    (tmp_path / "gpgv").chmod(0o755)
    (tmp_path / "loose.conf").write_text(
        f'APT::Key::gpgvcommand "{tmp_path}/gpgv";\nAPT::Update::Pre-Invoke {{ "touch {tmp_path}/ran"; }};\n'
        'Acquire::gpgv::Options { "--ignore-time-conflict"; };\nAPT::Sandbox::User "root";\n'
    )
    archive.release.write_text(archive.release.read_text().replace("Origin: ", "Origin: x"))
    done = debian_cloud("list", *archive.sources, APT_CONFIG=str(tmp_path / "loose.conf"))
    refused(done, 1, "apt-get failed")
    assert not (tmp_path / "ran").exists()


def test_what_the_private_apt_keeps_of_the_machine_s_sources_is_its_owner_s(tmp_path: Path) -> None:
    steps = sources.update(tmp_path, (sources.Source(f"http://{CREDENTIALS}@a.example/", ("x",), "/k"),), "amd64")
    written = tuple(step for step in steps if isinstance(step, plan.Write))
    run.carry_out(written, tmp_path, Progress(len(written), quiet=True))
    (found,) = holding(tmp_path, PASSWORD)
    assert not (tmp_path / found).stat().st_mode & 0o077
