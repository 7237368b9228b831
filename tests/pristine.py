# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive with good and bad configurations, which a test may tamper with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests import throwaway
from tests.throwaway import FINE, Archive, configuration


@pytest.fixture(scope="module")
def pristine() -> Iterator[Archive]:
    """An archive with good and bad configurations."""
    with throwaway.folder() as top:
        yield throwaway.archive(
            top,
            configuration(top / "debs", "fine", FINE),
            configuration(top / "debs", "field", {**FINE, "Image-Sise": "1G"}),
            configuration(top / "debs", "size", {**FINE, "Image-Size": "8 gigs"}),
            configuration(top / "debs", "needy", FINE, depends="base-files (>= 999)"),
            configuration(top / "debs", "common", {}),
        )


@pytest.fixture
def archive(pristine: Archive) -> Iterator[Archive]:
    """The archive, restored after the test at the same address, so that Debian's indexes are fetched only once."""
    kept = pristine.folder.with_name("kept")
    subprocess.run(["cp", "-a", pristine.public, kept], check=True)
    yield pristine
    subprocess.run(["rm", "-rf", pristine.public], check=True)
    kept.rename(pristine.public)
