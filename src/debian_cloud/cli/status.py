# SPDX-License-Identifier: GPL-3.0-or-later
"""Report the status of the image that this machine was made from.

The machine's own record, /etc/cloud-release, is looked up in the signed index
Images-Status that `apt update` fetched; no network is used. Reports whether the
image was withdrawn, why, and for which CVEs; whether there is a newer one; which of
its packages have newer versions that are not installed here, security updates
first, and which were installed since. The exit status is 1 if the image was
withdrawn, if its archive may be one whose index cannot be read (which a warning
names), or if this machine was not made from an image of an archive that its apt
knows.

    debian-cloud status
    debian-cloud status --json
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from debian_cloud.cli import warn
from debian_cloud.errors import FAILED
from debian_cloud.packages import machine
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.packages.machine import Became

_LONGEST: Final = 4000
"""Maximum characters of a reason."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    became = machine.image(warn)
    print(_as_json(became) if args.json else _as_text(became))
    return FAILED if became.image.status == "withdrawn" else 0


def _as_text(became: Became) -> str:
    found, newer, lacking, there = became.image, became.newer, became.lacking, became.there
    said = f"{found.status}{f' since {found.date}' if found.date else ''}"
    said += f": {printable(found.reason, _LONGEST)}" if found.reason else ""
    lines = [f"{said}\n  {' '.join(found.cves)}" if found.cves else said] if found.reason else []
    image = f"image: {found.id.package} {found.id.serial} of {found.id.suite} for {found.id.architecture}"
    lines.append(image if found.reason else f"{image}, {said}")
    lines.append(f"newer: {newer}" if newer else "newer: none")
    if not found.pending_date:
        lines.append("pending: unknown to the archive; see `apt list --upgradable`")
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


def _as_json(became: Became) -> str:
    found = became.image
    document = {
        "image": found.id.package,
        "version": found.id.serial,
        "suite": found.id.suite,
        "architecture": found.id.architecture,
        "status": found.status,
        "status-date": found.date,
        "reason": found.reason,
        "cves": found.cves,
        "newer": became.newer,
        "pending-date": found.pending_date,
        "pending": [asdict(update) for update in became.lacking],
        "installed": [asdict(update) for update in became.there],
    }
    return json.dumps(document, indent=2)
