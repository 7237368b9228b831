# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `debian-cloud`, which runs the verbs of `cli`."""

from __future__ import annotations

import sys

from debian_cloud import cli
from debian_cloud.host import command


def main(argv: list[str] | None = None) -> int:
    """Run `debian-cloud VERB …` and return its exit status: 0 done, 1 verification or policy failed, 2 wrong use."""
    return command.main(cli.run, argv)


if __name__ == "__main__":
    sys.exit(main())
