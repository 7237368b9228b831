# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that the user's own archive and the archives of this machine's apt offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.errors import FAILED, USAGE, Error, did_you_mean
from debian_cloud.image import index
from debian_cloud.packages import images, origin
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from debian_cloud.image.staleness import ImageStatus


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which published image is requested; empty fields have defaults.

    `architecture` is by default this machine's, `format` qcow2 or another that exists, `serial` the current one,
    `archive` (a URL) the only one that has such images.
    """

    config: str
    suite: str = origin.DEFAULT_SUITE
    architecture: str = ""
    format: str = ""
    serial: str = ""
    archive: str = ""


def known(suite: str, arch: str = "", *, offline: bool = False) -> images.Known:
    """Return all images of a suite (and an architecture), those of the user's own archive first.

    With `offline`, its index is the one in the cache. Raise Error if there is no index of images.
    """
    mine = origin.offered(suite, arch, offline=offline)
    own = mine.known if mine else images.Known(())
    try:
        of_machine = images.known(suite, arch)
    except Error:
        # The user's own archive is enough.
        if not mine:
            raise
        return own
    return images.Known((*own.images, *of_machine.images), (*own.refused, *of_machine.refused))


def choose(wanted: Wanted, warn: Callable[[str], None]) -> images.Image:
    """Return the requested image; raise Error if there is none, or if several archives have it.

    `warn` is called with a sentence on each archive that is left out, and on a newer image that is no longer offered.
    """
    config = names.config(names.word(wanted.config, "configuration"))
    arch = origin.architecture(wanted.architecture)
    suite, serial, archive = wanted.suite, wanted.serial, wanted.archive.rstrip("/")
    offered, said = _offered(suite, arch, archive, config)
    for sentence in offered.refused:
        warn(sentence)
    # The image may be in an index that cannot be read.
    status = FAILED if offered.refused else USAGE
    found = [image for image in offered.images if image.record.id.config == config]
    gone = _gone(said, config, suite, arch)
    if not found:
        raise _refusal(gone, serial, "no other image of it is published; see `debian-cloud list --images`") or Error(
            f"no image of {config} in {suite}",
            did_you_mean(config, {i.record.id.config for i in offered.images})
            if offered.images
            else f"no image is published for {suite} and {arch}",
            status,
        )
    there = {image.record.format for image in found}
    format_ = wanted.format or ("qcow2" if "qcow2" in there else min(there))
    found = [
        image
        for image in found
        if image.record.format == format_
        and serial in ("", image.record.id.serial)
        and archive in ("", image.archive.rstrip("/"))
    ]
    if not found:
        asked = printable(f"{format_} {serial}".strip())
        if serial and (refusal := _refusal(gone, serial, "see `debian-cloud list --images` for others")):
            raise refusal
        raise Error(f"no image of {config} in {suite} as {asked}", "see `debian-cloud list --images`", status)
    archives = sorted({image.archive for image in found})
    if len(archives) > 1:
        raise Error(
            f"several archives have images of {config}: {', '.join(map(printable, archives))}",
            "choose one with --archive URL",
            USAGE,
        )
    # The newest may be deprecated, or not official.
    current = [image for image in found if image.record.status == "current"]
    chosen = (current or found)[-1]
    newest = gone[-1][0].id.number if gone else (0, 0)
    if not serial and newest > chosen.record.id.number:
        warn(_words(*gone[-1]))
    return chosen


def _offered(suite: str, arch: str, archive: str, config: str) -> tuple[images.Known, images.Said]:
    """Return images and statuses of the user's own archive, if it has such images, else of this machine's."""
    mine = origin.offered(suite, arch)
    if mine and archive not in ("", mine.uri.rstrip("/")):
        mine = None
    if mine and any(image.record.id.config == config for image in mine.known.images):
        return mine.known, mine.said
    try:
        of_machine = images.known(suite, arch)
    except Error:
        if mine:
            return mine.known, mine.said
        raise
    refused = mine.known.refused if mine else ()
    try:
        said = images.statuses(lambda _: False)
    except Error:
        # An archive need not have an index of statuses.
        said = images.Said(())
    return images.Known(of_machine.images, (*refused, *of_machine.refused)), said


def _gone(said: images.Said, config: str, suite: str, arch: str) -> list[tuple[ImageStatus, str]]:
    """Return a configuration's images that are no longer offered, oldest first, each with its archive."""
    found = [
        (status, archive)
        for status, archive in zip(said.statuses, said.archives, strict=True)
        if status.id.series == f"{suite}/{config}/{arch}" and status.status in index.GONE
    ]
    return sorted(found, key=lambda one: one[0].id.number)


def _refusal(gone: list[tuple[ImageStatus, str]], serial: str, hint: str) -> Error | None:
    """Return an error about the newest of these images, or about that with the serial; None if there is none."""
    wanted = [one for one in gone if serial in ("", one[0].id.serial)]
    return Error(_words(*wanted[-1]), hint) if wanted else None


def _words(status: ImageStatus, archive: str) -> str:
    image = f"{status.id.config} {status.id.serial} of {status.id.suite} for {status.id.architecture}"
    became = f"was withdrawn by {archive}" if status.status == "withdrawn" else f"has expired at {archive}"
    day = f" on {status.date}" if status.date else ""
    reason = f": {printable(status.reason, index.REASON)}" if status.reason else ""
    cves = f" ({printable(' '.join(status.cves), index.REASON)})" if status.cves else ""
    return f"{image} {became}{day}{reason}{cves}"
