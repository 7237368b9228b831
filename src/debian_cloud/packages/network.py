# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's way to the network, from its own apt to that of a build, and nothing besides.

Handed over is how apt reaches an archive (apt.conf(5), apt-transport-http(1)):
all settings of its transports (proxies, of single hosts too, the program that
finds one, certificates, time-outs, limits), those of all of them (tries,
addresses), and where the credentials are (apt_auth.conf(5)). What is not of these kinds stays with the
machine: signatures, dates, hashes, hooks, folders, pins. So nothing here can
loosen what the build believes; what is fetched by whatever way is believed by
its signature alone, and a machine that does not verify its proxy's certificate
need not do so for a build.

The text may hold passwords. No plan, argument or image has it: it is a file of
the workspace that only its owner reads, made when the build begins.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DUMP: Final = ("apt-config", "dump", "--no-empty", "--format", "%f %v%n")
"""What to ask the machine's own apt; `conf` reads the answer (apt-config(8))."""
CREDENTIALS: Final = ("apt-config", "shell", "netrc", "Dir::Etc::netrc/f", "netrcparts", "Dir::Etc::netrcparts/d")
"""What to ask it, too: where its credentials are."""

ENVIRONMENT: Final = ("http_proxy", "https_proxy", "ftp_proxy")
"""Variables that name proxies where apt has no setting: a build's maintainer scripts do not see them."""

_TRANSPORTS: Final = {"http", "https", "ftp", "tor", "socks", "socks5h", "mirror", "s3"}
_OF_ALL: Final = {
    "acquire::allowtls",
    "acquire::blockdotonion",
    "acquire::enablesrvrecords",
    "acquire::forceipv4",
    "acquire::forceipv6",
    "acquire::max-pipeline-depth",
    "acquire::queue-mode",
    "acquire::send-uri-encoded",
    "acquire::uriencode",
}
# With all that is below: Acquire::Retries is a number, and has Delay besides.
_TREES_OF_ALL: Final = ("acquire::connect::", "acquire::queuehost::", "acquire::retries::")

_BINARY: Final = "binary::apt-get::"
"""Before a setting that is of apt-get alone."""
_NAME: Final = re.compile(r"[\w.:+/@\[\]-]+")
_SHELL: Final = re.compile(r"^(netrc|netrcparts)='([^']*)'$", re.MULTILINE)


def conf(dump: str, credentials: str, environment: Mapping[str, str]) -> str:
    """Lines of apt.conf(5) by the answers to DUMP and CREDENTIALS, and the environment; Error when one cannot be."""
    # Not splitlines: a value may have what ends a line to Python, and is refused then, and not cut.
    found = dict(_settings(dump.split("\n")))
    there = {name.lower() for name in found}
    # As apt itself does: only where no setting says otherwise, and http's are https's, too.
    for variable, needed in (
        ("http_proxy", ("http",)),
        ("https_proxy", ("https", "http")),
        ("ftp_proxy", ("ftp",)),
    ):
        proxy = environment.get(variable, "")
        if proxy and not there & {f"acquire::{transport}::proxy" for transport in needed}:
            found[f"Acquire::{needed[0]}::Proxy"] = proxy
    for name, path in _SHELL.findall(credentials):
        found[f"Dir::Etc::{name}"] = path
    return "".join(map(_line, found.items()))


def _settings(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those that are handed over, what is of apt-get alone after what is of all."""
    pairs = [line.partition(" ")[::2] for line in lines]
    # apt does not tell its letters from small ones.
    of_apt_get = [(name[len(_BINARY) :], value) for name, value in pairs if name.lower().startswith(_BINARY)]
    yield from ((name, value) for name, value in (*pairs, *of_apt_get) if _is_handed_over(name))


def _is_handed_over(name: str) -> bool:
    low = name.lower()
    if not _NAME.fullmatch(name) or not low.startswith("acquire::"):
        return False
    transport, _, setting = low.removeprefix("acquire::").partition("::")
    if setting and {*transport.split("+")} <= _TRANSPORTS:
        return True
    return low in _OF_ALL or f"{low}::".startswith(_TREES_OF_ALL)


def _line(setting: tuple[str, str]) -> str:
    name, value = setting
    if '"' in value or not value.isprintable():
        # Its value may be a secret.
        raise Error(
            f"the setting {name} of this machine's apt has a character that apt.conf(5) cannot write",
            "write it without quotation marks; in a URI as %22",
        )
    return f'{name} "{value}";\n'
