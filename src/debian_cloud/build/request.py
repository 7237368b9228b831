# SPDX-License-Identifier: GPL-3.0-or-later
"""A build request, and the plan that makes its image.

A lock is a list of requests and need not be signed; but the sources that it names would be the image's, so they must
be Debian's, as for `verify`. Its pins let both apts install nothing else; what they install is compared with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debian_cloud import formats, names
from debian_cloud.build import steps
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host import files
from debian_cloud.image import sources
from debian_cloud.image.custom import OFFICIAL, Custom, custom
from debian_cloud.packages import evidence, origin, pool
from debian_cloud.packages.origin import USUAL, Origin, Places

if TYPE_CHECKING:
    from pathlib import Path

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.id import ImageId
    from debian_cloud.image.resolution import Resolution
    from debian_cloud.plan import Plan


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A request for the image of a configuration; what is empty is as the configuration says.

    `architecture` is by default this machine's, `formats` are the configuration's, `serial` is the day of the newest
    index of packages. With a `lock`, the packages are exactly the lock's. `changes.sources` comes from `places`.
    """

    config: str
    suite: str = origin.DEFAULT_SUITE
    architecture: str = ""
    formats: tuple[str, ...] = ()
    serial: str = ""
    changes: Custom = OFFICIAL
    places: Places = USUAL
    lock: Buildinfo | None = None

    @property
    def changed(self) -> Custom:
        """All changes to the image, including the other sources that it is made of."""
        lines = tuple(line for source in self.places.added for line in sources.as_change(source))
        return replace(self.changes, sources=lines)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, what it is for, and the names of the files that it makes.

    With `offline`, it is carried out without a network.
    """

    plan: Plan
    resolution: Resolution
    image: ImageId
    outputs: tuple[str, ...]
    offline: bool = False

    @property
    def stem(self) -> str:
        """The common part of the names of its files."""
        return self.image.stem

    @property
    def id(self) -> str:
        """The id of the plan in the .buildinfo."""
        return steps.identity(self.plan)

    @property
    def steps(self) -> Plan:
        """The steps of the plan as they are carried out.

        Whether a .deb comes from the cache or from a network makes no difference to the image: so `offline` has an
        effect on these steps alone, and none on the plan and its id.
        """
        return pool.offline(self.plan) if self.offline else self.plan


def resolved(asked: BuildRequest) -> Resolution:
    """Return the exact packages of the image, whether they fit on its disk or not."""
    with origin.of(asked.places, asked.suite, asked.architecture) as found:
        return found.resolve(asked.config, asked.suite, asked.changed, asked.lock)


def planned(asked: BuildRequest) -> Planned:
    """Return the plan of the image."""
    for name in asked.formats:
        formats.find(name)
    if asked.serial:
        names.serial(asked.serial)
    names.word(asked.config, "configuration")
    buildinfo, places = asked.lock, asked.places
    if buildinfo:
        # Packages come from signed archives, but the sources of the image come from the lock, which may be unsigned.
        evidence.refuse_sources(buildinfo, (places.mirror, places.security_mirror), expired=places.expired)
    with origin.of(places, asked.suite, asked.architecture) as found:
        resolution = found.resolve(asked.config, asked.suite, asked.changed, buildinfo)
        if not buildinfo:
            # The image of a lock was made before, so it fits.
            steps.check_size(resolution)
        made = _planned(found, resolution, asked.serial, asked.formats, buildinfo)
    return replace(made, offline=places.offline)


def again(
    buildinfo: Buildinfo,
    keyring: Path,
    *,
    closure: str = "",
    archive: str = "",
    seed: Path | None = None,
    wanted: tuple[str, ...] = (),
) -> Planned:
    """Return the plan that makes the image of a .buildinfo from its closure; raise Error if it cannot be the same.

    `keyring` has the archive's keys. `closure` is the closure's URL or directory, by default where the archive keeps
    it; `archive` is the archive's URL or directory. `seed` is the file of the seed that the image was made with.
    `wanted` are the formats, by default all that the .buildinfo names.
    """
    lines = [line.partition(" ")[::2] for line in buildinfo.changes]
    add, remove, hostname, keep, size = (
        ",".join(value for word, value in lines if word == change)
        for change in ("add", "remove", "hostname", "keep", "size")
    )
    others = tuple(value for word, value in lines if word == "source")
    made = custom(add, remove, seed_text(seed) if seed else "", hostname, keep, size)
    changes = replace(made, sources=others)
    if changes.lines != buildinfo.changes:
        raise Error(
            f"the image was made with another seed than {seed or 'none'}",
            "give the original seed with --seed: the .buildinfo has its SHA-256",
            USAGE,
        )
    with origin.of_closure(buildinfo, keyring, closure, archive) as found:
        try:
            resolution = found.resolve(buildinfo.id.config, buildinfo.id.suite, changes, buildinfo)
        except Error as error:
            # The caller named no package, so blame the closure, which lacks what the .buildinfo has.
            hint = error.hint if error.status == FAILED else "the closure is incomplete, or belongs to another image"
            raise Error(error.message, hint) from None
        return _planned(found, resolution, buildinfo.id.serial, wanted or buildinfo.formats, buildinfo)


def _planned(
    found: Origin, resolution: Resolution, serial: str, wanted: tuple[str, ...], buildinfo: Buildinfo | None
) -> Planned:
    config = resolution.config
    day = time.strftime("%Y%m%d", time.gmtime(resolution.epoch))
    serial = serial or (buildinfo.id.serial if buildinfo else f"{day}.{resolution.custom.number}")
    wanted = wanted or config.formats
    of_image = buildinfo.sources if buildinfo else ()
    image = config.image(serial)
    plan = steps.plan(resolution, serial, wanted, found.debian, found.archive, of_image, found.others)
    published = ("image", "changes") if any(formats.find(name).PUBLISHED for name in wanted) else ()
    return Planned(plan, resolution, image, tuple(image.file(e) for e in (*wanted, "buildinfo", *published)))


def seed_text(file: Path) -> str:
    """Return the answers to debconf in a file, as `Custom` has them."""
    try:
        # Keep every byte: the .buildinfo has the file's SHA-256.
        return files.read(file, what="seed").decode("utf-8")
    except UnicodeDecodeError:
        raise Error(f"seed {file} is not UTF-8 text", "give a file of answers to debconf", USAGE) from None
