# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's changes to one image, without a configuration package of its own.

The record has `Official: no`, and the .buildinfo has `Image-Changes`; an archive requires both to agree. An official
image has neither field. An unofficial image is `current` only if there is no official one. `--remove` is a pin of -1,
the same text for both resolutions; a replacement of a removed package must be there already or be
added by name.

An added source is verified only with its own key. `Image-Changes` has its address, suite and components,
`Image-Releases` its signers, and `Other-Sources` of the record its address and suite. A closure keeps its release
file, as of any source. `verify` accepts it only if the source is given there too, and only the very file that the
.buildinfo names. An archive keeps such closures if its conf/closures has `--source=FILE`. The image's own apt does
not use that source.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.image.config import FIELDS, PATH, size
from debian_cloud.text.sizes import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

# Debian Policy 5.6.1. apt gives a meaning to other characters: versions, patterns, removals.
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")
# RFC 1123, 2.1; hostname(7) gives the length of a complete name, RFC 1035 that of a label.
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LONGEST_HOSTNAME: Final = 64
_FIRST: Final = 1000
"""Lowest number in the serial of an unofficial image; no day has so many official images."""
_TYPES: Final = ("boolean", "multiselect", "note", "password", "select", "string", "text", "title", "seen")
"""Types that debconf-set-selections(1) accepts as the third word; `seen` is a flag."""
_ANSWER: Final = re.compile(r"\s*(\S+)\s+(\S+)\s+(\S+)(?:\s(.*))?")


@dataclass(frozen=True, slots=True)
class Custom:
    """The user's changes to an image; an official image has none.

    `add` and `remove` are names of packages, `seed` is text as debconf-set-selections(1) reads it, `keep` are paths
    as in Image-Keep-Secrets, `size` is the disk's in bytes, 0 for the configuration's, `sources` are added sources
    (`sources.as_change`).
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    seed: str = ""
    hostname: str = ""
    keep: tuple[str, ...] = ()
    size: int = 0
    sources: tuple[str, ...] = ()

    @property
    def preferences(self) -> str:
        """The preferences by which apt installs no version of the removed packages (apt_preferences(5))."""
        return "\n".join(f"Package: {name}\nPin: version *\nPin-Priority: -1\n" for name in self.remove)

    @property
    def lines(self) -> tuple[str, ...]:
        """The changes, one line each; none for an official image. A seed is given by its SHA-256."""
        return (
            *(f"add {name}" for name in self.add),
            *(f"remove {name}" for name in self.remove),
            *((f"seed {hashlib.sha256(self.seed.encode()).hexdigest()}",) if self.seed else ()),
            *((f"hostname {self.hostname}",) if self.hostname else ()),
            *(f"keep {path}" for path in self.keep),
            *(f"source {line}" for line in self.sources),
            *((f"size {in_words(self.size)}",) if self.size else ()),
        )

    @property
    def number(self) -> int:
        """The number in the serial of an image with these changes: 0 for an official image, else 1000 to 9999.

        So an unofficial image has another name than the official image of its day, and than one with other changes.
        """
        if not self.lines:
            return 0
        digest = hashlib.sha256("\n".join(self.lines).encode()).digest()
        return _FIRST + int.from_bytes(digest[:8], "big") % (10_000 - _FIRST)


def others(lines: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Address and suite of each source that the user added, from the lines of `Custom.lines`."""
    rows = (line.split(" ") for line in lines)
    return tuple((row[1], row[2]) for row in rows if row[0] == "source")


OFFICIAL: Final = Custom()
"""No changes."""


def custom(
    add: str = "", remove: str = "", seed: str = "", hostname: str = "", keep: str = "", disk: str = ""
) -> Custom:
    """Parse the texts of the options; an Error, always with status USAGE, names the wrong word."""
    adds, removes = _packages(add, "--add"), _packages(remove, "--remove")
    for name in adds:
        if name in removes:
            raise Error(f"{name} is both added and removed", "name it in one of --add and --remove", USAGE)
    check_seed(seed)
    return Custom(adds, removes, seed, _hostname(hostname) if hostname else "", _paths(keep), _disk(disk))


def check_seed(text: str) -> None:
    """Raise an Error that names the first line that debconf-set-selections(1) would not accept."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        first = number + 1
        line = lines[number].removesuffix("\r")
        while line.endswith("\\") and number + 1 < len(lines):
            number += 1
            line = line[:-1] + lines[number].removesuffix("\r")
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ANSWER.fullmatch(line)
        if match is None:
            raise Error(
                f"line {first} of the seed is not an answer to debconf: {line.strip()!r}",
                "a line is PACKAGE QUESTION TYPE ANSWER (debconf-set-selections(1))",
                USAGE,
            )
        if match[3] not in _TYPES:
            raise Error(
                f"line {first} of the seed has the unknown type {match[3]}", did_you_mean(match[3], _TYPES), USAGE
            )


def _packages(text: str, option: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in found:
        if not _PACKAGE.fullmatch(name):
            raise Error(
                f"{option} {name!r} is not a Debian package name",
                "use two or more lower-case letters, digits, '+', '-' and '.', and commas between names: vim,htop",
                USAGE,
            )
    return found


def _disk(text: str) -> int:
    try:
        return size(text, "--size") if text else 0
    except Error:
        least, most = FIELDS["Image-Size"].sizes
        raise Error(
            f"--size {text!r} is not the size of a disk",
            f"a number and M, G or T (powers of 1024), from {least} to {most}: 12G",
            USAGE,
        ) from None


def _paths(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(path for path in text.split(",") if path))
    for path in found:
        if not re.fullmatch(PATH, path):
            raise Error(
                f"--keep-secrets {path!r} is not a path of an image",
                "give the path that the build named; separate paths with commas: /etc/x/key,/var/lib/x/**",
                USAGE,
            )
    return found


def _hostname(name: str) -> str:
    labels = name.split(".")
    # The last label of a name is not a number (RFC 1123, 2.1): otherwise it could be an address.
    if (
        len(name) > _LONGEST_HOSTNAME
        or not all(map(_LABEL.fullmatch, labels))
        or (len(labels) > 1 and labels[-1].isdigit())
    ):
        raise Error(
            f"{name!r} is not a host name",
            "letters, digits and '-' inside, at most 63 for a label and 64 in total (RFC 1123, hostname(7))",
            USAGE,
        )
    return name
