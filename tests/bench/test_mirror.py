# SPDX-License-Identifier: GPL-3.0-or-later
"""The local mirror of the bench: filled once, then closed; no way out of its directory."""

from __future__ import annotations

import http.client
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import mirror


@pytest.fixture
def cache(tmp_path: Path) -> mirror.Cache:
    """One that is filled from a directory."""
    (tmp_path / "origin/pool").mkdir(parents=True)
    (tmp_path / "origin/pool/a_1+b~2_all.deb").write_text("a package")
    (tmp_path / "secret").write_text("not for all")
    return mirror.Cache(tmp_path / "cache", {"debian": f"file:{tmp_path}/origin"})


@pytest.fixture
def served(cache: mirror.Cache) -> Iterator[mirror.Mirror]:
    found, server = mirror.serve(cache, "trixie")
    yield found
    server.shutdown()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def test_what_it_lacks_is_fetched_until_it_is_sealed(
    cache: mirror.Cache, served: mirror.Mirror, tmp_path: Path
) -> None:
    url = f"{served.main}/pool/a_1+b~2_all.deb"
    assert get(url) == b"a package"
    (tmp_path / "origin/pool/b.deb").write_text("another")
    cache.seal()
    assert get(url) == b"a package"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{served.main}/pool/b.deb")
    assert cache.missed == {"debian/pool/b.deb"}


def test_an_escaped_name_is_the_same_file(served: mirror.Mirror) -> None:
    assert get(f"{served.main}/pool/a_1%2bb%7e2_all.deb") == b"a package"


def test_it_is_a_proxy_for_who_takes_it_for_one(served: mirror.Mirror) -> None:
    host = served.main.split("/")[2]
    opened = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://{host}"}))
    with opened.open("http://mirror.example/debian/pool/a_1+b~2_all.deb", timeout=30) as answer:
        assert answer.read() == b"a package"


@pytest.mark.parametrize(
    "path", ["/debian/../secret", "/debian/%2e%2e/secret", "/other/x", "/debian/", "/debian/pool", "/", "/debian//x"]
)
def test_there_is_no_way_out(served: mirror.Mirror, path: str) -> None:
    connection = http.client.HTTPConnection(served.main.split("/")[2], timeout=30)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


def test_indexes_are_fetched_anew_and_packages_kept(cache: mirror.Cache, tmp_path: Path) -> None:
    for name in ("dists/trixie/InRelease", "pool/x.deb"):
        (cache.folder / "debian" / name).parent.mkdir(parents=True)
        (cache.folder / "debian" / name).touch()
    again = mirror.Cache(cache.folder, {"debian": f"file:{tmp_path}/origin"})
    assert not again.have("/debian/dists/trixie/InRelease")
    assert again.have("/debian/pool/x.deb")


def test_apt_takes_its_lines() -> None:
    found = mirror.Mirror("http://127.0.0.1:1/debian", "http://127.0.0.1:1/debian-security", "trixie")
    assert found.lines() == (
        "deb http://127.0.0.1:1/debian trixie main",
        "deb http://127.0.0.1:1/debian trixie-updates main",
        "deb http://127.0.0.1:1/debian-security trixie-security main",
    )
    assert found.lines("[signed-by=/k]")[0] == "deb [signed-by=/k] http://127.0.0.1:1/debian trixie main"


def test_apt_helper_is_where_it_is_called() -> None:
    assert subprocess.run(["/usr/lib/apt/apt-helper", "--version"], capture_output=True, check=False).stdout
