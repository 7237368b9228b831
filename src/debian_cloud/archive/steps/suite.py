# SPDX-License-Identifier: GPL-3.0-or-later
"""Print a suite's release number, and for how long its signatures are valid by default.

One line, RELEASE VALID-FOR, such as "13 14d" (ValidFor in reprepro(1)). A suite
without its own number, such as sid, comes after those that have one: its release is
99.SUITE, with dots for hyphens, because a hyphen would begin a Debian revision. The
scripts that write the suites of an archive and make their keyring packages call
this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from debian_cloud import names
from debian_cloud.archive import lifecycle

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the step's arguments."""
    parser.add_argument("suite", metavar="SUITE", help="its codename")


def main(args: argparse.Namespace) -> int:
    """Run the step and return its exit status."""
    suite = names.word(args.suite, "suite")
    print(names.RELEASES.get(suite, f"99.{suite.replace('-', '.')}"), f"{lifecycle.VALID_FOR // 86400}d")
    return 0
