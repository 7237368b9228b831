# SPDX-License-Identifier: GPL-3.0-or-later
"""`debian-cloud-mirror check` finds what is wrong with a mirror that a real web server serves."""

from __future__ import annotations

import http.server
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import tls
from tests.mirror.servers import Polite, Quiet, serving
from tests.mirror.tree import COMMAND, Archive, Key, Server

NEW = "images/trixie/ec2/amd64/20261120.0"


def check(key: Key, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "check", "--keyring", str(key.keyring), "--suite", "trixie", *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


@pytest.fixture
def url(archive: Archive, servers: dict[str, Server]) -> str:
    return f"{servers['http'].url}/{archive.root.name}"


def told(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What was looked at -> level and sentence, without what is in progress."""
    lines = (line.split(": ", 2) for line in done.stdout.splitlines() if line.startswith(("ok", "warning", "error")))
    return {what: f"{level}: {sentence}" for level, what, sentence in lines}


def test_all_is_well(archive: Archive, url: str, key: Key) -> None:
    done = check(key, url, "--against", url)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found = told(done)
    assert {line.partition(":")[0] for line in found.values()} == {"ok"}
    assert found["trixie files"] == "ok: 48 of 48 were asked for, and are there"
    assert found["trixie links"] == "ok: 5 of 5 were asked for, and are there"
    assert found["trixie by-hash"] == "ok: 15 of 15 indexes are there by hash"
    assert found["trixie ranges"] == "ok: downloads can be continued"
    assert found["trixie state"].endswith(url)


def test_the_findings_are_for_scripts_too(url: str, key: Key) -> None:
    done = check(key, url, "--json")
    assert done.returncode == 0, done.stderr
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["trixie files"]["level"] == "ok"
    assert {"level", "what", "sentence"} == {*found["trace"]}
    assert check(key, url, "--quiet").stdout == ""


def remove(root: Path, pattern: str) -> None:
    for path in root.glob(pattern):
        path.unlink()


def of_another_size(root: Path) -> None:
    (image,) = (root / NEW).glob("*.?.qcow2")
    with image.open("ab") as file:
        file.write(b"x")


def behind(root: Path) -> None:
    link = root / NEW / "../current"
    link.unlink()
    link.symlink_to("20261119.9")


def with_private_files(root: Path) -> None:
    (root / ".mirror").mkdir()
    (root / ".mirror/trixie.files").write_text("")


def forged(root: Path) -> None:
    release = root / "dists/trixie/InRelease"
    release.write_text(release.read_text().replace("Origin: Test", "Origin: Evil"))


def changed_release(root: Path) -> None:
    release = root / "dists/trixie/Release"
    release.write_text(release.read_text().replace("Origin: Test", "Origin: Evil"))


FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "an image": (lambda root: remove(root, f"{NEW}/*.?.qcow2"), "trixie files", "20261120.0.qcow2: missing, of 48"),
    "a package": (
        lambda root: remove(root, "pool/**/*.deb"),
        "trixie files",
        "libcloud++_1.0+b1~rc1_amd64.deb: missing",
    ),
    "a size": (of_another_size, "trixie files", "20261120.0.qcow2: not as large as listed, of 48"),
    "a link": (behind, "trixie links", "amd64/current/"),
    "private files": (with_private_files, "private", ".mirror/ is served"),
    "a signature": (forged, "trixie InRelease", "is not signed by a key in"),
    "Release": (changed_release, "trixie Release", "do not agree with dists/trixie/InRelease"),
    "InRelease": (lambda root: remove(root, "dists/trixie/InRelease"), "trixie InRelease", "InRelease is missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(archive: Archive, url: str, key: Key, name: str) -> None:
    spoil, what, sentence = FAULTS[name]
    spoil(archive.root)
    done = check(key, url)
    assert done.returncode == 1, done.stdout + done.stderr
    found = told(done)
    assert found[what].startswith("error: ")
    assert sentence in found[what]
    # What else is wrong is a consequence: nothing is called wrong without a reason.
    assert [other for other, line in found.items() if line.startswith("error") and other != what] == [
        *(["trixie links"] if name in {"an image", "a size"} else [])
    ]


def test_a_missing_index_is_found(archive: Archive, url: str, key: Key) -> None:
    for path in archive.index_files("main/images/Images"):
        path.unlink()
    found = told(check(key, url))
    assert found["trixie indexes"] == "error: dists/trixie/main/images/Images is missing at the source"


def test_without_by_hash_there_is_a_warning(archive: Archive, url: str, key: Key) -> None:
    remove(archive.root, "dists/trixie/main/**/by-hash/SHA256/*")
    done = check(key, url)
    assert done.returncode == 0, done.stdout
    assert told(done)["trixie by-hash"].startswith("warning: no index is there by hash")


def test_a_mirror_that_is_behind_is_told(archive: Archive, url: str, key: Key, site: Path) -> None:
    old = (archive.root / "dists/trixie/InRelease").read_bytes()
    place = site / "older"
    (place / "dists/trixie").mkdir(parents=True)
    (place / "dists/trixie/InRelease").write_bytes(old)
    archive.publish()
    found = told(check(key, url, "--against", url.replace(archive.root.name, "older")))
    assert found["trixie state"].startswith("ok: ")
    (place / "dists/trixie/InRelease").write_bytes((archive.root / "dists/trixie/InRelease").read_bytes())
    (archive.root / "dists/trixie/InRelease").write_bytes(old)
    done = check(key, url, "--against", url.replace(archive.root.name, "older"))
    assert told(done)["trixie state"].startswith("warning: ")
    assert told(done)["trixie state"].endswith("published another one 1.9 days ago")


def test_the_age_is_told_and_an_expired_mirror_is_wrong(archive: Archive, url: str, key: Key) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    archive.publish(now - timedelta(days=9))
    found = told(check(key, url))
    assert found["trixie age"].startswith("warning: of ")
    assert found["trixie age"].endswith("valid for 1.0 days: more than half of its time is over")
    archive.publish(now - timedelta(days=11))
    done = check(key, url)
    assert done.returncode == 1
    assert "expired: it was valid until" in told(done)["trixie InRelease"]


def test_a_server_without_ranges_is_told(archive: Archive, key: Key) -> None:
    with serving(Quiet, archive.root) as address:
        done = check(key, address)
    assert done.returncode == 0, done.stdout
    assert told(done)["trixie ranges"].startswith("warning: a part of images/")
    assert told(done)["trixie types"].endswith("text is served as application/octet-stream")


def test_a_server_that_has_a_page_for_everything_does_not_pass(archive: Archive, key: Key) -> None:
    remove(archive.root, f"{NEW}/*.?.qcow2")
    with serving(Polite, archive.root) as address:
        done = check(key, address)
    assert done.returncode == 1
    assert "20261120.0.qcow2: not as large as listed" in told(done)["trixie files"]


def test_files_that_are_not_selected_are_not_asked_for(archive: Archive, url: str, key: Key) -> None:
    remove(archive.root, "images/trixie/generic/amd64/*/*")
    remove(archive.root, "images/trixie/ec2/amd64/20261119.0/*")
    assert check(key, url).returncode == 1
    done = check(key, url, "--config", "ec2", "--newest", "1")
    assert done.returncode == 0, done.stdout


def test_of_many_files_some_are_asked_for(url: str, key: Key) -> None:
    assert told(check(key, url, "--files", "5"))["trixie files"] == "ok: 5 of 48 were asked for, and are there"


@pytest.fixture
def secure(archive: Archive, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of an https server of the archive, and its certificate, which is valid for ten days."""
    tls.certificate(tmp_path, "localhost", 10)
    certificate, private = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)

    def handler(*words: Any) -> http.server.SimpleHTTPRequestHandler:
        return Quiet(*words, directory=str(archive.root))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}", certificate
        server.shutdown()


def test_the_certificate_is_looked_at(secure: tuple[str, Path], key: Key) -> None:
    address, certificate = secure
    done = check(key, address, CURL_CA_BUNDLE=str(certificate))
    assert done.returncode == 0, done.stdout + done.stderr
    found = told(done)["certificate"]
    assert found.startswith("warning: valid until ")
    assert found.endswith(", for 10 days")


def test_an_unknown_certificate_is_refused(secure: tuple[str, Path], key: Key) -> None:
    done = check(key, secure[0])
    assert done.returncode == 1
    assert done.stderr.startswith("debian-cloud-mirror: error: cannot fetch from https://localhost:")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rsync://127.0.0.1/tree",), "a mirror is looked at by http or https"),
        (("http://127.0.0.1:9/x", "--files", "0"), "'0' is not a number of files"),
        (("http://127.0.0.1:9/../x",), "the source has invalid characters or parts"),
        ((), "the following arguments are required: URL"),
    ],
)
def test_wrong_use(key: Key, words: tuple[str, ...], said: str) -> None:
    done = check(key, *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_nobody_there(key: Key) -> None:
    done = check(key, "http://127.0.0.1:9/x")
    assert done.returncode == 1
    assert "cannot fetch from http://127.0.0.1:9/x" in done.stderr
