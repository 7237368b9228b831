# SPDX-License-Identifier: GPL-3.0-or-later
"""Web servers of a directory, some of which do what a source must not do."""

from __future__ import annotations

import contextlib
import functools
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Handler = Callable[..., http.server.SimpleHTTPRequestHandler]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server of a directory that writes no log."""

    def log_message(self, *_: Any) -> None:
        return


class Busy(Quiet):
    """A server that tells everybody to come back in a day."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Retry-After", "100000")
        self.send_header("Content-Length", "0")
        self.end_headers()


class Dripping(Quiet):
    """A server that sends a byte twice a second."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.5)


class Polite(Quiet):
    """A server that has a page for what is not there, and says that all is well."""

    def send_error(self, *_: Any, **__: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "15")
        self.end_headers()
        self.wfile.write(b"<html>No</html>")


class ServerOfSix(http.server.ThreadingHTTPServer):
    """A server with an address of IPv6 alone."""

    address_family = socket.AF_INET6


@contextlib.contextmanager
def serving(
    handler: Handler, root: Path, kind: type[http.server.ThreadingHTTPServer] = http.server.ThreadingHTTPServer
) -> Iterator[str]:
    """The address of a web server of a directory."""
    host = "::1" if kind is ServerOfSix else "127.0.0.1"
    with kind((host, 0), functools.partial(handler, directory=str(root))) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
        server.shutdown()
