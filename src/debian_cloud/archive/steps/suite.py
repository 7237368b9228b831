# SPDX-License-Identifier: GPL-3.0-or-later
"""Print a suite's release number, and for how long a signature of it is good unless somebody says otherwise.

One line, RELEASE VALID-FOR, such as "13 14d" (ValidFor in reprepro(1)). A suite without a number of its own comes
after those that have one, as sid does: its release is 99.SUITE, with dots for hyphens, as a hyphen would begin
a Debian revision. Those that write the suites of an archive and make their keyring packages ask for it.
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
    """Do it; the exit status."""
    suite = names.word(args.suite, "suite")
    print(names.RELEASES.get(suite, f"99.{suite.replace('-', '.')}"), f"{lifecycle.VALID_FOR // 86400}d")
    return 0
