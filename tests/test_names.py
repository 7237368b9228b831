# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that become parts of paths."""

from __future__ import annotations

import pytest

from debian_cloud import names
from debian_cloud.errors import Error


@pytest.mark.parametrize("value", ["", "-x", "EC2", "a b", "a/b", "..", "a..b", "é", "a\n"])
def test_what_is_no_debian_name_is_no_path_component(value: str) -> None:
    with pytest.raises(Error, match="not a valid name"):
        names.word(value, "configuration")
