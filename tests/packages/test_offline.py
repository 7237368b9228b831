# SPDX-License-Identifier: GPL-3.0-or-later
"""With --offline no connection is tried, and what is in the cache is verified as if it had just been fetched."""

from __future__ import annotations

import difflib
import functools
import http.server
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from debian_cloud import formats, plan
from debian_cloud.build.request import Planned
from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.image import sources
from debian_cloud.image.id import ImageId
from debian_cloud.packages import cache, pool, releases
from tests import throwaway
from tests.command import refused
from tests.samples import CONFIG, RESOLUTION, planned

SOURCE = Path(__file__).resolve().parents[2] / "src"
SUITE = "sid"
"""A suite without a security suite: one release file of Debian."""

# The command, with a cache, a key of Debian, and a clock of its own.
COMMAND = f"""\
import sys, types
sys.path.insert(0, {str(SOURCE)!r})
from pathlib import Path
from time import time
from debian_cloud import cli, names
from debian_cloud.host import command
from debian_cloud.packages import cache, releases
top = Path(__file__).parents[1]
names.DEBIAN_KEYRING = str(top / "key.gpg")
cache.place = lambda: top / "cache"
releases.time = types.SimpleNamespace(time=lambda: time() + int((top / "clock").read_text()))
sys.exit(command.main(cli.run))
"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Serves a directory, and counts connections."""

    connections = 0

    def verify_request(self, *_arguments: object) -> bool:
        self.connections += 1
        return True


@dataclass
class World:
    """Debian and an archive behind a server, a user's cache, and the command."""

    top: Path
    server: Server
    archive: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def lists(self) -> Path:
        (found,) = (path for path in (self.top / "cache").glob("*/lists") if "." not in path.parent.name)
        return found

    def set_clock(self, seconds: int) -> None:
        """Set the command's clock ahead."""
        (self.top / "clock").write_text(str(seconds))

    def publish(self, name: str, *stanzas: str, days: int = 1) -> None:
        packages = "\n".join(stanzas)
        suite = self.top / "public" / name / "dists" / SUITE
        index = suite / "main/binary-amd64/Packages"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(packages)
        now = int(time.time())
        dates = (time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(now + add)) for add in (0, days * 86400))
        release = (
            f"Origin: Debian\nLabel: Debian\nSuite: {SUITE}\nCodename: {SUITE}\nDate: {{}}\nValid-Until: {{}}\n"
            "Architectures: amd64\nComponents: main\n"
            f"SHA256:\n {throwaway.sha256(packages.encode())} {len(packages)} main/binary-amd64/Packages\n"
        ).format(*dates)
        throwaway.sign(self.top / "home", release, suite / "InRelease")

    def deb(self, folder: str, name: str, **fields: str) -> str:
        """Put a package into the directory of an archive, and return its stanza."""
        content = name.encode() * 100
        place = self.top / "public" / folder / "pool" / f"{name}_1_amd64.deb"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        facts = {"Package": name, "Version": "1", "Architecture": "amd64", "Maintainer": "x", "Installed-Size": "1"}
        facts |= {key.replace("_", "-"): value for key, value in fields.items()}
        facts |= {"Filename": f"pool/{place.name}", "Size": str(len(content)), "SHA256": throwaway.sha256(content)}
        return "".join(f"{key}: {value}\n" for key, value in {**facts, "Description": "x"}.items())

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.top / "bin/debian-cloud", *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def ask(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        archive = ("--archive", self.archive or f"{self.url}/archive", "--keyring", f"{self.top}/key.gpg")
        config = () if verb == "list" else ("fine",)
        return self.run(verb, *config, "--suite", SUITE, "--mirror", f"{self.url}/debian", *archive, *words)

    def done(self, verb: str, *words: str) -> str:
        done = self.ask(verb, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.top}/bin:{os.environ['PATH']}",
        }

    def fetched(self, script: str, folder: str) -> subprocess.CompletedProcess[str]:
        """Carry out a printed plan as far as it gets packages."""
        end = re.search(r"^debian-cloud packages (?:.|\n)*?< /dev/null$", script, re.M)
        assert end
        place = self.top / folder
        place.mkdir()
        return subprocess.run(
            ["sh", "-c", script[: end.end()]],
            cwd=place,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def signer() -> Iterator[Path]:
    with throwaway.signer() as top:
        (top / "bin").mkdir()
        (top / "bin/debian-cloud").write_text(f"#!/usr/bin/python3\n{COMMAND}")
        (top / "bin/debian-cloud").chmod(0o755)
        yield top


@pytest.fixture
def world(signer: Path) -> Iterator[World]:
    handler = functools.partial(Handler, directory=str(signer / "public"))
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    made = World(signer, server)
    made.set_clock(0)
    tools = (made.deb("debian", name) for name in formats.tools("tree"))
    made.publish(
        "debian",
        *(made.deb("debian", name, Essential="yes", Priority="required") for name in ("base-files", "dpkg")),
        made.deb("debian", "apt"),
        *tools,
    )
    made.publish("archive", fine(made), days=10)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
    left = {*signer.iterdir()} - {signer / name for name in ("home", "key.gpg", "bin", "clock")}
    for path in left:
        shutil.rmtree(path)


def fine(world: World, folder: str = "archive", name: str = "fine") -> str:
    more = {"Image_Format": "tar.xz", "Depends": "base-files", "Priority": "optional"}
    return world.deb(folder, f"debian-cloud-config-{name}", **more)


@pytest.fixture
def cached(world: World) -> World:
    """The same after one build's indexes and packages were fetched."""
    script = world.done("plan")
    done = world.fetched(script, "first")
    assert done.returncode == 0, done.stderr
    assert world.server.connections
    world.server.connections = 0
    return world


def test_what_was_fetched_once_is_there_without_a_network(cached: World) -> None:
    asked = {verb: cached.done(verb) for verb in ("plan", "show", "list")}
    assert cached.server.connections
    cached.server.connections = 0
    assert {verb: cached.done(verb, "--offline") for verb in ("show", "list")} == {
        verb: asked[verb] for verb in ("show", "list")
    }
    offline = cached.done("plan", "--offline")
    changed = [line for line in difflib.ndiff(asked["plan"].split("\n"), offline.split("\n")) if line[0] in "+-"]
    assert len(changed) == 2
    # The plan and its id are the same: only the step that gets packages has the word.
    assert changed[0].removeprefix("- ").replace(" packages ", " packages --offline ") == changed[1].removeprefix(
        "+ "
    )
    assert re.search("^# Plan [0-9a-f]{64}", offline, re.M)
    done = cached.fetched(offline, "second")
    assert done.returncode == 0, done.stderr
    got = {path.name: path.read_bytes() for path in (cached.top / "second").glob("*/debs/*")}
    assert got == {path.name: path.read_bytes() for path in (cached.top / "first").glob("*/debs/*")}
    assert "debian-cloud-config-fine_1_amd64.deb" in got
    assert cached.server.connections == 0


def test_without_a_cache_it_says_what_is_missing(world: World) -> None:
    for verb in ("plan", "show", "build", "list"):
        done = world.ask(verb, "--offline")
        refused(done, 1, f"the cache has no index of {SUITE} from {world.url}/debian", "once without --offline")
    assert world.server.connections == 0


def test_an_archive_that_was_not_read_is_named(cached: World) -> None:
    cached.archive = f"{cached.url}/another"
    refused(cached.ask("show", "--offline"), 1, f"the cache has no index of {SUITE} from {cached.url}/another")
    assert cached.server.connections == 0


def test_an_index_that_is_missing_is_named(cached: World) -> None:
    (index,) = cached.lists.glob("*_debian_*_Packages")
    index.unlink()
    done = cached.ask("show", "--offline")
    refused(done, 1, f"the cache has no index main/binary-amd64/Packages of {SUITE} from {cached.url}/debian")
    cached.done("show")
    cached.done("show", "--offline")


@pytest.mark.parametrize("change", [b"Version: 2", b"Version: 1\n", None])
def test_an_index_that_was_not_signed_is_refused_and_removed(cached: World, change: bytes | None) -> None:
    (index,) = cached.lists.glob("*_debian_*_Packages")
    index.write_bytes(index.read_bytes().replace(b"Version: 1", change) if change else b"")
    refused(cached.ask("show", "--offline"), 1, "is not the one that", "it was damaged, and is removed")
    assert not index.exists()
    # So apt fetches it again.
    cached.done("show")
    cached.server.connections = 0
    cached.done("show", "--offline")
    assert cached.server.connections == 0


def test_a_release_file_that_was_changed_is_refused(cached: World) -> None:
    (release,) = cached.lists.glob("*_debian_*_InRelease")
    release.write_bytes(release.read_bytes().replace(b"Label: Debian", b"Label: Debiam"))
    refused(cached.ask("show", "--offline"), 1, "has no valid signature")
    assert cached.server.connections == 0


def test_an_index_that_has_expired_is_refused_unless_that_is_allowed(cached: World) -> None:
    cached.set_clock(2 * 86400)
    done = cached.ask("show", "--offline")
    refused(done, 1, f"the index of {SUITE} from {cached.url}/debian in the cache was valid until", "--allow-expired")
    # Those in the cache were fetched without the option.
    cached.done("show", "--offline", "--allow-expired")
    # The option is for Debian's alone, as always.
    cached.set_clock(20 * 86400)
    done = cached.ask("show", "--offline", "--allow-expired")
    refused(done, 1, f"the index of {SUITE} from {cached.url}/archive in the cache was valid until")
    cached.set_clock(-86400)
    for more in ((), ("--allow-expired",)):
        refused(cached.ask("show", "--offline", *more), 1, "is not valid yet", "clock")
    assert cached.server.connections == 0


def test_a_source_on_this_machine_is_read_anew(world: World) -> None:
    world.archive = f"file:{world.top}/public/archive"
    world.done("show")
    world.server.connections = 0
    world.publish("archive", fine(world), fine(world, name="new"))
    assert [line.split()[0] for line in world.done("list", "--offline").splitlines()] == ["fine", "new"]
    (world.top / "public/archive/dists" / SUITE / "InRelease").write_text("damaged")
    refused(world.ask("list", "--offline"), 1, "apt-get failed")
    assert world.server.connections == 0


def test_a_package_that_is_missing_is_named_and_none_is_fetched(cached: World) -> None:
    offline = cached.done("plan", "--offline")
    for path in (cached.top / "cache" / cache.DEBS).iterdir():
        path.unlink()
    done = cached.fetched(offline, "second")
    assert done.returncode == 1
    said = r"error: the cache does not have \S+_1_amd64\.deb, nor [0-9]+ other packages\n.*hint: run it once without"
    assert re.search(said, done.stderr), done.stderr
    done = cached.ask("build", "--offline", "--quiet", "--output", f"{cached.top}/images")
    refused(done, 1, "the cache does not have ", "run it once without --offline")
    assert [*(cached.top / "images").iterdir()] == []
    assert cached.server.connections == 0


# Without a server.


def test_a_plan_is_the_same_with_and_without() -> None:
    steps = planned(CONFIG, archive=sources.Source("http://a.example", ("trixie",), "/k"))
    image = ImageId("trixie", "ec2", "amd64", "20261120.0")
    online, offline = (Planned(steps, RESOLUTION, image, ("x",), offline=value) for value in (False, True))
    assert online.id == offline.id
    assert online.steps == online.plan == offline.plan
    (changed,) = (new for old, new in zip(online.steps, offline.steps, strict=True) if old != new)
    assert isinstance(changed, plan.Run)
    assert changed.argv[:3] == (*pool.COMMAND, "--offline")


def test_a_source_on_this_machine_needs_no_network(tmp_path: Path) -> None:
    of = [sources.Source(uri, ("sid",), "/k") for uri in ("file:/a", "copy:/b", "http://c.example", "mirror+file:/d")]
    steps = sources.update(tmp_path, of, "amd64", offline=True)
    (text,) = (step.text for step in steps if isinstance(step, plan.Write) and "/local.list.d/" in step.path)
    assert re.findall("^URIs: (.*)", text, re.M) == ["copy:/a", "copy:/b"]
    (update,) = (step for step in steps if isinstance(step, plan.Run) and step.argv[0] == "apt-get")
    assert f"Dir::Etc::SourceParts={tmp_path}/local.list.d" in update.argv
    # If all are elsewhere, apt-get does not even run.
    steps = sources.update(tmp_path, of[2:], "amd64", offline=True)
    assert not [step for step in steps if isinstance(step, plan.Run) and step.argv[0] == "apt-get"]


def test_a_plan_without_lists_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers are in the cache, and the tree has all tools."""
    from debian_cloud import cli

    monkeypatch.setattr(cache, "place", lambda: tmp_path / "cache")
    assert cli.run(["packages", str(tmp_path / "debs")]) == 0
    assert [*(tmp_path / "debs").iterdir()] == []


def test_a_package_on_this_machine_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "place", lambda: tmp_path / "cache")
    (tmp_path / "x_1_all.deb").write_bytes(b"one")
    line = f"{throwaway.sha256(b'one')} 3 x_1_all.deb copy:{tmp_path}/x_1_all.deb\n"
    (tmp_path / "list").write_text(line)
    pool.fetch(tmp_path / "first", [tmp_path / "list"], offline=True)
    assert (tmp_path / "first/x_1_all.deb").read_bytes() == b"one"
    (tmp_path / "list").write_text(f"{line}{'0' * 64} 3 y_1_all.deb http://a.example/y_1_all.deb\n")
    with pytest.raises(Error, match=r"^the cache does not have y_1_all\.deb$"):
        pool.fetch(tmp_path / "second", [tmp_path / "list"], offline=True)


@pytest.mark.parametrize(
    ("fields", "indexes"),
    [
        ("Architectures: amd64 arm64\n", ["binary-amd64"]),
        ("Architectures: all amd64\n", ["binary-amd64", "binary-all"]),
        ("Architectures: all amd64\nNo-Support-for-Architecture-all: Packages\n", ["binary-amd64"]),
    ],
)
def test_the_indexes_are_those_that_apt_reads(tmp_path: Path, fields: str, indexes: list[str]) -> None:
    source = sources.Source("http://a.example", ("sid",), "/k", ("main", "contrib"))
    found = releases.Release(source, "sid", tmp_path, sign.Signed(fields.encode(), (), 0, ""))
    wanted = [f"{part}/{index}/Packages" for part in ("main", "contrib") for index in indexes]
    assert [*releases.of_packages(found, "amd64")] == wanted


def test_an_index_that_the_release_file_does_not_list_is_not_missed(tmp_path: Path) -> None:
    """Nor one that is empty; one of which only the compressed form is listed is."""
    text = f"SHA256:\n {'0' * 64} 0 main/x\n {'0' * 64} 9 main/y.xz\n"
    source = sources.Source("http://a.example", ("sid",), "/k")
    found = releases.Release(source, "sid", tmp_path, sign.Signed(text.encode(), (), 0, ""))
    releases.refuse_other(tmp_path, found, ("main/x", "main/z"))
    with pytest.raises(Error, match=r"^the cache has no index main/y of sid from http://a\.example$"):
        releases.refuse_other(tmp_path, found, ("main/y",))
    (tmp_path / "a.example_dists_sid_main_y").touch()
    releases.refuse_other(tmp_path, found, ("main/y",))
