# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of the image that this machine was made of, as its apt knows it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.errors import Error
from debian_cloud.host import files, run
from debian_cloud.image import staleness
from debian_cloud.packages import images

if TYPE_CHECKING:
    from collections.abc import Callable

    from debian_cloud.image.staleness import ImageStatus, Pending

_RECORD = Path("/etc/cloud-release")
_OS_RELEASE = Path("/etc/os-release")
_INSTALLED: Final = ("installed", "triggers-awaited", "triggers-pending")
_STATUSES: Final = ("withdrawn", "expired", "deprecated")


@dataclass(frozen=True, slots=True)
class Became:
    """The image's status; the serial of a newer image, or ""; updates that are not installed, and that are."""

    image: ImageStatus
    newer: str
    lacking: tuple[Pending, ...]
    there: tuple[Pending, ...]


def image(warn: Callable[[str], None]) -> Became:
    """Return the status of this machine's image; raise Error if it was made of none, or of one that no archive knows.

    `warn` is called with a sentence on each archive whose index cannot be read.
    """
    config, serial = _image()
    arch = run.output(("dpkg", "--print-architecture")).strip()
    said = images.statuses(
        lambda status: (status.id.config, status.id.serial, status.id.architecture) == (config, serial, arch)
    )
    for sentence in said.refused:
        warn(sentence)
    known = said.statuses
    found = _found(known, config, serial, arch)
    newest = max(
        (other.id.serial for other in known if other.status == "current" and other.id.series == found.id.series),
        key=names.serial_key,
        default="",
    )
    newer = newest if newest and names.serial_key(newest) > names.serial_key(serial) else ""
    return Became(found, newer, *staleness.on_machine(found, _installed(arch)))


def _image() -> tuple[str, str]:
    """Return configuration and serial of the image that the machine was made of."""
    fields = _fields(_RECORD)
    try:
        return names.word(fields["ID"], "configuration"), names.serial(fields["VERSION"])
    except (KeyError, Error):
        why = f"{_RECORD} names no image with a serial" if fields else f"there is no {_RECORD}"
        raise Error(
            f"this machine was not made from an image of debian-cloud: {why}",
            "run it on a machine that was made from one",
        ) from None


def _fields(file: Path) -> dict[str, str]:
    """Return the fields of a file in the format of os-release(5); quotes are removed, escapes are not supported."""
    text = files.read(file).decode("utf-8", "replace") if file.exists() else ""
    return dict(re.findall(r"""(?m)^([A-Z_]+)=["']?([^"'\n]*)["']?$""", text))


def _found(known: tuple[ImageStatus, ...], config: str, serial: str, arch: str) -> ImageStatus:
    """Return the image's status: of several suites that of the machine's own, of several archives the worst.

    Raise Error if no archive knows the image.
    """
    wanted = (config, serial, arch)
    same = [said for said in known if (said.id.config, said.id.serial, said.id.architecture) == wanted]
    if not same:
        raise Error(
            f"no archive that this machine's apt knows ever published {config} {serial} for {arch}",
            "run `apt-get update`; an image that was never uploaded has no status",
        )
    codename = _fields(_OS_RELEASE).get("VERSION_CODENAME", "")
    own = [said for said in same if said.id.suite == codename] or same
    return min(own, key=lambda said: _STATUSES.index(said.status) if said.status in _STATUSES else len(_STATUSES))


def _installed(arch: str) -> dict[str, str]:
    """Return package -> the installed version, preferring the machine's own architecture."""
    answer = run.output(("dpkg-query", "-W", "-f", "${Package} ${Architecture} ${Version} ${db:Status-Status}\n"))
    rows = [line.split() for line in answer.splitlines()]
    rows = [row for row in rows if len(row) == 4 and row[3] in _INSTALLED]
    return {row[0]: row[2] for row in sorted(rows, key=lambda row: row[1] in (arch, "all"))}
