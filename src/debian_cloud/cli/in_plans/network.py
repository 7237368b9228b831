# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the machine's network settings for a build's apt.

FILE becomes lines of apt.conf(5): the settings of this machine's apt and the
variables http_proxy and https_proxy, as far as they define how archives are
reached. It may have passwords, and only its owner may read it. A plan calls
this before it installs packages, and removes FILE after that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.packages import network

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write; it must not exist")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    text = network.conf(run.output(network.DUMP), run.output(network.CREDENTIALS), os.environ)
    try:
        # Not through a link, which another user may have put there.
        descriptor = os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Error(
            f"{args.file} cannot be created: {error.strerror}", "give a name that does not exist yet", USAGE
        ) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    return 0
