# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples for operators' servers work as they are shipped, except for path, ports and certificate."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests import tls
from tests.archive.conftest import Archive, Maker, run
from tests.gnupg import remove

if TYPE_CHECKING:
    from tests.archive.conftest import Key

EXAMPLES = Path(__file__).resolve().parents[2] / "archive/examples"
PLACE: Final = "/srv/debian-cloud/archive/public"
CERTIFICATE: Final = "/etc/letsencrypt/live/cloud.example.org/"
# Modules that Debian's own configuration loads for a site, or that the user loads with a2enmod.
APACHE: Final = ("mpm_event", "authz_core", "autoindex", "dir", "headers", "mime", "socache_shmcb", "ssl")
IMMUTABLE: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Site:
    """A served archive, and how curl reaches it."""

    public: Path
    plain: int
    secure: int
    certificate: Path

    def get(self, path: str, *options: str, secure: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer; status 0 means no answer."""
        scheme, port = ("https", self.secure) if secure else ("http", self.plain)
        command = (
            *("curl", "--silent", "--dump-header", "-", "--path-as-is", "--cacert", str(self.certificate), *options),
            *("--resolve", f"cloud.example.org:{port}:127.0.0.1", f"{scheme}://cloud.example.org:{port}/{path}"),
        )
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        if done.returncode:
            return 0, {}, b""
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), headers, body


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that a server may read, which runs as another user."""
    folder = Path(tempfile.mkdtemp(prefix="serve-"))
    folder.chmod(0o755)
    yield folder
    remove(folder)


@pytest.fixture(scope="module")
def public(place: Path, short_path: Path, env: dict[str, str], uploader: Key) -> Path:
    """The tree that an archive with a package and an image serves, with files that are being written."""
    archive = Archive(short_path / "served", env)
    archive.run("init", "--uploader", uploader.public)
    (archive.path / "conf/closures").unlink()
    make = Maker(short_path, env)
    archive.take(make.deb(uploader))
    archive.take(make.image(uploader))
    archive.run("publish")
    served = place / "public"
    shutil.copytree(archive.public, served, symlinks=True)
    (served / "dists/trixie/.InRelease.new").write_text("half")
    (served / ".mirror").mkdir()
    (served / ".mirror/left").write_text("not verified")
    return served


@pytest.fixture(scope="module")
def certificate(place: Path) -> Path:
    """A directory with a self-signed certificate and its key."""
    folder = place / "certificate"
    folder.mkdir()
    tls.certificate(folder, "cloud.example.org", 2)
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def started(command: list[str], port: int) -> Iterator[None]:
    """Run a server in the foreground until the end of the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, command
            time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


@pytest.fixture(scope="module", params=["nginx", "apache"])
def site(request: pytest.FixtureRequest, place: Path, public: Path, certificate: Path) -> Iterator[Site]:
    """The archive, served with one of the examples, which the server's own check accepts."""
    own = place / request.param
    own.mkdir()
    plain, secure = free_port(), free_port()
    text = (EXAMPLES / f"{request.param}.conf").read_text().replace(PLACE, str(public))
    text = text.replace(CERTIFICATE, f"{certificate}/")
    conf = own / "conf"
    if request.param == "nginx":
        text = re.sub(r"(?m)^    #(listen|ssl_)", r"    \1", text)
        text = re.sub(r"(?m)^ *listen \[::\].*\n", "", text)
        text = text.replace("listen 80;", f"listen 127.0.0.1:{plain};")
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;")
        temp = "".join(f"{n}_temp_path {own}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        conf.write_text(
            f"{user} daemon off; pid {own}/pid; error_log {own}/log;\n"
            f"events {{}} http {{ {temp} access_log off;\n{text}}}\n"
        )
        command = ["nginx", "-c", str(conf), "-e", str(own / "log")]
        test = [*command, "-t"]
    else:
        text = text.replace("*:80>", f"127.0.0.1:{plain}>").replace("*:443>", f"127.0.0.1:{secure}>")
        who = "User nobody\nGroup nogroup\n" if os.geteuid() == 0 else ""
        modules = "".join(f"LoadModule {n}_module /usr/lib/apache2/modules/mod_{n}.so\n" for n in APACHE)
        conf.write_text(
            f"{modules}ServerRoot {own}\nServerName localhost\nPidFile {own}/pid\nErrorLog {own}/log\n{who}"
            f"DefaultRuntimeDir {own}\nTypesConfig /dev/null\n"
            f"Listen 127.0.0.1:{plain}\nListen 127.0.0.1:{secure}\n"
            f"<Directory />\nRequire all denied\n</Directory>\n{text}"
        )
        command = ["apache2", "-f", str(conf), "-DFOREGROUND"]
        test = ["apache2", "-f", str(conf), "-t"]
    done = subprocess.run(test, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with started(command, secure):
        yield Site(public, plain, secure, certificate / "fullchain.pem")


def test_caches_keep_what_is_never_rewritten_and_ask_for_the_rest(site: Site) -> None:
    public = site.public
    (snap,) = {path.name for path in sorted(public.glob("snap/*"))[-1:]}
    for name, wanted in (
        ("dists/trixie/InRelease", "no-cache"),
        ("dists/trixie/Release", "no-cache"),
        ("dists/trixie/Release.gpg", "no-cache"),
        ("dists/trixie/main/images/Images", "no-cache"),
        ("dists/trixie/main/images/Images.xz", "no-cache"),
        ("project/trace/master", "no-cache"),
        ("debian-cloud-archive-keyring_trixie.deb", "no-cache"),
        ("images/trixie/ec2/amd64/current/SHA512SUMS", "no-cache"),
        # This is signed again when a key is revoked.
        ("images/trixie/ec2/amd64/20261120.0/SHA512SUMS", "no-cache"),
        (f"snap/{snap}/dists/trixie/InRelease", "no-cache"),
        (f"snap/{snap}/dists/trixie/main/images/Images", IMMUTABLE),
        (f"snap/{snap}/images/trixie/ec2/amd64/20261120.0/debian-13-ec2-amd64-20261120.0.image", IMMUTABLE),
        *((str(path.relative_to(public)), IMMUTABLE) for path in public.glob("pool/main/d/*/*.deb")),
        *((str(path.relative_to(public)), IMMUTABLE) for path in public.glob("dists/trixie/main/images/by-hash/*/*")),
    ):
        for secure in (True, False):
            status, headers, body = site.get(name, secure=secure)
            assert (status, headers.get("cache-control")) == (200, wanted), name
            assert body == (public / name).read_bytes()
        # The request of an apt that has the file already.
        same = ("--header", f"If-Modified-Since: {headers['last-modified']}")
        assert site.get(name, *same)[0] == 304
    # A listing changes, and a missing file may appear.
    for name in ("pool/main/d/debian-cloud/", "images/trixie/ec2/amd64/20261120.0/"):
        status, headers, body = site.get(name)
        assert status == 200
        assert headers.get("cache-control") in ("no-cache", None)
        assert b"debian-" in body
    status, headers, _ = site.get("pool/main/x/x.deb")
    assert status == 404
    assert "immutable" not in headers.get("cache-control", "")


def test_text_is_shown_as_text(site: Site) -> None:
    image = "images/trixie/ec2/amd64/20261120.0"
    stem = f"{image}/debian-13-ec2-amd64-20261120.0"
    by_hash = sorted(site.public.glob("dists/trixie/main/images/by-hash/*/*"))[0].relative_to(site.public)
    (deb,) = site.public.glob("pool/main/d/debian-cloud/*.deb")
    for name, kind in (
        ("dists/trixie/InRelease", "text/plain"),
        ("dists/trixie/main/images/Images", "text/plain"),
        ("project/trace/master", "text/plain"),
        (f"{image}/SHA512SUMS", "text/plain"),
        (f"{image}/SHA512SUMS.sign", "text/plain"),
        (f"{stem}.buildinfo", "text/plain"),
        (f"{stem}.image", "text/plain"),
        (f"{stem}.changes", "text/plain"),
        (f"{stem}.spdx.json", "application/json"),
        (f"{stem}.qcow2", "application/octet-stream"),
        (f"{image}/SHA512SUMS.gpg", "application/octet-stream"),
        (str(by_hash), "application/octet-stream"),
        ("dists/trixie/main/images/", "text/html"),
    ):
        status, headers, _ = site.get(name)
        found, _, charset = headers.get("content-type", "").lower().partition(";")
        assert (status, found) == (200, kind), name
        if kind == "text/plain":
            assert charset.strip() == "charset=utf-8", name
    assert not site.get(str(deb.relative_to(site.public)))[1].get("content-type", "").startswith("text/")


def test_a_download_that_was_cut_off_is_resumed(site: Site) -> None:
    (deb,) = site.public.glob("pool/main/d/debian-cloud/*.deb")
    content = deb.read_bytes()
    status, headers, body = site.get(str(deb.relative_to(site.public)), "--range", "100-299")
    assert status == 206
    assert headers["content-range"] == f"bytes 100-299/{len(content)}"
    assert headers["cache-control"] == IMMUTABLE
    assert body == content[100:300]


@pytest.mark.parametrize(
    "path",
    [
        ".mirror/left",
        ".mirror/",
        "dists/../.mirror/left",
        "%2emirror/left",
        "dists/trixie/.InRelease.new",
        "/.mirror/left",
    ],
)
def test_what_is_not_published_yet_is_hidden(site: Site, path: str) -> None:
    status, _, body = site.get(path)
    assert status in (403, 404)
    assert b"verified" not in body
    assert b"half" not in body


def test_listings_do_not_name_what_is_hidden(site: Site) -> None:
    for path, there in (("", b"dists"), ("dists/trixie/", b"InRelease")):
        status, _, body = site.get(path)
        assert status == 200
        assert there in body
        assert b".mirror" not in body
        assert b".InRelease" not in body


def test_tls_is_1_3(site: Site) -> None:
    assert site.get("dists/trixie/InRelease", "--tlsv1.3")[0] == 200
    assert site.get("dists/trixie/InRelease", "--tls-max", "1.2")[0] == 0


def test_rsync_shows_what_is_published_alone(place: Path, public: Path) -> None:
    port = free_port()
    text = (EXAMPLES / "rsyncd.conf").read_text().replace(PLACE, str(public))
    if os.geteuid() != 0:
        text = re.sub("(?m)^(uid|gid) = .*\n", "", text).replace("use chroot = yes", "use chroot = no")
    else:
        assert pwd.getpwnam("nobody")
    conf = place / "rsyncd.conf"
    conf.write_text(f"lock file = {place}/rsyncd.lock\n{text}")
    command = ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={conf}"]
    with started(command, port):
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        listed = run(
            ["rsync", "--list-only", "--recursive", "--links", f"rsync://127.0.0.1:{port}/debian-cloud/"], env
        ).stdout
        there = {line.split(maxsplit=4)[4] for line in listed.splitlines()}
        written = run(["rsync", str(conf), f"rsync://127.0.0.1:{port}/debian-cloud/dists/"], env, check=False)
    assert {"dists/trixie/InRelease", "images/trixie/ec2/amd64/current -> 20261120.0"} <= there
    assert [name for name in there if re.search(r"(^|/)\.[^/]", name.partition(" -> ")[0])] == []
    assert written.returncode != 0
    assert "read only" in written.stderr
