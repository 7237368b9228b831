# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy the network settings, and no others, from the machine's apt to the apt of a build.

These settings say how apt reaches an archive (apt.conf(5), apt-transport-http(1)): all settings of its transports
(proxies, also of single hosts, the program that detects one, certificates, timeouts, limits), those common to all
transports (retries, address families), and where the credentials are (apt_auth.conf(5)). Other settings are not
copied: signatures, dates, hashes, hooks, directories, pins. So nothing here can weaken verification in the build:
what is fetched is trusted only by its signature, and a machine that does not verify its proxy's certificate need not
do so for a build.

The text may contain passwords. No plan, argument or image has it: it is a file in the workspace that only its owner
can read, made when the build begins.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DUMP: Final = ("apt-config", "dump", "--no-empty", "--format", "%f %v%n")
"""Command that prints the settings of the machine's apt; `conf` reads its output (apt-config(8))."""
CREDENTIALS: Final = ("apt-config", "shell", "netrc", "Dir::Etc::netrc/f", "netrcparts", "Dir::Etc::netrcparts/d")
"""Command that prints where the credentials of the machine's apt are; `conf` reads its output."""

ENVIRONMENT: Final = ("http_proxy", "https_proxy", "ftp_proxy")
"""Variables that name proxies if apt has no setting; a build's maintainer scripts do not see them."""

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
# Including all settings below these: Acquire::Retries is a number, and has Delay below it.
_TREES_OF_ALL: Final = ("acquire::connect::", "acquire::queuehost::", "acquire::retries::")

_BINARY: Final = "binary::apt-get::"
"""Prefix of a setting for apt-get only."""
_NAME: Final = re.compile(r"[\w.:+/@\[\]-]+")
_SHELL: Final = re.compile(r"^(netrc|netrcparts)='([^']*)'$", re.MULTILINE)


def conf(dump: str, credentials: str, environment: Mapping[str, str]) -> str:
    """Return lines of apt.conf(5) from the output of DUMP and CREDENTIALS, and from the environment.

    Raise Error if a setting cannot be written.
    """
    # Not splitlines(): a value with another of Python's line ends must be refused, not split.
    found = dict(_settings(dump.split("\n")))
    there = {name.lower() for name in found}
    # As apt does: only if no setting says otherwise, and settings for http also apply to https.
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
    """Yield the settings to copy, those for apt-get only after those for all programs."""
    pairs = [line.partition(" ")[::2] for line in lines]
    # apt ignores the case of names.
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
        # Do not print the value: it may be a secret.
        raise Error(
            f"the setting {name} of this machine's apt has a character that apt.conf(5) cannot represent",
            "write it without quotation marks; in a URI, write %22",
        )
    return f'{name} "{value}";\n'
