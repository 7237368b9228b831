# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity of an image: suite, configuration, architecture and serial, from which all file names follow."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from debian_cloud import names
from debian_cloud.errors import USAGE, Error
from debian_cloud.text.printable import printable

_PARTS = 4


@dataclass(frozen=True, slots=True)
class ImageId:
    """The four words that name an image; Error if one of them may not be a part of a path.

    As text it is SUITE/CONFIG/ARCH/SERIAL. `config` is the short name of the configuration package. `stem` is the
    common part of the image's file names: `debian-13-ec2-amd64-20261120.0`.
    """

    suite: str
    config: str
    architecture: str
    serial: str
    stem: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.suite, self.config, self.architecture, self.serial)
        # Made once: a reader of an index of 10,000 images needs it 180,000 times.
        release = names.RELEASES.get(self.suite, self.suite)
        made = names.STEM.format(release=release, config=self.config, arch=self.architecture, serial=self.serial)
        object.__setattr__(self, "stem", made)

    def __str__(self) -> str:
        return f"{self.suite}/{self.config}/{self.architecture}/{self.serial}"

    @classmethod
    def parse(cls, text: str, tree: str = "") -> ImageId:
        """The image that is named SUITE/CONFIG/ARCH/SERIAL, or has that path below `tree`; Error for another text."""
        parts = text.removeprefix(f"{tree}/" if tree else "").split("/")
        if len(parts) != _PARTS or (tree and not text.startswith(f"{tree}/")):
            what = printable(repr(text), 120)
            raise Error(f"{what} is not the name of an image", "an image is named SUITE/CONFIG/ARCH/SERIAL", USAGE)
        return cls(*parts)

    @property
    def series(self) -> str:
        """The series to which the image belongs: SUITE/CONFIG/ARCH."""
        return f"{self.suite}/{self.config}/{self.architecture}"

    @property
    def release(self) -> str:
        """The release to which the image belongs, all images of one suite and serial: SUITE/SERIAL."""
        return f"{self.suite}/{self.serial}"

    @property
    def number(self) -> tuple[int, int]:
        """The sort key of the image in its series: day, then number."""
        return names.serial_key(self.serial)

    @property
    def package(self) -> str:
        """The binary package that is the image's configuration."""
        return names.package(self.config)

    def file(self, suffix: str) -> str:
        """The name of a file of the image, such as its `buildinfo`."""
        return f"{self.stem}.{suffix}"

    def stable(self, suffix: str) -> str:
        """The same name without the serial: a link to the file, so that `current` has an address that lasts."""
        return f"{self.stem.removesuffix(f'-{self.serial}')}.{suffix}"

    def path(self, tree: str = names.IMAGES) -> str:
        """The image's directory in one of an archive's trees, relative to the archive's root."""
        return f"{tree}/{self}"


# Reading an index checks the same few names many times.
@functools.lru_cache(maxsize=1024)
def _check(suite: str, config: str, architecture: str, serial: str) -> None:
    names.word(suite, "suite")
    names.word(config, "configuration")
    names.word(architecture, "architecture")
    names.serial(serial)
