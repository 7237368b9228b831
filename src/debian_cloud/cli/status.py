# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what became of the image that this machine was made of.

The machine's own record, /etc/cloud-release, is looked up in the signed index
Images-Status that `apt update` fetched; no network is used. Said are: whether
the image was withdrawn, why, and for which CVEs; whether there is a newer one;
which of its packages have newer versions that are not installed here, security
updates first, and which were installed since. The exit status is 1 when the
image was withdrawn, or may be of an archive whose index cannot be read (which a
warning names), and when this machine was made of no image of an archive that
its apt knows.

    debian-cloud status
    debian-cloud status --json
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.cli import warn
from debian_cloud.errors import FAILED, Error
from debian_cloud.host import files, run
from debian_cloud.image import staleness
from debian_cloud.packages import images
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.image.staleness import ImageStatus, Pending

_LONGEST: Final = 4000
"""Characters of a reason."""
_RECORD = Path("/etc/cloud-release")
_OS_RELEASE = Path("/etc/os-release")
_INSTALLED: Final = ("installed", "triggers-awaited", "triggers-pending")
_STATUSES: Final = ("withdrawn", "expired", "deprecated")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    config, serial = _image()
    arch = run.output(("dpkg", "--print-architecture")).strip()
    said = images.statuses(
        lambda status: (status.config, status.serial, status.architecture) == (config, serial, arch)
    )
    for sentence in said.refused:
        warn(sentence)
    known = said.statuses
    found = _found(known, config, serial, arch)
    newest = max(
        (
            other.serial
            for other in known
            if other.status == "current" and (other.config, other.suite, other.architecture) == _kind(found)
        ),
        key=names.serial_key,
        default="",
    )
    newer = newest if newest and names.serial_key(newest) > names.serial_key(serial) else ""
    lacking, there = staleness.on_machine(found, _installed(arch))
    print(_as_json(found, newer, lacking, there) if args.json else _as_text(found, newer, lacking, there))
    return FAILED if found.status == "withdrawn" else 0


def _image() -> tuple[str, str]:
    """Configuration and serial of the image that the machine was made of."""
    fields = _fields(_RECORD)
    try:
        return names.word(fields["ID"], "configuration"), names.serial(fields["VERSION"])
    except (KeyError, Error):
        why = f"{_RECORD} names no image with a serial" if fields else f"it has no {_RECORD}"
        raise Error(f"this machine was not made of an image of ours: {why}", "run it on such a machine") from None


def _fields(file: Path) -> dict[str, str]:
    """The fields of a file in the manner of os-release(5), as far as quotes alone go."""
    text = files.read(file).decode("utf-8", "replace") if file.exists() else ""
    return dict(re.findall(r"""(?m)^([A-Z_]+)=["']?([^"'\n]*)["']?$""", text))


def _found(known: tuple[ImageStatus, ...], config: str, serial: str, arch: str) -> ImageStatus:
    """What is said of the image; of two suites' the machine's own, and of two archives' the worse.

    Error when nothing is said.
    """
    same = [said for said in known if (said.config, said.serial, said.architecture) == (config, serial, arch)]
    if not same:
        raise Error(
            f"no archive that this machine's apt knows ever published {config} {serial} for {arch}",
            "`apt-get update`; or the image is one that was never uploaded",
        )
    codename = _fields(_OS_RELEASE).get("VERSION_CODENAME", "")
    own = [said for said in same if said.suite == codename] or same
    return min(own, key=lambda said: _STATUSES.index(said.status) if said.status in _STATUSES else len(_STATUSES))


def _kind(said: ImageStatus) -> tuple[str, str, str]:
    return said.config, said.suite, said.architecture


def _installed(arch: str) -> dict[str, str]:
    """Package -> the version that is installed, of the machine's own architecture before others."""
    answer = run.output(("dpkg-query", "-W", "-f", "${Package} ${Architecture} ${Version} ${db:Status-Status}\n"))
    rows = [line.split() for line in answer.splitlines()]
    rows = [row for row in rows if len(row) == 4 and row[3] in _INSTALLED]
    return {row[0]: row[2] for row in sorted(rows, key=lambda row: row[1] in (arch, "all"))}


def _as_text(found: ImageStatus, newer: str, lacking: tuple[Pending, ...], there: tuple[Pending, ...]) -> str:
    said = f"{found.status}{f' since {found.date}' if found.date else ''}"
    said += f": {printable(found.reason, _LONGEST)}" if found.reason else ""
    lines = [f"{said}\n  {' '.join(found.cves)}" if found.cves else said] if found.reason else []
    image = f"image: {names.package(found.config)} {found.serial} of {found.suite} for {found.architecture}"
    lines.append(image if found.reason else f"{image}, {said}")
    lines.append(f"newer: {newer}" if newer else "newer: none")
    if not found.pending_date:
        lines.append("pending: the archive does not say; `apt list --upgradable` does")
        return "\n".join(lines)
    urgent = sum(update.security for update in lacking)
    lines.append(f"pending: {urgent} security, {len(lacking) - urgent} other, as of {found.pending_date}")
    lines += [
        f"  {'security ' if update.security else ''}{update.package} {update.installed} -> {update.new}"
        for update in lacking
    ]
    lines.append(f"installed since: {len(there)}")
    lines += [f"  {'security ' if update.security else ''}{update.package} {update.installed}" for update in there]
    return "\n".join(lines)


def _as_json(found: ImageStatus, newer: str, lacking: tuple[Pending, ...], there: tuple[Pending, ...]) -> str:
    document = {
        "image": names.package(found.config),
        "version": found.serial,
        "suite": found.suite,
        "architecture": found.architecture,
        "status": found.status,
        "status-date": found.date,
        "reason": found.reason,
        "cves": found.cves,
        "newer": newer,
        "pending-date": found.pending_date,
        "pending": [asdict(update) for update in lacking],
        "installed": [asdict(update) for update in there],
    }
    return json.dumps(document, indent=2)
