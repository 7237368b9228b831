# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the bill of materials of an image.

It is made only from the image's .buildinfo: each package with its version and
its .deb's SHA-256, and the files of the image. The same .buildinfo always gives
the same text. A signature around the .buildinfo is not verified. If an image is
given, the .buildinfo beside it is used.

    debian-cloud sbom debian-13-ec2-amd64-20261121.0.buildinfo > ec2.spdx.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud import formats, projections
from debian_cloud.packages import described

if TYPE_CHECKING:
    import argparse

_IMAGES: Final = {"image", *(name.rpartition(".")[2] for name in formats.names())}
"""The suffixes of the names of an image and its record."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    formats = [name for name in projections.names() if projections.find(name).SBOM]
    parser.add_argument("file", type=Path, metavar="FILE", help="an image, or its .buildinfo")
    parser.add_argument("--format", choices=formats, default="spdx", help="SPDX 2.3 (default) or CycloneDX 1.6")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    file: Path = args.file
    # Any other file is read as a .buildinfo, whatever its name.
    is_image = file.suffix[1:] in _IMAGES and not file.name.endswith(".buildinfo")
    known = described.of(described.beside(file) if is_image else file)
    sys.stdout.write(projections.text(projections.find(args.format).document(known)))
    return 0
