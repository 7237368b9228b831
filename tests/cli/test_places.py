# SPDX-License-Identifier: GPL-3.0-or-later
"""Every path that a user can give is used or refused in one sentence, never with a traceback."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_cloud.build import workspace
from debian_cloud.errors import USAGE, Error
from debian_cloud.image import sources
from debian_cloud.packages import images
from tests import one_line, throwaway
from tests.command import debian_cloud, refused
from tests.conftest import ALL, ROOT
from tests.samples import described
from tests.throwaway import FINE, Archive, configuration

NAMES = ("a b", "p%20q", "p%q", "#", "ä", "new\nline", "q\"q'", "back\\slash", os.fsdecode(b"\xff"))
# For tests of which each takes seconds: all of it at once, and each alone in make check-all.
SLOW = (pytest.param("".join(NAMES)), *(pytest.param(name, marks=pytest.mark.thorough) for name in NAMES))
AS_NOBODY = () if os.geteuid() else ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
AS_NO_USER = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="to become another user needs root")


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with throwaway.folder() as top:
        yield throwaway.archive(top, configuration(top / "debs", "fine", FINE))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that all users may write to."""
    with throwaway.folder() as top:
        top.chmod(0o1777)
        yield top


def as_user(
    environment: dict[str, str], *command: str | Path, user: tuple[str, ...] = AS_NOBODY
) -> subprocess.CompletedProcess[str]:
    """Run a command as an ordinary user, with HOME and XDG_CACHE_HOME only as given."""
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    return subprocess.run(
        [*user, *command],
        env={**kept, **environment},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", SLOW)
def test_an_archive_and_its_keyring_are_anywhere(archive: Archive, place: Path, name: str) -> None:
    there = place / name
    there.mkdir()
    shutil.copytree(archive.public, there / "public", symlinks=True)
    shutil.copy(archive.keyring, there / "the key.gpg")
    done = debian_cloud("show", "fine", "--archive", there / "public", "--keyring", there / "the key.gpg")
    assert done.returncode == 0, done.stderr
    assert "debian-cloud-config-fine 1.0" in done.stdout


QUOTED = (
    pytest.param("{}/x/%2e%2e/a%20b/%70ublic/"),
    *(
        pytest.param(form, marks=pytest.mark.thorough)
        for form in ("{}/a%20b/public", "{}/x/%2e%2e/a%20b/public", "{}/a%20b/%70ublic/", "/{}/a%20b/public")
    ),
)


@pytest.mark.thorough
@pytest.mark.parametrize("form", QUOTED)
def test_a_file_address_is_read_as_apt_reads_it(
    archive: Archive, place: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The address may be an argument or in the user's own file; suites are found at it, too."""
    (place / "x").mkdir()
    shutil.copytree(archive.public, place / "a b/public", symlinks=True)
    uri = f"file:{form.format(place)}"
    given = ("--archive", uri, "--keyring", archive.keyring)
    done = debian_cloud("show", "fine", *given)
    assert done.returncode == 0, done.stderr
    assert images.suites(uri) == ("trixie",)
    refused(debian_cloud("show", "fine", "--suite", "forky", *given), USAGE, "the archive has: trixie")
    # A file of the user's own is refused in a directory that others can write to.
    place.chmod(0o755)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place))
    (place / "debian-cloud").mkdir()
    (place / "debian-cloud/own.sources").write_text(
        f"Types: deb\nURIs: {uri}\nSuites: trixie\nComponents: main\nSigned-By: {archive.keyring}\n"
    )
    done = debian_cloud("show", "fine")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("bad", ["%00", "%zz", "%", "%2", "a%0", "%2%65"])
def test_an_address_that_readers_would_read_otherwise(
    archive: Archive, place: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    uri = f"file:{archive.public}/{bad}/.."
    given = ("--archive", uri, "--keyring", archive.keyring)
    refused(debian_cloud("show", "fine", *given), USAGE, f"--archive {uri!r} is not a URL that apt accepts")
    assert images.suites(uri) == ()
    place.chmod(0o755)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place))
    (place / "debian-cloud").mkdir()
    file = place / "debian-cloud/own.sources"
    file.write_text(f"Types: deb\nURIs: {uri}\nSuites: trixie\nComponents: main\nSigned-By: {archive.keyring}\n")
    refused(debian_cloud("show", "fine"), USAGE, f"{file}: URIs is", "not one plain address")
    refused(debian_cloud("show", "fine", "--source", file, *archive.sources), USAGE, "URIs is not one plain address")


def test_apt_reads_the_same_address_in_both_styles(tmp_path: Path) -> None:
    """In one-line style, which the bootstrap uses, apt decodes "%" once more."""
    source = sources.Source("copy:/a%20b%25%23", ("trixie",), "/x.gpg")
    (tmp_path / "one.list").write_text(one_line.as_lines((source,)))
    (tmp_path / "two.sources").write_text(sources.as_deb822((source,)))
    for file in ("one.list", "two.sources"):
        settings = ("-o", f"Dir::Etc::SourceList={tmp_path / file}", "-o", "Dir::Etc::SourceParts=/dev/null")
        said = subprocess.run(
            ["apt-get", *settings, "-o", f"Dir::State::lists={tmp_path}", "--print-uris", "update"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert said.startswith("'copy:/a%20b%25%23/dists/trixie/InRelease' "), file


@pytest.mark.parametrize("name", NAMES)
def test_a_buildinfo_and_an_image_are_anywhere(tmp_path: Path, name: str) -> None:
    there = tmp_path / name
    there.mkdir()
    (there / "x.buildinfo").write_text(described())
    done = debian_cloud("sbom", there / "x.buildinfo")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spdxVersion"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", there / "x.qcow2", "1M"], check=True)
    refused(debian_cloud("diff", there / "x.qcow2", there / "x.qcow2"), 1, "hint:")


@pytest.mark.parametrize("name", SLOW)
def test_a_mirror_is_anywhere(archive: Archive, tmp_path: Path, name: str) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(archive.public))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run(
            ["debian-cloud-mirror", "--keyring", archive.keyring, "--suite", "trixie", source, tmp_path / name],
            capture_output=True,
            check=False,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    shown = tmp_path / name / "dists/trixie/InRelease"
    assert shown.read_bytes() == archive.release.read_bytes()


TAKES_NO = "apt accepts no"
CACHES: dict[str, tuple[dict[str, str], str]] = {
    "a home with a blank": ({"HOME": "{}/a b"}, TAKES_NO),
    "a home with a line end": ({"HOME": "{}/new\nline"}, TAKES_NO),
    "a cache with a number sign": ({"XDG_CACHE_HOME": "{}/#"}, TAKES_NO),
    "a cache with a percent sign": ({"XDG_CACHE_HOME": "{}/p%20q"}, TAKES_NO),
    "a cache with a quote": ({"XDG_CACHE_HOME": '{}/q"'}, TAKES_NO),
    "a cache with an octet that is not UTF-8": ({"XDG_CACHE_HOME": os.fsdecode(b"{}/\xff")}, TAKES_NO),
    "the root directory as home": ({"HOME": "/"}, "/.cache/debian-cloud: Permission denied"),
    "no home there": ({"HOME": "/nonexistent"}, "/nonexistent/.cache/debian-cloud: Permission denied"),
    "a relative home": ({"HOME": "x"}, "there is no home directory for the cache"),
    "a relative cache, which is passed over": ({"HOME": "/", "XDG_CACHE_HOME": "x"}, "/.cache/debian-cloud"),
    "a cache that is another's": ({"XDG_CACHE_HOME": "/etc"}, "/etc/debian-cloud: Permission denied"),
    "a cache that is a file": ({"XDG_CACHE_HOME": "/etc/passwd"}, "Not a directory"),
}


@pytest.mark.parametrize(("environment", "said"), CACHES.values(), ids=CACHES)
def test_a_cache_that_cannot_be(archive: Archive, place: Path, environment: dict[str, str], said: str) -> None:
    where = {name: value.replace("{}", str(place)) for name, value in environment.items()}
    done = as_user(where, "debian-cloud", "show", "fine", *archive.sources)
    refused(done, USAGE, said, "XDG_CACHE_HOME")
    assert list(place.iterdir()) == []


@root_only
def test_a_user_without_a_home_at_all(archive: Archive) -> None:
    done = as_user({}, "debian-cloud", "show", "fine", *archive.sources, user=AS_NO_USER)
    refused(done, USAGE, "there is no home directory for the cache", "set HOME, or XDG_CACHE_HOME")


def test_a_cache_with_another_alphabet(archive: Archive, place: Path) -> None:
    done = as_user({"XDG_CACHE_HOME": f"{place}/ä~'"}, "debian-cloud", "show", "fine", *archive.sources)
    assert done.returncode == 0, done.stderr


OUTPUT = """
import sys, pathlib
from debian_cloud import __main__, cli
from debian_cloud.build import workspace
cli.run = lambda argv: workspace.make_output(pathlib.Path(argv[0]).resolve()) or 0
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("output", ["/etc", "/etc/x", "/etc/passwd", "/etc/passwd/x"])
def test_an_output_that_cannot_be_written(output: str) -> None:
    done = as_user({"PYTHONPATH": f"{ROOT}/src"}, sys.executable, "-c", OUTPUT, output)
    refused(done, USAGE, f"{output} cannot be written to: ", "choose another directory with --output")


@pytest.mark.thorough
def test_a_copy_that_cannot_be_written(archive: Archive, place: Path) -> None:
    made = ("new", "x", "--from", "fine", "--maintainer", "Me <me@example.org>")
    refused(debian_cloud(*made, *archive.sources, "--output", "/proc/x"), USAGE, "cannot be written", "--output")
    for name in NAMES if ALL else ("".join(NAMES),):
        done = debian_cloud(*made, *archive.sources, "--output", place / name)
        assert done.returncode == 0, done.stderr
        assert (place / name / "debian-cloud-config-x/debian/control").exists()


@pytest.mark.parametrize("name", ["new\nline", 'q"q'])
def test_a_build_s_output_that_tools_cannot_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(Error, match=r"no image can be built in .*: its name has") as error:
        workspace._refuse_name(tmp_path / name)
    assert (error.value.status, error.value.hint) == (USAGE, "choose another directory")


@pytest.mark.parametrize("name", [name for name in NAMES if "\n" not in name and '"' not in name])
def test_a_build_s_output_that_it_can(tmp_path: Path, name: str) -> None:
    workspace._refuse_name(tmp_path / name)


STREAMS = {
    "closed": ("{} >&-", 0),
    "both closed": ("{} >&- 2>&-", 0),
    "full": ("{} >/dev/full", 1),
    "nobody reads": ("{{ {}; echo $? >&3; }} 3>&1 | true", 0),
}


@pytest.mark.parametrize(("form", "status"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("call", ["--help", "lint --rules", "sbom x.buildinfo", "--version"])
def test_an_output_that_takes_nothing(tmp_path: Path, form: str, status: int, call: str) -> None:
    (tmp_path / "x.buildinfo").write_text(described())
    done = subprocess.run(
        form.format(f"debian-cloud {call}"), shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
