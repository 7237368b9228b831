# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the shell script that builds the image of a configuration.

The script does what `debian-cloud build` does, step by step, in a new directory
below the current one that is named like the image; read it, change it, or pipe
it into a shell. Its last step writes the image's .buildinfo and record. Proxies
and credentials are not in it: the script gets them from the apt of the machine
that it runs on.

    debian-cloud plan ec2 | less
    debian-cloud plan ec2 > ec2.sh && sh ec2.sh
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.build import request
from debian_cloud.cli import options
from debian_cloud.plan import as_shell
from debian_cloud.text.printable import beneath

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_request(parser)


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    planned = request.planned(options.build_request(args))
    config = planned.resolution.config
    changes = planned.resolution.custom.lines
    about = (
        f"Builds {planned.stem}: {config.name} {config.version}, {len(planned.resolution.packages)} packages.\n"
        f"Plan {planned.id}, made by debian-cloud plan {names.config(config.name)}."
        + (f"\nNot official: {', '.join(changes)}." if changes else "")
    )
    script = as_shell(planned.steps, planned.stem, about)
    if sys.stdout.isatty():
        print(script, end="")
    else:
        # Unchanged, so that it makes the same bytes: a seed, for example, may have bytes unfit for a terminal.
        out = beneath(sys.stdout)
        out.flush()
        out.buffer.write(script.encode())
    return 0
