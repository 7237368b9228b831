# SPDX-License-Identifier: GPL-3.0-or-later
"""`debian-cloud fetch` on a machine whose apt knows the archive from its keyring package."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from debian_cloud.image import index
from debian_cloud.packages import images, offers
from tests.conftest import PUBLISHED, SUITE, World
from tests.samples import RECORD


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files and records the requests."""

    requests: list[str]

    def log_message(self, _format: str, *_arguments: object) -> None:
        self.requests.append(self.path)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's own apt in a directory, and the archive that it uses over HTTP."""

    root: Path
    public: Path
    """The archive as it is served: links to its files, which can be replaced one by one."""
    requests: list[str] = field(default_factory=list)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**os.environ, "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def fetch(self, config: str, output: Path) -> subprocess.CompletedProcess[str]:
        self.requests.clear()
        return self.run("debian-cloud", "fetch", config, "--output", output)

    def update(self) -> subprocess.CompletedProcess[str]:
        return self.run("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")

    def record(self, config: str) -> index.ImageRecord:
        text = (self.public / "dists" / SUITE / "main" / "images" / "Images").read_text("utf-8")
        (record,) = (record for record in index.parse(text) if record.id.config == config)
        return record


@pytest.fixture
def machine(world: World, tmp_path: Path) -> Iterator[Machine]:
    """A directory with the keyring package unpacked and the archive's indexes fetched."""
    root, public, requests = tmp_path / "machine", tmp_path / "public", list[str]()
    subprocess.run(["cp", "-as", world.public, public], check=True)
    subprocess.run(["dpkg-deb", "-x", public / "debian-cloud-archive-keyring_trixie.deb", root], check=True)
    for folder in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/apt/preferences.d"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "apt.conf").write_text(
        f'Dir "{root}";\nDir::State::status "/dev/null";\nAPT::Sandbox::User "root";\n'
        'Acquire::Check-Valid-Until "true";\nAcquire::Check-Date "true";\nAcquire::http::Proxy::127.0.0.1 "DIRECT";\n'
    )
    handler = type("Noting", (Handler,), {"requests": requests})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(public)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (sources,) = (root / "etc/apt/sources.list.d").iterdir()
    lines = [line for line in sources.read_text().splitlines() if not line.startswith("URIs:")]
    text = "\n".join([*lines, f"URIs: http://127.0.0.1:{server.server_port}", ""])
    sources.write_text(text.replace("Signed-By: /", f"Signed-By: {root}/"))
    made = Machine(root, public, requests)
    updated = made.update()
    assert updated.returncode == 0, updated.stderr
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def refused(done: subprocess.CompletedProcess[str], status: int, *said: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("debian-cloud: error: ") == 1
    for words in said:
        assert words in done.stderr


def replace(path: Path, content: bytes) -> None:
    """Replace a served file, but not the file that it links to."""
    path.unlink()
    path.write_bytes(content)


def test_list_and_fetch(machine: Machine, tmp_path: Path) -> None:
    listed = machine.run("debian-cloud", "list", "--images", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [image["config"] for image in json.loads(listed.stdout)] == list(PUBLISHED)
    done = machine.fetch("nocloud", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = machine.record("nocloud")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / record.name)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [record.name]
    command: list[str | Path] = ["cmp", tmp_path / "out" / record.name, machine.public / record.filename]
    assert subprocess.run(command, check=False).returncode == 0


def test_what_was_fetched_is_kept_without_the_network(machine: Machine, tmp_path: Path) -> None:
    record = machine.record("ec2")
    (tmp_path / record.name).symlink_to((machine.public / record.filename).resolve())
    done = machine.fetch("ec2", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / record.name}\n"), done.stderr
    assert machine.requests == []
    assert (tmp_path / record.name).is_symlink()


@pytest.mark.parametrize("tampering", ["a bit", "the end", "a longer end", "all"])
def test_an_image_that_is_not_what_the_index_says(machine: Machine, tmp_path: Path, tampering: str) -> None:
    served = machine.public / machine.record("ec2").filename
    content = bytearray(served.read_bytes())
    match tampering:
        case "a bit":
            content[len(content) // 2] ^= 1
        case "the end":
            del content[-4096:]
        case "a longer end":
            content += b"more"
        case "all":
            content.clear()
    replace(served, content)
    done = machine.fetch("ec2", tmp_path / "out")
    assert machine.requests
    assert done.returncode == 1, done.stderr
    assert "could not be fetched, or is not the file in the signed index" in done.stderr
    assert "Hash Sum mismatch" in done.stderr
    assert str(tmp_path / "out") not in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_an_image_without_end(machine: Machine, tmp_path: Path) -> None:
    """Little more of it is written than the size in the signed index."""
    record = machine.record("container")
    served = machine.public / record.filename
    replace(served, b"")
    os.truncate(served, record.size + 2**30)
    done = machine.run("debian-cloud", "fetch", "container", "--output", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert "could not be fetched, or is not the file in the signed index" in done.stderr
    assert "Hash Sum mismatch" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_an_image_that_is_missing(machine: Machine, tmp_path: Path) -> None:
    (machine.public / machine.record("ec2").filename).unlink()
    done = machine.fetch("ec2", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert "404" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_another_file_of_that_name_is_not_touched(machine: Machine, tmp_path: Path) -> None:
    there = tmp_path / machine.record("ec2").name
    there.write_text("mine")
    refused(machine.fetch("ec2", tmp_path), 2, f"{there} exists already and is another file")
    assert machine.requests == []
    assert there.read_text() == "mine"


def test_what_there_is_not(machine: Machine, tmp_path: Path) -> None:
    refused(machine.fetch("ec3", tmp_path / "out"), 2, "no image of ec3 in trixie", "did you mean ec2?")
    serial = machine.run("debian-cloud", "fetch", "ec2", "--serial", "20010101.0", "--output", tmp_path / "out")
    refused(serial, 2, "no image of ec2 in trixie as qcow2 20010101.0", "list --images")
    assert machine.requests == []
    assert not (tmp_path / "out").exists()


def test_a_tampered_index_of_images_is_refused(machine: Machine, tmp_path: Path) -> None:
    lists = machine.root / "var/lib/apt/lists"
    for path in lists.glob("*_*"):
        path.unlink()
    folder = machine.public / "dists" / SUITE / "main" / "images"
    for path in (folder / "Images", folder / "Images.xz", *folder.glob("by-hash/SHA256/*")):
        replace(path, path.read_bytes()[:-1] + b"x")
    done = machine.update()
    assert done.returncode == 100
    assert "Hash Sum mismatch" in done.stderr
    assert list(lists.glob("*_Images")) == []
    refused(machine.fetch("ec2", tmp_path), 1, "this machine's apt has no index of images", "apt-get update")


def test_without_a_serial_the_current_image_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = {"20261119.0": "superseded", "20261120.0": "current", "20261121.0": "deprecated"}
    known = [
        images.Image(
            dataclasses.replace(RECORD, id=dataclasses.replace(RECORD.id, serial=serial), status=status), "file:/x"
        )
        for serial, status in statuses.items()
    ]
    monkeypatch.setattr(images, "known", lambda _suite, _arch: images.Known((*known,)))

    def chosen(serial: str = "") -> str:
        wanted = offers.Wanted("ec2", architecture="amd64", serial=serial)
        return offers.choose(wanted, lambda _: None).record.id.serial

    assert chosen() == "20261120.0"
    assert chosen("20261121.0") == "20261121.0"
    del known[1]
    assert chosen() == "20261121.0"


@pytest.mark.skipif(os.geteuid() != 0, reason="apt has a sandbox for root alone")
def test_apt_has_nothing_to_say_of_its_sandbox(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The user of apt's sandbox cannot write into the output directory, and apt does not warn about that."""
    content = b"x" * 1000
    record = dataclasses.replace(RECORD, size=len(content), sha512=hashlib.sha512(content).hexdigest())
    (tmp_path / record.filename).parent.mkdir(parents=True)
    (tmp_path / record.filename).write_bytes(content)
    images.fetch(images.Image(record, f"file:{tmp_path}"), tmp_path / "fetched")
    assert "unsandboxed" not in capfd.readouterr().err
    assert (tmp_path / "fetched").read_bytes() == content
