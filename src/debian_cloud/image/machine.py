# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine for an image must have: facts of its configuration that its signed record carries. Pure.

So an image of any age can be started or registered without its configuration's package.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.text import sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debian_cloud.image.config import ImageConfig

FIELDS: Final = (
    "Firmware", "Boot-Mode", "Root-Device", "Drivers", "Console", "Imds", "Tpm", "Volume", "Memory", "User",
    "Datasource",
)  # fmt: skip
"""Fields of a record; each has the meaning of the configuration's field whose name has `Image-` before it."""
SEVERAL: Final = ("Firmware", "Drivers", "Datasource")
"""Those that may have several words."""

# A newer archive may have words that this program does not know; whoever starts a machine refuses them.
_WORD: Final = re.compile(r"[A-Za-z0-9/][A-Za-z0-9/._+-]{0,63}")
_MOST: Final = 32
"""Maximum words of a field."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts; `memory` is the minimum in bytes, 0 if it is unknown.

    All are empty in records of archives older than these fields; `firmware` is for a root file system without a disk.
    """

    firmware: tuple[str, ...] = ()
    boot_mode: str = ""
    root_device: str = ""
    drivers: tuple[str, ...] = ()
    console: str = ""
    imds: str = ""
    tpm: str = ""
    volume: str = ""
    memory: int = 0
    user: str = ""
    datasources: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: ImageConfig) -> Machine:
        """The facts of a configuration."""
        return cls(
            found.firmware,
            found.boot_mode,
            found.root_device,
            found.drivers,
            found.console,
            found.imds,
            found.tpm,
            found.volume,
            found.memory,
            found.user,
            found.datasources,
        )

    def fields(self) -> tuple[tuple[str, str], ...]:
        """Each field of FIELDS and its value, empty if there is none."""
        values = (
            *(" ".join(self.firmware), self.boot_mode, self.root_device, " ".join(self.drivers), self.console),
            *(self.imds, self.tpm, self.volume, sizes.in_words(self.memory) if self.memory else "", self.user),
            " ".join(self.datasources),
        )
        return tuple(zip(FIELDS, values, strict=True))


UNKNOWN: Final = Machine()
"""The machine of a record that says nothing of it."""


def read(stanza: Mapping[str, str], *, strict: bool = False) -> Machine:
    """The facts in a stanza; Error if a value does not have the form that `Machine.fields` gives.

    With `strict`, as for an upload, each word must be one that a configuration may have.
    """
    return _read(tuple(stanza.get(field, "") for field in FIELDS), strict)


# All images of a configuration have the same facts, and an index has thousands of images.
@functools.lru_cache(maxsize=256)
def _read(values: tuple[str, ...], strict: bool) -> Machine:  # noqa: FBT001 - the cache compares positions
    found: dict[str, tuple[str, ...]] = {}
    for field, value in zip(FIELDS, values, strict=True):
        words = found[field] = tuple(value.split(" ")) if value else ()
        most = _MOST if field in SEVERAL else 1
        if len(words) > most or not all(map(_WORD.fullmatch, words)):
            raise Error(
                f"{field} of an image record is {value[:60]!r}",
                f"it must be words with blanks between, at most {most}",
            )
        if strict and words:
            # Only uploads are compared with it, and to import it takes time.
            from debian_cloud.image import config

            config.check("an image record", f"{config.PREFIX}{field}", list(words))

    def one(field: str) -> str:
        return next(iter(found[field]), "")

    memory = sizes.read(one("Memory"))
    if found["Memory"] and not memory:
        raise Error(f"Memory of an image record is not a size: {one('Memory')!r}", "a number and M, G or T")
    return Machine(
        found["Firmware"],
        one("Boot-Mode"),
        one("Root-Device"),
        found["Drivers"],
        one("Console"),
        one("Imds"),
        one("Tpm"),
        one("Volume"),
        memory,
        one("User"),
        found["Datasource"],
    )
