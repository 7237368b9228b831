# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror of Debian on the loopback, filled from this machine's apt sources: no network is measured.

Every builder fetches from it by HTTP, the same files with Debian's own signatures. While it is filled, what it lacks
is fetched as this machine's apt would; after `seal` it serves what it has, and remembers what it was asked for in
vain. Its URLs have the port alone: which mirrors the machine uses is in no result.
"""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
MAIN: Final = "debian"
SECURITY: Final = "debian-security"
_PATH: Final = re.compile(r"(?:[A-Za-z0-9_+~:-][A-Za-z0-9_.+~:-]*/)*[A-Za-z0-9_+~:-][A-Za-z0-9_.+~:-]*")


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a peer finds Debian: two URLs without a slash at the end, and a suite."""

    main: str
    security: str
    suite: str
    keyring: str = KEYRING

    def lines(self, options: str = "") -> tuple[str, ...]:
        """Its sources, as lines of sources.list(5); `options` is such as "[signed-by=FILE]"."""
        main, security = (self.main, self.suite), (self.security, f"{self.suite}-security")
        places = (main, (self.main, f"{self.suite}-updates"), security)
        return tuple(" ".join(filter(None, ("deb", options, url, suite, "main"))) for url, suite in places)


def relative(path: str) -> tuple[str, str] | None:
    """What a request asks for: name of the source, and path below it; None if it is no file of a mirror.

    A client that takes the mirror for its proxy sends a whole URL: its host does not count.
    """
    name, _, rest = unquote(urlsplit(path).path).lstrip("/").partition("/")
    return (name, rest) if _PATH.fullmatch(rest) else None


class Cache:
    """The files of a mirror in a directory; `uris` is name -> URI of the source that it is filled from."""

    def __init__(self, folder: Path, uris: Mapping[str, str]) -> None:
        self.folder = folder
        self.missed: set[str] = set()
        self._uris = uris
        self._filling = True
        self._lock = threading.Lock()
        # Packages never change under their name; indexes do.
        for name in uris:
            shutil.rmtree(folder / name / "dists", ignore_errors=True)

    def seal(self) -> None:
        """Fetch nothing any more."""
        self._filling = False
        self.missed.clear()

    def have(self, path: str) -> bool:
        """Whether the file is there, fetched if need be."""
        asked = relative(path)
        if asked is None or asked[0] not in self._uris:
            return False
        name, rest = asked
        file = self.folder / name / rest
        with self._lock:
            if file.is_file():
                return True
            if f"{name}/{rest}" in self.missed or not self._filling or not self._fetch(name, rest, file):
                self.missed.add(f"{name}/{rest}")
                return False
            return True

    def _fetch(self, name: str, rest: str, file: Path) -> bool:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part")
        helper = ("/usr/lib/apt/apt-helper", "-o", "APT::Sandbox::User=root", "download-file")
        done = subprocess.run([*helper, f"{self._uris[name]}/{rest}", part], capture_output=True, check=False)
        # Of a directory, it makes a link.
        if done.returncode or not part.is_file():
            part.unlink(missing_ok=True)
            return False
        part.rename(file)
        return True


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        if self._found():
            super().do_GET()

    def do_HEAD(self) -> None:
        if self._found():
            super().do_HEAD()

    def _found(self) -> bool:
        if self.server.cache.have(self.path):
            return True
        self.send_error(404)
        return False

    def translate_path(self, path: str) -> str:
        return str(self.server.cache.folder.joinpath(*(relative(path) or ("absent",))))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the parent's
        pass


def serve(cache: Cache, suite: str) -> tuple[Mirror, http.server.ThreadingHTTPServer]:
    """Serve the cache from a thread until `shutdown` of the server."""
    server = _Server(cache)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"
    return Mirror(f"{at}/{MAIN}", f"{at}/{SECURITY}", suite), server
