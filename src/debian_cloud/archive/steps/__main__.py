# SPDX-License-Identifier: GPL-3.0-or-later
"""`python3 -m debian_cloud.archive.steps STEP …`: only for the scripts of `archive/`."""

from __future__ import annotations

import sys

from debian_cloud.archive import steps
from debian_cloud.host import command

if __name__ == "__main__":
    sys.exit(command.main(steps.run))
