# SPDX-License-Identifier: GPL-3.0-or-later
"""`debian-cloud`: the verbs of `cli`, as a command."""

from __future__ import annotations

import sys

from debian_cloud import cli
from debian_cloud.host import command


def main(argv: list[str] | None = None) -> int:
    """Run `debian-cloud VERB …`; 0 done, 1 no (verification or policy failed), 2 wrong use."""
    return command.main(cli.run, argv)


if __name__ == "__main__":
    sys.exit(main())
