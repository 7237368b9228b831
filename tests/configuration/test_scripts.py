# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts that debhelper added to a maintainer script are distinguished from the package's own, at any length."""

from __future__ import annotations

import pytest

from debian_cloud.configuration import scripts
from tests import bounds

BEGIN = "# Automatically added by dh_x\n"
END = "# End automatically added section\n"
ADDED = f"{BEGIN}deb-systemd-helper enable x\n{END}"


@pytest.mark.parametrize(
    ("script", "own"),
    [
        ("", ""),
        (f"#!/bin/sh\nset -e\n{ADDED}", ""),
        (f"#!/bin/sh\n{ADDED}rm x\n{ADDED}", "#!/bin/sh\n#DEBHELPER#\nrm x\n"),
        ("#!/bin/sh\nrm x\nexit 0\n", "#!/bin/sh\nrm x\n\n#DEBHELPER#\n\nexit 0\n"),
        # A part without an end belongs to the package.
        (f"{BEGIN}rm x\n", f"{BEGIN}rm x\n\n#DEBHELPER#\n"),
        (f"{END}rm x\n{BEGIN}", f"{END}rm x\n{BEGIN.rstrip()}\n\n#DEBHELPER#\n"),
    ],
)
def test_the_own_part_of_a_script(script: str, own: str) -> None:
    assert scripts.is_own(script) is bool(own)
    assert scripts.own_part(script).split() == own.split()


def test_a_long_script_of_parts_without_end_is_read_once() -> None:
    program = f"from debian_cloud.configuration import scripts; print(scripts.is_own({BEGIN!r} * 2**19))"
    environment = {"PYTHONPATH": str(bounds.ROOT / "src")}
    done = bounds.within(1024, ["/usr/bin/python3", "-c", program], seconds=60, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"False\n", b"")
